"""What a hub has to keep at any time."""

from __future__ import annotations

from ncfast._frames import FrameType
from ncfast.conformance.broken import Broken
from ncfast.conformance.flow import Flow
from ncfast.conformance.referee import Referee
from ncfast.conformance.tunnel import Frame, Tunnel
from ncfast.core.errors import RemoteError
from ncfast.core.features import PACKED_OPEN
from ncfast.core.messages import VERSION, Hello, HelloAck
from ncfast.core.opening import PACKED, Opening

F = FrameType
Address = tuple[str, int]


class HubReferee(Referee):
    """Of a hub's frames. `clients`: the flows of those that we have at its listener, by their address."""

    OURS = frozenset({F.HELLO, F.ANNOUNCE})
    FAR = "client"
    AGAIN = "8.10"

    def __init__(self, flows: dict[bytes, Flow]) -> None:
        super().__init__(flows)
        self.clients: dict[Address, Flow] = {}
        self.epochs: dict[str, int] = {}  # the highest granted, by agent
        self.served: dict[Tunnel, frozenset[str]] = {}  # what was announced

    def _of_tunnel(self, tunnel: Tunnel, frame: Frame) -> None:
        if frame.type == F.HELLO_ACK:
            self._hello_ack(tunnel, frame)
        elif frame.type == F.M_OPEN:
            self._open(tunnel, frame)
        else:
            self._under_epoch(tunnel, frame)
            if frame.type == F.MOVE and not (tunnel.hello is not None and tunnel.hello.moves):
                raise Broken("8.20", "MOVE comes to an agent that has not said that it moves")

    def _before(self, tunnel: Tunnel, flow: Flow, frame: Frame) -> None:
        if frame.type == F.M_OPEN_ACK:
            raise Broken("5.M_OPEN_ACK", "M_OPEN_ACK comes, and the agent has opened nothing")

    def _hello_ack(self, tunnel: Tunnel, frame: Frame) -> None:
        hello, before = tunnel.hello, tunnel.granted
        if hello is None:
            raise Broken("5.HELLO_ACK", "HELLO_ACK comes before HELLO")
        try:
            said: HelloAck = HelloAck.unpack(frame.payload)
        except RemoteError as exc:
            raise Broken("4.HELLO_ACK", exc.detail) from None
        if said.version != VERSION:
            raise Broken("4.HELLO_ACK", f"version is {said.version}")
        if tunnel.owns and before is not None:
            if (said.epoch, said.session, said.replica_id) != (before.epoch, before.session, before.replica_id):
                raise Broken("5.HELLO_ACK", "a further HELLO_ACK says another epoch, session or replica_id")
        elif hello.standby:
            if said.epoch:
                raise Broken("4.HELLO_ACK", f"a standby is granted the epoch {said.epoch}")
        else:
            self._granted(tunnel, hello, said.epoch)
        if frame.epoch != tunnel.epoch:
            raise Broken("5.HELLO_ACK", f"its header has epoch {frame.epoch}, and {tunnel.epoch} is granted")
        tunnel.granted = said

    def _granted(self, tunnel: Tunnel, hello: Hello, epoch: int) -> None:
        least = max(hello.last_epoch, self.epochs.get(hello.agent_id, 0))
        if epoch <= least:
            raise Broken("8.1", f"epoch {epoch} is granted, and {least} was said or granted before")
        self.epochs[hello.agent_id] = tunnel.epoch = epoch
        tunnel.owns = True
        for flow in self._flows.values():
            if flow.agent == hello.agent_id and flow.way is not tunnel:
                if flow.opened:
                    flow.leave(tunnel, "8.10")
                else:
                    flow.leave(tunnel, "8.7")

    def _open(self, tunnel: Tunnel, frame: Frame) -> None:
        if not tunnel.owns or tunnel.hello is None or tunnel.granted is None:
            raise Broken("8.16", "M_OPEN on a tunnel that owns nothing")
        self._under_epoch(tunnel, frame)
        if frame.payload.startswith(PACKED) and PACKED_OPEN not in tunnel.hello.known:
            raise Broken("4.M_OPEN", "the packed form comes to an agent that has not said that it reads it")
        try:
            opening = Opening.unpack(frame.payload)
        except RemoteError as exc:
            raise Broken("4.M_OPEN", exc.detail) from None
        if opening.connector not in self.served.get(tunnel, ()):
            raise Broken("5.ANNOUNCE", f"M_OPEN is for {opening.connector}, which the agent has not announced")
        if opening.origin != tunnel.granted.replica_id:
            raise Broken("4.M_OPEN", "origin is not HELLO_ACK's replica_id, and there is no other hub")
        flow = self.clients.get((opening.client[0], opening.client[1]))
        if flow is None:
            raise Broken("4.M_OPEN", f"client is {opening.client[0]}:{opening.client[1]}, and no client has come there")
        if frame.cid != flow.cid:
            flow.open(frame.cid, opening.secret, tunnel.hello.agent_id, tunnel.hello.window)
            self._flows[frame.cid] = flow
        elif opening.secret != flow.secret or flow.opened:
            raise Broken("8.7", f"M_OPEN again {'of what is open' if flow.opened else 'with another secret'}")
        flow.granted = max(flow.granted, frame.limit)
        flow.come(tunnel)
