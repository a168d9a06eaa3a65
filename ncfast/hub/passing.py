"""What of a client passes from one process of a hub to the next: taken off here, put together there.

    a flow                          its record (`ncfast.core.record`), its `ClientInfo`, its socket
    a client that has no flow yet   how far it has come (`ncfast.hub.listener`), its socket

A `Parcel` is all there is of the client until somebody has put it together again: the process that it was meant for,
or, if that died before it said that it has the parcel, the one that made it. Times are CLOCK_MONOTONIC, one for both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from ncfast.config.hub import Listener
from ncfast.core.handover import export, restore
from ncfast.core.record import FlowRecord
from ncfast.core.timeouts import Timeouts
from ncfast.hub.client import ClientFlow, ClientInfo
from ncfast.hub.cluster import Cluster
from ncfast.hub.edge import Edge
from ncfast.hub.ground import Ground
from ncfast.hub.listener import ClientListener, FirstByte, ProxyHeader
from ncfast.hub.routing import Router
from ncfast.hub.sessions import Sessions
from ncfast.hub.steering import Steering
from ncfast.net.parcel import Head, Parcel
from ncfast.net.seam import Net
from ncfast.net.socket import SocketEnd, SocketState
from ncfast.registry import DistributedRegistry

LISTENERS = 1024  # settings with which clients have come, kept as they are written


@lru_cache(LISTENERS)
def _listener(text: str) -> Listener:
    return Listener.model_validate_json(text)


class Handed(Protocol):
    """A hub, as both sides of a hand-over need it."""

    ground: Ground
    net: Net
    registry: DistributedRegistry
    sessions: Sessions
    steering: Steering
    router: Router
    cluster: Cluster
    edge: Edge
    listeners: dict[str, ClientListener]
    passing: Passing

    def hold_doors(self) -> None:
        """Agents, other hubs and operators wait."""

    def open_doors(self) -> None:
        """After that."""

    async def join_mesh(self) -> None:
        """The predecessor has left it."""


class Passing:
    """Takes clients off their sockets, and puts them under sockets again."""

    def __init__(
        self,
        ground: Ground,
        steering: Steering,
        listeners: dict[str, ClientListener],
        make_listener: Callable[[Listener], ClientListener],
        returns: Callable[[ClientFlow], None],
    ) -> None:
        """`returns` gets each flow that is under its socket again, without a way."""
        self._ground = ground
        self._steering = steering
        self._listeners = listeners
        self._make_listener = make_listener
        self._returns = returns
        self._former: dict[str, ClientListener] = {}  # of listeners that the configuration has no longer
        self._written: dict[int, tuple[Listener, str]] = {}  # settings, by identity

    # off

    def flow(self, flow: ClientFlow) -> Parcel | None:
        """Takes off a flow that has no way. It is nobody's here from now on, and not counted as closed. None if its
        connection is over, which ends it here in a moment."""
        info, end = flow.info, flow.sink
        state = None
        if isinstance(end, SocketEnd) and (state := end.detach()) is None:
            return None
        head = self._head_of(info, flow.detached_at if flow.detached_at >= 0 else self._ground.clock())
        self._steering.passes(flow)
        record = export(flow)
        self._ground.stats.flows_passed += 1
        info.counts.passed(record.acknowledged, record.rcv_nxt)
        if state is None:
            return Parcel(head, record.pack(), b"", None)
        if info.place is not None:
            info.place.leave()
        head["eof"] = [state.eof_in, state.eof_out]
        return Parcel(head, record.pack(), state.unsent, state.sock)

    def client(self, one: ProxyHeader | FirstByte) -> Parcel | None:
        """Takes off a client that has no flow yet. None if it is gone."""
        given = one.detach()
        if given is None:
            return None
        head, sock = given
        head["settings"] = self._text(head.pop("listener"))
        return Parcel(head, b"", b"", sock)

    def _text(self, listener: Listener) -> str:
        known = self._written.get(id(listener))
        if known is None:
            known = self._written[id(listener)] = listener, listener.model_dump_json()
        return known[1]

    def _head_of(self, info: ClientInfo, lost_at: float) -> Head:
        times = info.timeouts
        return {
            "kind": "flow",
            "settings": self._text(info.listener),
            "timeouts": [times.open, times.grace, times.half_close, times.stall, times.idle, times.first_byte],
            "ends": info.ends,
            "accepted_at": info.accepted_at,
            "agent": info.agent_key,
            "instance": info.instance,
            "owner": info.owner,
            "remote": info.remote,
            "epoch": info.epoch,
            "sends": info.sends,
            "hold_until": info.hold_until,
            "resumes": info.resumes,
            "handovers": info.handovers,
            "lost_at": lost_at,
            "tried": list(info.tried),
            "refusals": info.refusals,
            "refused": list(info.refused),
        }

    # on

    def put(self, parcel: Parcel, *, passed: bool) -> None:
        """Puts a client under its socket again, and lets it go on; `passed`: it was another process's. Raises
        ValueError, KeyError or TypeError for what is no client; its socket is closed then."""
        head = parcel.head
        try:
            listener = self._listener_of(_listener(head["settings"]))
            if head["kind"] == "flow":
                self._put_flow(parcel, listener, passed)
            else:
                assert parcel.sock is not None
                listener.put(head, parcel.sock)
        except BaseException:
            parcel.close()
            raise

    def _listener_of(self, settings: Listener) -> ClientListener:
        """The one by which such a client comes in, or one that is not open for what has come before."""
        listener = self._listeners.get(settings.name) or self._former.get(settings.name)
        if listener is None:
            listener = self._former[settings.name] = self._make_listener(settings)
            listener.share.weigh(0)
        return listener

    def _put_flow(self, parcel: Parcel, listener: ClientListener, passed: bool) -> None:
        head, ground = parcel.head, self._ground
        record = FlowRecord.read(parcel.record)
        host, port, own_host, own_port = head["ends"]
        settings, timeouts = _listener(head["settings"]), Timeouts(*head["timeouts"])
        info = ClientInfo(settings, timeouts, host, port, head["accepted_at"], listener.counts, listener.share)
        info.ends = (host, port, own_host, own_port)
        info.agent_key = head["agent"]
        info.instance = head["instance"]
        info.owner = head["owner"]
        info.remote = head["remote"]
        info.epoch = head["epoch"]
        info.sends = head["sends"]
        info.hold_until = head["hold_until"]
        info.resumes = head["resumes"]
        info.handovers = head["handovers"] + passed
        info.lost_at = head["lost_at"] if passed else -1.0
        info.tried = frozenset(head["tried"])
        info.refusals = head["refusals"]
        info.refused = frozenset((agent, epoch) for agent, epoch in head["refused"])
        flow: ClientFlow = restore(ground.context, record, info, listener.share)
        listener.counts.passed(-record.acknowledged, -record.rcv_nxt)
        if passed:
            ground.stats.flows_opened += 1
        else:
            ground.stats.flows_passed -= 1
        if parcel.sock is not None:
            state = SocketState(parcel.sock, parcel.unsent, *head["eof"])
            listener.adopt(state, flow)
        if not flow.closed:
            self._returns(flow)
