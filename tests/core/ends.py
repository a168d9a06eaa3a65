"""Both ends of tunnels in one thread: real flows, links, carriers and socket ends; hub and agent reduced to what they
decide.

`Hub` and `Agent` follow ncfast/hub/hub.py, session.py and agent.py in attaching, resuming and closing flows.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from websockets.protocol import Protocol, Side

from core.virtual import Socket, Time, Turns, Wire
from ncfast._frames import FrameType
from ncfast.core.context import FlowContext
from ncfast.core.errors import Reason
from ncfast.core.flow import Flow
from ncfast.core.handover import export, restore
from ncfast.core.link import Link
from ncfast.core.record import FlowRecord
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.raw import RawCarrier
from ncfast.net.socket import SocketEnd
from ncfast.net.websocket import WebSocketCarrier

KIB = 1024
FULL_READ = 65_024  # bytes that a flow reads at once when no other waits (core/ends.pxd)
TIMEOUTS = SimpleNamespace(open=10.0, grace=30.0, half_close=300.0, stall=30.0, idle=0.0, first_byte=0.0)
RESUME_TIME = 5.0
_NOISE = random.Random(389).randbytes(65521)  # a prime length: no shift by a power of two goes unseen


def stream(seed: int, start: int, count: int) -> bytes:
    """Bytes `start` to `start + count` of an endless stream of its own for each seed."""
    at = (seed * 7919 + start) % len(_NOISE)
    return (_NOISE * ((at + count) // len(_NOISE) + 1))[at : at + count]


LOST = {Reason.CLIENT_RESET: Reason.CLIENT_LOST, Reason.TARGET_RESET: Reason.TARGET_LOST}


class End:
    """One process."""

    def __init__(
        self,
        time: Time,
        *,
        client: bool,
        window: int = 64 * KIB,
        window_max: int = 512 * KIB,
        budget: int = 1 << 30,
        max_inflight: int = 8 << 20,
        kernel: int = 64 * KIB,
        queue_depth: int = 1000,
    ) -> None:
        self.turns = Turns(time)
        self.client = client
        self._again = {
            "window": window,
            "window_max": window_max,
            "max_inflight": max_inflight,
            "kernel": kernel,
            "queue_depth": queue_depth,
        }
        self.context = FlowContext(time, budget=budget, window_initial=window, window_max=window_max)
        self.context.owner = self
        self.shares = [self.context.share, self.context.budget.share(2)]  # flows take them in turns
        self.max_inflight = max_inflight
        self.queue_depth = queue_depth
        self.kernel = kernel
        self.buffer = ReceiveBuffer()
        self.flows = self.context.flows
        self.sockets: dict[bytes, Socket] = {}
        self.reasons: dict[bytes, list[Reason]] = {}  # how each flow ended; never more than one
        self.gone = 0  # sockets that are closed

    def link(
        self,
        handler: Any,
        *,
        raw: bool = False,
        client: bool | None = None,
        max_message: int = 1 << 20,
        between_hubs: bool = False,
    ) -> tuple[Link, Wire]:
        """A link on WebSocket messages, in the role of `client` if that is not the end's own, or on the bare stream."""
        wire = Wire(self.turns, self.kernel)
        masks = self.client if client is None else client
        if raw:
            carrier: RawCarrier | WebSocketCarrier = RawCarrier(wire, self.turns.call_later, self.buffer)
        else:
            carrier = WebSocketCarrier(
                Protocol(Side.CLIENT if masks else Side.SERVER),
                wire,
                self.turns.call_later,
                self.buffer,
                client=masks,
                max_message=max_message,
                entropy=random.Random(4).randbytes,
            )
        wire.protocol = carrier
        link = Link(
            handler,
            carrier,
            self.context,
            self.turns.call_soon,
            self.turns.call_later,
            max_inflight=self.max_inflight,
            queue_depth=self.queue_depth,
            between_hubs=between_hubs,
        )
        carrier.start(link)
        return link, wire

    def socket(self, flow: Flow, code: Reason) -> Socket:
        """Puts the flow on a new connection."""
        transport = Socket(self.turns)
        end = SocketEnd(self.context, self, self.turns.call_later, code, LOST[code])
        transport.protocol = end
        self.sockets[flow.cid] = transport
        end.connection_made(transport)
        end.carry(flow)
        return transport

    def succeed(self, before: End) -> None:
        """Takes over from a process that ends: its flows and their sockets, by their records. What is over there, and
        only lingers, stays there. Both have one loop."""
        self.turns, self.reasons = before.turns, before.reasons
        self.context.budget.resize(before.context.budget.size)
        self.context.closed.take(before.context.closed.pack())
        while any(transport.lost and transport.protocol.flow for transport in before.sockets.values()):
            before.turns.run()  # an end that is on its way to its flow
        for cid, flow in list(before.flows.items()):
            transport = before.sockets.get(cid)
            old = None if transport is None else transport.protocol
            state = None if old is None else old.detach()
            share = self.shares[before.shares.index(flow.share)]
            record = export(flow)
            assert flow.closed and not flow.attached and cid not in before.flows
            flow = restore(self.context, FlowRecord.read(record.pack()), self, share)
            assert not flow.attached
            if state is not None:
                code = Reason.TARGET_RESET if self.client else Reason.CLIENT_RESET
                end = SocketEnd(self.context, self, self.turns.call_later, code, LOST[code])
                end.inherit(flow, state)
                self.sockets[cid] = before.sockets.pop(cid)
                state.sock.adopt(end)

    def socket_ready(self, end: SocketEnd) -> None:
        pass

    def socket_gone(self, end: SocketEnd) -> None:
        self.gone += 1

    def flow_opened(self, flow: Flow) -> None:
        pass

    def flow_resumed(self, flow: Flow) -> None:
        pass

    def flow_refused(self, flow: Flow, reason: Reason) -> bool:
        return False

    def flow_closed(self, flow: Flow, reason: Reason) -> None:
        self.reasons.setdefault(flow.cid, []).append(reason)
        self.flows.pop(flow.cid, None)

    def check(self, now: float) -> None:
        """The flows' timers."""
        for flow in self.context.due(now):
            reason = flow.check(now, TIMEOUTS)
            if reason is Reason.STALLED:
                if flow.attached:
                    flow.path.fail(reason)
            elif reason is not None and (reason is not Reason.OPEN_TIMEOUT or not self.client):
                flow.reset(reason)


