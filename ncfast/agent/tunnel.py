"""One tunnel at the agent: HELLO, the flows that come through it while it owns, what the hub says."""

from __future__ import annotations

import asyncio
import enum
import hmac
from typing import Protocol, cast

from ncfast._frames import FrameType
from ncfast.agent.ground import Ground
from ncfast.agent.info import AgentInfo
from ncfast.agent.opens import Opens
from ncfast.agent.reasons import words
from ncfast.agent.services import Services
from ncfast.core.epochs import LARGEST
from ncfast.core.errors import LocalError, Reason
from ncfast.core.features import MOVES, MOVES_AGAIN, PACKED_OPEN
from ncfast.core.flow import Flow
from ncfast.core.link import Link
from ncfast.core.messages import SOFTWARE, VERSION, Announce, Hello, HelloAck, Move
from ncfast.net.links import TunnelCarrier
from ncfast.observe import log

_log = log.get("agent")


class TunnelState(enum.Enum):
    """A first HELLO leads to GREETING, or, if it claims, to CLAIMING, and so does the second of a STANDBY. HELLO_ACK
    makes STANDBY and OWNER of both. The link's end leads from anywhere to ENDED."""

    DIALLED = "dialled"  # no HELLO yet
    GREETING = "greeting"  # a HELLO that claims nothing is unanswered
    STANDBY = "standby"  # the hub knows us, owns nothing of ours, and carries no flow
    CLAIMING = "claiming"  # a HELLO that claims is unanswered
    OWNER = "owner"  # the hub has granted an epoch
    ENDED = "ended"


T = TunnelState

AFTER: dict[TunnelState, frozenset[TunnelState]] = {
    T.DIALLED: frozenset({T.GREETING, T.CLAIMING, T.ENDED}),
    T.GREETING: frozenset({T.STANDBY, T.ENDED}),
    T.STANDBY: frozenset({T.CLAIMING, T.ENDED}),
    T.CLAIMING: frozenset({T.OWNER, T.ENDED}),
    T.OWNER: frozenset({T.ENDED}),
    T.ENDED: frozenset(),
}


class Keeper(Protocol):
    """Who decides what a tunnel's news mean for the other one (`ncfast.agent.tunnels`)."""

    last_epoch: int  # the highest ever granted

    def next_claim(self) -> int:
        """The `last_epoch` of the next HELLO that claims."""

    @property
    def alone(self) -> bool:
        """Whether no tunnel of ours carries flows."""

    def granted(self, tunnel: AgentTunnel) -> None: ...
    def standing(self, tunnel: AgentTunnel) -> None: ...
    def told_again(self, tunnel: AgentTunnel) -> None: ...
    def leaving(self, tunnel: AgentTunnel) -> None: ...
    def asked_to_move(self, tunnel: AgentTunnel, replica_id: str) -> None: ...
    def outdated(self, tunnel: AgentTunnel, epoch: int) -> None: ...
    def left(self, tunnel: AgentTunnel, cid: bytes) -> None: ...
    def ended(self, tunnel: AgentTunnel, state: TunnelState, lasted: float, reason: Reason, detail: str) -> None: ...


