"""Frames that no honest process would send now: of an owner that was fenced, or of somebody who would like a flow of
others.

They are written to a connection behind what its process has written itself, whole, as if the process had sent them.
None may have any effect on a flow; some must be told of in the log, by the hub that reads them, when it reads them. A
line of the log belongs to a forgery if event, process, agent and cid are those of the forged frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ncfast._frames import FrameType, encode
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.opening import Opening
from ncfast.hub.hub import Hub
from ncfast.hub.session import AgentSession
from ncfast.net.raw import RawCarrier

from .kernel import Pipe
from .loop import World
from .processes import AgentProcess, HubProcess

SECRET = b"not-the-secret-!"


@dataclass(eq=False, slots=True)
class Expected:
    """A line that a hub owes to a forged frame. Without a `judge` it may be there, once; with one, it has to be.

    A frame can be told for what it is only by a hub that has the flow, and the link, when it reads it: `judge()` says
    so, just before the frame is read and just after.
    """

    event: str
    process: str
    agent: str
    cid: str
    judge: Callable[[], bool] | None
    due: bool = False  # the frame has been read by who can tell

    def __str__(self) -> str:
        return f"a forged frame for {self.cid} by {self.agent} at {self.process}"


def write(link: Any, frame: bytes, masked: bool) -> tuple[Pipe, int]:
    """Sends a frame behind all that the link has sent. Returns where it goes, and how many bytes have been read there
    when it was."""
    carrier = link.carrier
    if not isinstance(carrier, RawCarrier):  # a binary message; a mask of zeros changes nothing
        head = bytes((0x82, (0x80 if masked else 0) | (126 if len(frame) > 125 else len(frame))))
        frame = head + (len(frame).to_bytes(2) if len(frame) > 125 else b"") + (bytes(4) if masked else b"") + frame
    transport = carrier.transport
    transport.write(frame)
    pipe: Pipe = transport.get_extra_info("socket").sock.out
    return pipe, pipe.total + transport.get_write_buffer_size()


def serves(session: AgentSession, epoch: int) -> bool:
    """Whether frames of its agent under this epoch are looked at."""
    return session.owns and session.epoch == epoch and not session.link.closed


class Forger:
    """`_KIND(victim)` sends something; False: there was nobody to send it to."""

    def __init__(self, world: World, hubs: dict[str, HubProcess], agents: dict[str, AgentProcess]) -> None:
        self.world = world
        self.hubs = hubs
        self.agents = agents
        self.expected: list[Expected] = []
        self.lied: set[bytes] = set()  # flows that nobody lies about again, and that may end by it
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

    def _name(self, hub: Hub) -> str:
        return next(process.name for process in self.hubs.values() if process.hub is hub)

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
        """An agent asks for the flow of another, by its tunnel to any hub."""
        thieves = [
            (tunnel, session)
            for process in self.agents.values()
            if process.running and process.agent is not None
            for tunnel in process.agent.tunnels.all()
            if tunnel.epoch and not tunnel.link.closed
            for session in self._sessions(tunnel.session)
            if session.key != flow.info.agent_key
        ]
        if not thieves:
            return False
        tunnel, session = self.world.rng.choice(thieves)
        where = self._resume(tunnel.link, flow, tunnel.epoch)
        # another hub passes it on to the client's if it can
        here = session in list(hub.sessions)
        self._expect(
            where,
            Expected(
                "resume_denied",
                self._name(hub),
                session.agent_id,
                flow.cid.hex(),
                (lambda: not flow.closed and serves(session, tunnel.epoch)) if here else None,
            ),
        )
        return True

    def _liar(self, hub: Hub, flow: Flow) -> bool:
        """The flow's own agent asks for it with a wrong secret, by its tunnel to the client's hub."""
        if self._owner(hub, flow) is not hub or flow.cid in self.lied:
            return False
        session = hub.sessions.current(flow.info.agent_key)
        for link, masked in self._links(hub, flow) if session is not None else ():
            if masked:
                self.lied.add(flow.cid)
                epoch = flow.epoch
                self._expect(
                    self._resume(link, flow, epoch),
                    Expected(
                        "resume_denied",
                        self._name(hub),
                        session.agent_id,
                        flow.cid.hex(),
                        lambda: not flow.closed and serves(session, epoch),
                    ),
                )
                return True
        return False

    def _resume(self, link: Any, flow: Flow, epoch: int) -> tuple[Pipe, int]:
        return write(
            link,
            encode(FrameType.M_RESUME, epoch=epoch, cid=flow.cid, ack=flow.snd_una, limit=1 << 40, payload=SECRET),
            True,
        )

    def _trespass(self, hub: Hub, flow: Flow) -> bool:
        """A hub opens a connector that the agent's token does not cover."""
        return self._open(hub, flow, "vault", flow.epoch, "scope_denied")

    def _belated(self, hub: Hub, flow: Flow) -> bool:
        """A hub opens a flow under an epoch that is over."""
        return self._open(hub, flow, flow.info.connector, flow.epoch - 1, "")

    def _open(self, hub: Hub, flow: Flow, connector: str, epoch: int, event: str) -> bool:
        owner = self._owner(hub, flow)
        peer = hub.ways.peer(owner.ground.replica_id) if owner is not None and owner is not hub else None
        if owner is None or peer is None or peer.link.closed or epoch < 1:
            return False
        key = flow.info.agent_key
        tenant, _, agent = key.partition("/")
        body = Opening(
            connector=connector,
            listener="forged",
            secret=SECRET,
            origin=hub.ground.replica_id,
            client=("10.9.9.9", 9, "10.9.9.9", 9),
            agent=agent,
            tenant=tenant,
        )
        cid = hub.ground.instance + self.world.rng.getrandbits(63).to_bytes(8)
        where = write(
            peer.link, encode(FrameType.M_OPEN, epoch=epoch, cid=cid, limit=1 << 20, payload=body.pack()), peer.dialled
        )
        if event:

            def judge() -> bool:
                session, ground = owner.sessions.current(key), owner.ground
                leaves = ground.readiness.draining or ground.mode == "off"  # then it owns nothing, for anybody
                return session is not None and serves(session, epoch) and not leaves

            self._expect(where, Expected(event, self._name(owner), agent, cid.hex(), judge))
        return True

    def _sessions(self, number: str) -> list[AgentSession]:
        """The hub's end of the tunnel whose session this is."""
        return [
            session
            for process in self.hubs.values()
            if process.running and process.hub is not None
            for session in process.hub.sessions
            if session.session_id == number
        ]

    # finding out

    def _expect(self, where: tuple[Pipe, int], expected: Expected) -> None:
        """When the frame has been read, and its reader has seen to it, the line must be there."""
        self.expected.append(expected)
        pipe, position = where
        judge = expected.judge
        if judge is None:
            return
        links = self._reader(pipe)

        def read() -> None:
            if links and not links[0].closed and judge():
                expected.due = True
                self.world.after(0.0, seen)  # a reader's turn is one event of the world

        def seen() -> None:
            if expected in self.expected and not links[0].closed and judge():
                self.world.problem(f"{expected} was not found out: no {expected.event}")

        pipe.when_read(position, read)

    def _reader(self, pipe: Pipe) -> list[Any]:
        """The link at whose end the pipe's bytes are read."""
        return [
            link
            for process in self.hubs.values()
            if process.running and process.hub is not None
            for link in (
                *(session.link for session in process.hub.sessions),
                *(peer.link for peer in process.hub.ways.peers()),
            )
            if link.carrier.transport.get_extra_info("socket").sock is pipe.target
        ]

    def on_log(self, process: str, event: str, fields: dict[str, Any]) -> bool:
        """Whether a line that would else be a problem is owed to a forgery."""
        line = (event, process, fields.get("agent_id"), fields.get("cid"))
        owed = [one for one in self.expected if (one.event, one.process, one.agent, one.cid) == line]
        if owed:  # rather to a frame that has been read than to an earlier one that was lost with its link
            self.expected.remove(next((one for one in owed if one.due), owed[0]))
        return bool(owed)

    def lied_about(self, cid: str) -> bool:
        """Whether the flow may end since its own agent has lied."""
        return bytes.fromhex(cid) in self.lied