class Session:
    """The hub's side of a tunnel."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.link, self.wire = hub.link(self)
        self.up = False
        self.up_since = 0.0
        self.ended: list[tuple[Reason, str]] = []
        self.rtts: list[float] = []
        self.seen: list[tuple[Any, ...]] = []

    def _on_frame__hello(self, body: bytes) -> None:
        self.hub.epoch = max(self.hub.epoch, int.from_bytes(body[:8], "big")) + 1
        self.link.peer_window = int.from_bytes(body[8:], "big")
        self.link.establish(self.hub.epoch)
        self.up = True
        self.up_since = self.hub.context.clock()
        self.link.send(FrameType.HELLO_ACK, self.hub.epoch.to_bytes(8, "big"))
        self.hub.agent_up(self)

    def _on_frame__resume(self, cid: bytes, epoch: int, secret: bytes, ack: int, limit: int) -> bool:
        flow = self.hub.flows.get(cid)
        if flow is None:
            return False
        if secret != flow.secret:
            self.link.refuse(cid, Reason.RESUME_DENIED)
            return True
        flow.resume(self.link, ack, limit, True)
        return True

    def foreign(self, cid: bytes) -> bool:
        return False

    def _on_frame__lost(self, cid: bytes, newest: int) -> None:
        self.seen.append(("lost", cid, newest))

    def _on_frame__goaway(self, reason: Reason) -> None:
        self.seen.append(("goaway", reason))

    def _on_frame__auth(self, code: int, body: bytes) -> None:
        self.seen.append(("auth", code, body))

    def _on_frame__announce(self, body: bytes) -> None:
        self.seen.append(("announce", body))

    def _on_frame__move(self, body: bytes) -> None:
        self.seen.append(("move", body))

    def link_rtt(self, link: Link, seconds: float) -> None:
        self.rtts.append(seconds)

    def link_ended(self, link: Link, reason: Reason, detail: str) -> None:
        self.ended.append((reason, detail))
        self.up = False


class Hub(End):
    """Clients come in here."""

    def __init__(self, time: Time, **options: Any) -> None:
        super().__init__(time, client=False, **options)
        self.epoch = 0
        self.sessions: list[Session] = []
        self._number = 0

    def successor(self) -> Hub:
        hub = Hub(self.context.clock, **self._again)
        hub.succeed(self)
        hub.epoch, hub._number = self.epoch, self._number
        return hub

    def session(self) -> Session:
        session = Session(self)
        self.sessions.append(session)
        return session

    def connect(self) -> Flow:
        """A client has come."""
        self._number += 1
        cid = b"hub-boot" + self._number.to_bytes(8, "big")
        flow = Flow(
            self.context,
            cid,
            bytes(15) + bytes([self._number & 255]),
            b"open",
            self,
            share=self.shares[self._number % 2],
        )
        self.flows[cid] = flow
        self.socket(flow, Reason.CLIENT_RESET)
        self._dispatch(flow)
        return flow

    def _dispatch(self, flow: Flow, but: Link | None = None) -> bool:
        for session in self.sessions:
            if session.up and session.link is not but:
                flow.attach(session.link, resumed=True)
                return True
        return False

    def agent_up(self, session: Session) -> None:
        for flow in list(self.flows.values()):
            if not flow.attached and flow.opening:
                flow.attach(session.link, resumed=True)

    def check(self, now: float) -> None:
        super().check(now)
        for flow in list(self.flows.values()):
            for session in self.sessions:  # the agent is back and has not asked for the flow: it has it no longer
                if session.up and not flow.attached and not flow.opening and now - session.up_since >= RESUME_TIME:
                    flow.reset(Reason.LINK_LOST)

    def flow_resumed(self, flow: Flow) -> None:
        pass

    def flow_refused(self, flow: Flow, reason: Reason) -> bool:
        refused_by = flow.path
        flow.reopen()
        return self._dispatch(flow, refused_by)


class Agent(End):
    """Targets are reached from here; a flow waits in `dials` until the test connects or refuses it."""

    def __init__(self, time: Time, **options: Any) -> None:
        super().__init__(time, client=True, **options)
        self.epoch = 0
        self.up = False
        self.path: Link = None
        self.wire: Wire = None
        self.dials: list[Flow] = []
        self.ended: list[Reason] = []

    def successor(self) -> Agent:
        agent = Agent(self.context.clock, **self._again)
        agent.succeed(self)
        agent.epoch = self.epoch
        agent.dials = [agent.flows[flow.cid] for flow in self.dials if flow.cid in agent.flows]
        return agent

    def dial(self) -> None:
        """Begins a tunnel."""
        self.path, self.wire = self.link(self)
        self.path.send(FrameType.HELLO, self.epoch.to_bytes(8, "big") + self.context.promise.to_bytes(8, "big"))

    def accept(self, flow: Flow) -> None:
        """The target has accepted."""
        if not flow.closed:
            self.socket(flow, Reason.TARGET_RESET)
            flow.accept()

    def _on_frame__hello_ack(self, body: bytes) -> None:
        self.epoch = int.from_bytes(body, "big")
        self.path.establish(self.epoch)
        self.up = True
        for flow in list(self.flows.values()):
            flow.attach(self.path, resumed=False)

    def _on_frame__open(self, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        if cid in self.flows:
            return
        if self.context.closed.last(cid) is not None:
            self.path.refuse(cid, Reason.LINK_LOST)
            return
        flow = Flow(self.context, cid, bytes(15) + cid[-1:], None, self, limit, self.shares[cid[-1] % 2])
        self.flows[cid] = flow
        flow.attach(self.path, resumed=True)
        self.dials.append(flow)

    def _on_frame__resume(self, cid: bytes, epoch: int, secret: bytes, ack: int, limit: int) -> bool:
        flow = self.flows.get(cid)
        if flow is None or flow.secret != secret:
            return False
        flow.resume(self.path, ack, limit, True)
        return True

    def foreign(self, cid: bytes) -> bool:
        return False

    def link_rtt(self, link: Link, seconds: float) -> None:
        pass

    def link_ended(self, link: Link, reason: Reason, detail: str) -> None:
        self.ended.append(reason)
        self.up = False


class Cable:
    """Two carriers, and what is on its way between them."""

    def __init__(self, near: Wire, far: Wire) -> None:
        self.near, self.far = near, far

    def carry(self, up: bool, count: int, cut: int = 1 << 30) -> bool:
        """Up to `count` bytes arrive, in pieces of at most `cut`; `up` is from far to near. Whether anything did."""
        source, sink = (self.far, self.near) if up else (self.near, self.far)
        data = source.take(count)
        at = 0
        while at < len(data) and not sink.lost:
            view = sink.protocol.get_buffer(-1)
            piece = data[at : at + min(cut, len(view))]
            view[: len(piece)] = piece
            sink.protocol.buffer_updated(len(piece))
            view[: len(piece)] = bytes(len(piece))  # spent: whoever still looks there must not find it
            at += len(piece)
        if source.lost and not source.pieces and not sink.lost:
            sink.protocol.eof_received()
            sink.close()
            return True
        return bool(data)

    def cut(self) -> None:
        """The path between breaks: what is on its way is lost."""
        for wire in (self.near, self.far):
            wire.lose()
            wire._lose(ConnectionResetError())


class Tunnel(Cable):
    """A hub's and an agent's carrier, and what is on its way between them."""

    def __init__(self, hub: Hub, agent: Agent) -> None:
        self.hub, self.agent = hub, agent
        self.session = hub.session()
        agent.dial()
        super().__init__(self.session.wire, agent.wire)

    def settle(self, limit: int = 10_000) -> None:
        """Carries everything, and runs the turns of both loops, until nothing moves."""
        for _ in range(limit):
            moved = self.carry(True, 1 << 40)
            moved = self.carry(False, 1 << 40) or moved
            moved = self.hub.turns.run() or moved
            moved = self.agent.turns.run() or moved
            if not moved:
                return
        raise AssertionError("never comes to rest")


class Pair:
    """A hub and an agent with one open flow: `near` and `far`, with `client` and `target` outside."""

    def __init__(self, **options: Any) -> None:
        self.time = Time()
        self.hub, self.agent = Hub(self.time, **options), Agent(self.time, **options)
        self.tunnel = Tunnel(self.hub, self.agent)
        self.tunnel.settle()
        self.near = self.hub.connect()
        self.tunnel.settle()
        self.far = self.agent.dials.pop()
        self.agent.accept(self.far)
        self.tunnel.settle()
        self.client, self.target = self.hub.sockets[self.near.cid], self.agent.sockets[self.near.cid]

    def rest(self, seconds: float = 0.1) -> None:
        self.tunnel.settle()
        self.time.now += seconds
        self.tunnel.settle()

    def reconnect(self) -> None:
        self.tunnel.cut()
        self.rest(0)
        self.tunnel = Tunnel(self.hub, self.agent)
        self.rest()