class AgentTunnel(Opens):
    """Handler of a tunnel's frames at the agent."""

    def __init__(self, ground: Ground, services: Services, keeper: Keeper, url: str) -> None:
        super().__init__(ground, services)
        self._keeper = keeper
        self.url = url
        self.token = ""  # the last that the hub was shown
        self.token_refused_at: float | None = None
        self.state = TunnelState.DIALLED
        self.draining = False  # the hub is leaving
        self.stale = False  # a flow's other end knows of a higher epoch
        self.stood = False  # was a standby
        self.closing = False  # by us, in order
        self.replica_id = ""
        self.session = ""
        self.epoch = 0
        self.heard = False  # the last HELLO was answered
        self.cluster = False  # the hub has others beside it
        # what the hub is configured to, in seconds; None: it does not say
        self.grace: float | None = None
        self.drain: float | None = None
        self._ping_timeout: float | None = None
        self.since = ground.clock()  # of the state
        self._said = 0  # last_epoch of the claim
        self._announced: list[str] = []
        self.refused: list[str] = []  # of these, as the hub has said
        self._timer: asyncio.TimerHandle | None = None

    # HELLO

    def greet(self, timeout: float) -> None:
        """Says HELLO as a standby; the tunnel ends if it is not answered within `timeout` seconds."""
        self._move(TunnelState.GREETING)
        self._hello(min(self._keeper.last_epoch, LARGEST), timeout, standby=True)

    def claim(self, timeout: float) -> None:
        """Says HELLO to own, a standby's second; the tunnel ends if it is not answered within `timeout` seconds."""
        self._move(TunnelState.CLAIMING)
        self._said = self._keeper.next_claim()
        self._hello(self._said, timeout, alone=self._keeper.alone)

    def _hello(self, last_epoch: int, timeout: float, *, standby: bool = False, alone: bool = False) -> None:
        ground = self._ground
        self.heard = False
        self._announced = self._services.served()
        self._timer = ground.net.call_later(timeout, self._late)
        self.link.send(
            FrameType.HELLO,
            Hello(
                version=VERSION,
                agent_id=ground.config.agent_id,
                instance=ground.instance,
                connectors=self._announced,
                last_epoch=last_epoch,
                standby=standby,
                alone=alone,
                features=[PACKED_OPEN, MOVES_AGAIN, *([MOVES] if ground.config.standby else [])],
                window=ground.context.promise,
                software=SOFTWARE,
            ).pack(),
        )

    def _late(self) -> None:
        self.link.fail(Reason.HANDSHAKE_TIMEOUT, "no HELLO_ACK")

    def _move(self, state: TunnelState) -> None:
        """The only place where the tunnel's state changes. Raises LocalError for an edge that the table lacks."""
        if state not in AFTER[self.state]:
            raise LocalError(f"a tunnel in {self.state.name} cannot take {state.name}")
        self.state = state
        self.owns = state is TunnelState.OWNER
        self.since = self._ground.clock()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_frame__hello_ack(self, body: bytes) -> None:
        claiming = self.state is TunnelState.CLAIMING
        self.heard = True
        ack: HelloAck | None = HelloAck.read(body, self.link)
        if ack is None:
            return
        if ack.version != VERSION:
            self.link.fail(Reason.VERSION, f"hub speaks version {ack.version}")
            return
        if self.state is TunnelState.OWNER:
            self._told_again(ack)
            return
        if not claiming and self.state is not TunnelState.GREETING:
            self.link.fail(Reason.PROTOCOL_ERROR, "a HELLO_ACK that nobody asked for")
            return
        if claiming and ack.epoch <= max(self._said, self._keeper.last_epoch):
            self.link.fail(Reason.PROTOCOL_ERROR, "granted epoch is not above the last one")
            return
        if not claiming and ack.epoch:
            self.link.fail(Reason.PROTOCOL_ERROR, "an epoch that was not claimed")
            return
        self.replica_id, self.session, self.cluster = ack.replica_id, ack.session, ack.cluster
        self.grace, self.drain, self._ping_timeout = ack.grace, ack.drain, ack.ping_timeout
        if claiming:
            self.epoch = ack.epoch
            self.link.establish(ack.epoch)
            self._move(TunnelState.OWNER)
            self._keeper.granted(self)
        else:
            self._move(TunnelState.STANDBY)
            self.stood = True
            self._keeper.standing(self)
        self._hear_refused(ack)
        if self.link.closed:  # not of use after all
            return
        self.announce()  # what has changed since HELLO
        if self._ground.stopping.is_set():
            self.goaway()
        self.link.ping()

    def _told_again(self, ack: HelloAck) -> None:
        """Only `cluster` and `refused` may be news."""
        if (ack.replica_id, ack.session, ack.epoch) != (self.replica_id, self.session, self.epoch):
            self.link.fail(Reason.PROTOCOL_ERROR, "a second HELLO_ACK says something else than the first")
            return
        self.cluster = ack.cluster
        self._hear_refused(ack)
        self._keeper.told_again(self)

    def _hear_refused(self, ack: HelloAck) -> None:
        if ack.refused != self.refused:
            self.refused = ack.refused
            if ack.refused:
                _log.warning(
                    "connectors_refused",
                    hub=self.url,
                    connectors=ack.refused,
                    detail="the token does not name them: no client is brought to them; ask for a token that does",
                )

    # what the agent has to say

    @property
    def answered(self) -> bool:
        """Whether the hub takes ANNOUNCE, AUTH and GOAWAY."""
        return self.state is TunnelState.STANDBY or self.state is TunnelState.OWNER

    def announce(self) -> None:
        """Tells the hub what is served from now on, if that is news to it."""
        served = self._services.served()
        if self.answered and served != self._announced:
            self._announced = served
            self.link.send(FrameType.ANNOUNCE, Announce(connectors=served).pack())

    def goaway(self) -> None:
        """Tells the hub to open nothing new here."""
        if self.answered:
            self.link.send(FrameType.GOAWAY, code=Reason.DRAINING)

    def stay(self, replica_id: str) -> None:
        """Tells the hub that we do not get to the one that it has asked us to move to."""
        self.link.send(FrameType.MOVE, Move(replica_id=replica_id).pack())

    def show_token(self, token: str, retry: float) -> None:
        """Shows the hub a token that it has not seen, or one that it refused more than `retry` seconds ago."""
        again = self.token_refused_at is not None and self._ground.clock() - self.token_refused_at >= retry
        if self.answered and (token != self.token or again):
            self.token = token
            self.token_refused_at = None
            self.link.send(FrameType.AUTH, token.encode())

    def carry(self, flow: Flow[AgentInfo]) -> None:
        """Takes over a flow that has no way, or none that leads anywhere. Without an answer its grace ends it."""
        flow.attach(self.link, resumed=False)

    def hold(self) -> None:
        """Looks at nothing that comes until `go_on`."""
        cast(TunnelCarrier, self.link.carrier).hold()

    def go_on(self) -> None:
        cast(TunnelCarrier, self.link.carrier).go_on()

    def refuse(self, cid: bytes, reason: Reason) -> None:
        """Tells the hub that a flow is not opened after all."""
        self.link.refuse(cid, reason)

    def close(self, detail: str) -> None:
        """Ends the tunnel in order."""
        self.closing = True
        self.link.fail(Reason.GOING_AWAY, detail)

    def abandon(self) -> None:
        """Ends what is not needed after all, if the dial has come so far."""
        if self.link is not None:
            self.close("not needed any more")

    # flows

    def _on_frame__resume(self, cid: bytes, epoch: int, secret: bytes, ack: int, limit: int) -> bool:
        flow = self._flow(cid)
        if not self._may() or flow is None or not hmac.compare_digest(secret, flow.secret):
            return False
        if self._left_behind(flow):
            return True
        flow.resume(self.link, ack, limit, True)
        return not flow.closed

    def foreign(self, cid: bytes) -> bool:
        """Whether a flow that we do not have may be asked for in a moment."""
        return False

    def _on_frame__lost(self, cid: bytes, newest: int) -> None:
        if newest:
            self._keeper.outdated(self, newest)
        self._keeper.left(self, cid)

    # the rest

    def _on_frame__goaway(self, reason: Reason) -> None:
        _log.info("hub_draining", hub=self.url, reason=reason.label, timeout_sec=self.drain)
        if not self.draining:
            self.draining = True
            self._keeper.leaving(self)

    def _on_frame__move(self, body: bytes) -> None:
        if self.state is not TunnelState.OWNER:
            self.link.fail(Reason.PROTOCOL_ERROR, "a hub that does not own us would move us")
            return
        move: Move | None = Move.read(body, self.link)
        if move is not None:
            self._keeper.asked_to_move(self, move.replica_id)

    def _on_frame__auth(self, code: int, body: bytes) -> None:
        if code:
            self.token_refused_at = self._ground.clock()
            _log.error("token_refused", hub=self.url, detail=words(body) or None)
        else:
            _log.info("token_refreshed", hub=self.url)

    def _on_frame__hello(self, body: bytes) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "HELLO is the agent's to send")

    def _on_frame__announce(self, body: bytes) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "ANNOUNCE is the agent's to send")

    def tick(self, now: float) -> None:
        """Timers of the tunnel, about twice a second."""
        tunnel = self._ground.config.tunnel
        interval = tunnel.ping_interval_sec
        if self._ping_timeout is not None:
            interval = min(interval, self._ping_timeout / 2)  # one PING may be late, and the hub still hears us
        self.link.tick(now, interval, tunnel.ping_timeout_sec, self._ground.config.flow.stall_sec)

    def link_rtt(self, link: Link, seconds: float) -> None:
        """Nothing to count here; the link keeps it for its flows' windows."""

    def link_ended(self, link: Link, reason: Reason, detail: str) -> None:
        before = self.state
        since = self.since
        self._move(TunnelState.ENDED)
        self._keeper.ended(self, before, self.since - since, reason, detail)

    # what the log says of it

    def tell_up(self) -> None:
        _log.info(
            "tunnel_up",
            hub=self.url,
            agent_id=self._ground.config.agent_id,
            epoch=self.epoch,
            session=self.session,
            replica=self.replica_id,
            flows=len(self._ground.flows),
        )

    def tell_move(self, previous_epoch: int) -> None:
        """It owns in the place of another, which stands."""
        _log.info(
            "moved",
            hub=self.url,
            replica=self.replica_id,
            previous_epoch=previous_epoch,
            epoch=self.epoch,
            flows=len(self._ground.flows),
        )

    def tell_takeover(self, outage_ms: float) -> None:
        """It was a standby, and owns in the place of one that was lost."""
        _log.info(
            "takeover",
            hub=self.url,
            replica=self.replica_id,
            epoch=self.epoch,
            flows=len(self._ground.flows),
            outage_ms=outage_ms,
        )

    def tell_end(self, state: TunnelState, reason: Reason, detail: str) -> None:
        """`state` is the last before ENDED."""
        level = _log.info if self.closing or reason is Reason.GOING_AWAY else _log.warning
        if state is TunnelState.STANDBY or state is TunnelState.GREETING:
            level("standby_down", hub=self.url, replica=self.replica_id, reason=reason.label, detail=detail)
        elif state is not TunnelState.DIALLED:
            level(
                "tunnel_down",
                hub=self.url,
                replica=self.replica_id,
                reason=reason.label,
                detail=detail,
                flows=len(self._ground.flows),
            )
