"""Frames that no honest process would send now: of an owner that was fenced, or of somebody who would like a flow of
others.

They are written to a connection behind what its process has written itself, whole, as if the process had sent them.
None may have any effect on a flow; some must be told of in the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ncfast._frames import FrameType, encode
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.messages import Open
from ncfast.hub.hub import Hub
from ncfast.net.raw import RawCarrier

from .loop import World
from .processes import AgentProcess, HubProcess

TELL_TIME = 15.0  # seconds within which a forgery is found out, whatever holds it up
ARRIVED = 1.0  # seconds after which it has arrived, if nothing does
SECRET = b"not-the-secret-!"


@dataclass(eq=False, slots=True)
class Expected:
    """`event` may be in the log once more; with `must`, it has to be by `until`, if the link still stands then."""

    event: str
    until: float
    link: Any
    what: str
    must: bool


def write(link: Any, frame: bytes, masked: bool) -> None:
    """Sends a frame behind all that the link has sent."""
    carrier = link.carrier
    if not isinstance(carrier, RawCarrier):  # a binary message; a mask of zeros changes nothing
        head = bytes((0x82, (0x80 if masked else 0) | (126 if len(frame) > 125 else len(frame))))
        frame = head + (len(frame).to_bytes(2) if len(frame) > 125 else b"") + (bytes(4) if masked else b"") + frame
    carrier.transport.write(frame)


class Forger:
    """`_KIND(victim)` sends something; False: there was nobody to send it to."""

    def __init__(
        self, world: World, hubs: dict[str, HubProcess], agents: dict[str, AgentProcess], troubled: Callable[[], bool]
    ) -> None:
        self.world = world
        self.troubled = troubled  # whether something may hold frames up
        self.hubs = hubs
        self.agents = agents
        self.expected: list[Expected] = []
        self.lied: set[bytes] = set()  # flows that nobody lies about again
        self.counts: Counter[str] = Counter()

    def __call__(self, kind: str) -> str:
        """The address of the client whose flow it is about, "" if there is none."""
        flows = [
            (process, flow)
            for process in self.hubs.values()
            if process.running and process.hub is not None
            for flow in process.hub.flows.values()
            if flow.attached and not flow.opening
        ]
        if not flows:
            return ""
        process, flow = self.world.rng.choice(flows)
        method: Callable[[Hub, Flow], bool] = getattr(self, f"_{kind}")
        if not method(process.hub, flow):  # type: ignore[arg-type]
            return ""
        self.counts[f"forged {kind}"] += 1
        self.world.note(f"{process.name}: {kind} for {flow.cid.hex()}")
        return str(flow.info.client)

    # who is who

    def _owner(self, hub: Hub, flow: Flow) -> Hub | None:
        """The hub that owns the flow's agent, as far as the flow's hub knows."""
        process = self.hubs.get(flow.info.owner)
        return (
            hub
            if flow.info.owner in ("", hub.ground.replica_id)
            else process.hub
            if process is not None and process.running
            else None
        )

    def _links(self, hub: Hub, flow: Flow) -> list[tuple[Any, bool]]:
        """Both ends of every link on the flow's way: (link, whether its messages are masked). What is written at one
        end arrives at the other."""
        owner = self._owner(hub, flow)
        session = owner.sessions.current(flow.info.agent_key) if owner is not None else None
        links: list[tuple[Any, bool]] = []
        if session is not None:
            links.append((session.link, False))
            links += [
                (tunnel.link, True)
                for process in self.agents.values()
                if process.running and process.agent is not None
                for tunnel in process.agent.tunnels.all()
                if tunnel.session == session.session_id
            ]
        if owner is not None and owner is not hub:
            for one, other in ((owner, hub), (hub, owner)):
                peer = one.ways.peer(other.ground.replica_id)
                if peer is not None:
                    links.append((peer.link, peer.dialled))
        return [(link, masked) for link, masked in links if not link.closed]

    # frames

    def _stale(self, hub: Hub, flow: Flow) -> bool:
        """What an owner, an origin, an agent say under an epoch that is over, on every link of the way: the flow ends,
        its stream ends, or goes on elsewhere."""
        links = self._links(hub, flow)
        if not links or flow.epoch < 2:
            return False
        epoch = flow.epoch - 1
        frames = (
            encode(FrameType.M_RST, epoch=epoch, cid=flow.cid, code=Reason.CLIENT_RESET),
            encode(FrameType.M_FIN, epoch=epoch, cid=flow.cid, seq=flow.rcv_nxt),
            encode(FrameType.M_DETACH, epoch=epoch, cid=flow.cid, code=Reason.LINK_LOST),
            encode(FrameType.M_DATA, epoch=epoch, cid=flow.cid, seq=flow.rcv_nxt, payload=b"of the past"),
        )
        for link, masked in links:
            write(link, self.world.rng.choice(frames), masked)
        return True

    def _thief(self, hub: Hub, flow: Flow) -> bool:
        """An agent asks for the flow of another."""
        owners = [
            (tunnel, process.agent)
            for process in self.agents.values()
            if process.running and process.agent is not None
            for tunnel in process.agent.tunnels.all()
            if tunnel.epoch and flow.cid not in process.agent.flows and not tunnel.link.closed
        ]
        if not owners:
            return False
        tunnel, _ = self.world.rng.choice(owners)
        write(
            tunnel.link,
            encode(
                FrameType.M_RESUME, epoch=tunnel.epoch, cid=flow.cid, ack=flow.snd_nxt, limit=1 << 40, payload=SECRET
            ),
            True,
        )
        # another hub passes it on to the client's if it can
        self._expect(
            "resume_denied",
            tunnel.link,
            f"a thief's M_RESUME for {flow.cid.hex()}",
            tunnel.replica_id == hub.ground.replica_id,
            flow,
        )
        return True

    def _liar(self, hub: Hub, flow: Flow) -> bool:
        """The flow's own agent asks for it with a wrong secret, by its tunnel to the client's hub."""
        if self._owner(hub, flow) is not hub or flow.cid in self.lied:
            return False
        self.lied.add(flow.cid)
        for link, masked in self._links(hub, flow):
            if masked:
                write(
                    link,
                    encode(
                        FrameType.M_RESUME,
                        epoch=flow.epoch,
                        cid=flow.cid,
                        ack=flow.snd_una,
                        limit=1 << 40,
                        payload=SECRET,
                    ),
                    True,
                )
                self._expect("resume_denied", link, f"an M_RESUME with a wrong secret for {flow.cid.hex()}", True, flow)
                return True
        return False

    def _trespass(self, hub: Hub, flow: Flow) -> bool:
        """A hub opens a connector that the agent's token does not cover."""
        return self._open(hub, flow, "vault", flow.epoch, "scope_denied")

    def _belated(self, hub: Hub, flow: Flow) -> bool:
        """A hub opens a flow under an epoch that is over."""
        return self._open(hub, flow, flow.info.request.connector, flow.epoch - 1, "")

    def _open(self, hub: Hub, flow: Flow, connector: str, epoch: int, event: str) -> bool:
        owner = self._owner(hub, flow)
        peer = hub.ways.peer(owner.ground.replica_id) if owner is not None and owner is not hub else None
        if peer is None or peer.link.closed or epoch < 1:
            return False
        tenant, _, agent = flow.info.agent_key.partition("/")
        body = Open(
            connector=connector,
            listener="forged",
            secret=SECRET.hex(),
            origin=hub.ground.replica_id,
            client=("10.9.9.9", 9, "10.9.9.9", 9),
            agent=agent,
            tenant=tenant or None,
        )
        cid = hub.ground.instance + self.world.rng.getrandbits(63).to_bytes(8)
        write(
            peer.link, encode(FrameType.M_OPEN, epoch=epoch, cid=cid, limit=1 << 20, payload=body.pack()), peer.dialled
        )
        if event:
            self._expect(event, peer.link, f"an M_OPEN for {connector}")
        return True

    # finding out

    def _expect(self, event: str, link: Any, what: str, must: bool = True, flow: Flow | None = None) -> None:
        expected = Expected(event, self.world.now + TELL_TIME, link, what, must)
        self.expected.append(expected)
        self.world.after(ARRIVED, self._arrived, expected, flow)

    def _arrived(self, expected: Expected, flow: Flow | None) -> None:
        """If the flow is over by now, or something holds the frame up, nobody may have looked at it."""
        if (flow is not None and flow.closed) or self.troubled():
            expected.must = False

    def on_log(self, event: str) -> bool:
        """Whether a line that would else be a problem is owed to a forgery."""
        for one in self.expected:
            if one.event == event:
                self.expected.remove(one)
                return True
        return False

    def look(self) -> None:
        """Tells of forgeries that were not found out in time."""
        for one in [one for one in self.expected if one.until <= self.world.now]:
            self.expected.remove(one)
            if one.must and not one.link.closed:
                self.world.problem(f"{one.what} was not found out: no {one.event}")
