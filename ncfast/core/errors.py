"""Every way a flow, link or handshake can end: one table from which wire codes, logs and metric labels come.

A `Reason` is sent as the 16-bit `code` of M_RST and GOAWAY frames. Its name, in lower case, is the metric label and the
log field; error text is never protocol. Codes are pinned by a test: they may be added to, never renumbered.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Blame(enum.Enum):
    """Who is at fault when a link ends, in the protocol page's words.

    A hub warns of an agent's link if the peer is: agents come and go, and that is no news. Between hubs every end is an
    error, counted and warned of, unless nobody is at fault.
    """

    NOBODY = "nobody"
    REMOTE = "the peer"
    ENVIRONMENT = "the network"
    LOCAL = "a defect of ours"


class Reason(enum.IntEnum):
    """Why something ended. 1-63 flows, 64-127 links."""

    NONE = 0
    # flows
    CLOSED = 1  # both directions finished and acknowledged
    CLIENT_RESET = 2  # the client's socket was reset
    TARGET_RESET = 3  # the target's socket was reset
    TARGET_REFUSED = 4  # the target refused the connection
    TARGET_UNREACHABLE = 5  # no route, name not found, or other dial failure
    TARGET_TIMEOUT = 6  # the dial took longer than dial_timeout_sec
    NO_SUCH_CONNECTOR = 7  # the agent does not serve that connector (any longer)
    SCOPE_DENIED = 8  # the agent's token does not cover that connector
    NO_AGENT = 9  # no agent serves the connector
    LINK_LOST = 10  # the flow had no link for flow_grace_sec, or the far end came back without it
    AGENT_RESTARTED = 11  # the agent came back as another process: its target sockets are gone
    UNKNOWN_FLOW = 12  # a frame for a flow the receiver does not have
    FLOW_CONTROL = 13  # the peer sent past its window
    OPEN_TIMEOUT = 14  # no M_OPEN_ACK within open_timeout_sec
    IDLE_TIMEOUT = 15  # no byte in either direction for idle_timeout_sec
    HALF_CLOSE_TIMEOUT = 16  # whoever was told the other side's end took all and said nothing for half_close_sec
    FIRST_BYTE_TIMEOUT = 17  # the client sent nothing within first_byte_timeout_sec
    DRAINING = 18  # the hub or agent went away and the drain limit passed
    OVERLOADED = 19  # a cap on flows, dials or memory was reached
    HOLD_TIMEOUT = 20  # held for a reconnecting agent, which did not come in time
    RESUME_DENIED = 21  # wrong secret or wrong agent on resume
    NOT_OWNER = 22  # the hub that was asked does not hold the agent (any longer)
    ORIGIN_LOST = 23  # the hub that held the client's socket is gone
    STALE_EPOCH = 24  # sent under an epoch that is over
    INTERNAL = 25  # a defect of ours
    CLIENT_LOST = 26  # the client's machine no longer answers: its connection timed out
    TARGET_LOST = 27  # the target's machine no longer answers: its connection timed out
    READER_PAUSED = 28  # bytes waited for a client or target that took none for reader_pause_sec
    AGENT_LOCKED = 29  # the agent is locked out; its tunnels end with it too
    KILLED = 30  # an operator has ended it
    # links
    PROTOCOL_ERROR = 64  # malformed frame
    MESSAGE_TOO_BIG = 65  # WebSocket message or frame over its bound
    KEEPALIVE_TIMEOUT = 66  # nothing heard for ping_timeout_sec
    STALLED = 67  # bytes sent and not acknowledged for stall_sec
    CONNECTION_LOST = 68  # the transport ended (reset, EOF, or error)
    SUPERSEDED = 69  # a newer session of the same agent took over
    TOKEN_EXPIRED = 70  # the token ran out and no fresh one came within its grace
    GOING_AWAY = 71  # orderly shutdown or drain
    HANDSHAKE_TIMEOUT = 72  # no HELLO in time
    FLOOD = 73  # more control frames than any honest peer sends
    UNAUTHORIZED = 74  # identity in HELLO is not the token's, or the token counts no longer
    VERSION = 75  # no common protocol version
    DUPLICATE = 76  # two hubs had dialled each other: the other link stays

    label: str

    def __init__(self, code: int) -> None:
        self.label = self._name_.lower()  # the name in logs and metrics


class _Row(NamedTuple):
    blame: Blame
    close_code: int  # WebSocket close code (RFC 6455, section 7.4; 4000-4999 are ours)


_LINKS: dict[Reason, _Row] = {
    Reason.PROTOCOL_ERROR: _Row(Blame.REMOTE, 1002),
    Reason.MESSAGE_TOO_BIG: _Row(Blame.REMOTE, 1009),
    Reason.KEEPALIVE_TIMEOUT: _Row(Blame.ENVIRONMENT, 4001),
    Reason.STALLED: _Row(Blame.ENVIRONMENT, 4002),
    Reason.CONNECTION_LOST: _Row(Blame.ENVIRONMENT, 1006),
    Reason.SUPERSEDED: _Row(Blame.NOBODY, 4003),
    Reason.TOKEN_EXPIRED: _Row(Blame.REMOTE, 4004),
    Reason.GOING_AWAY: _Row(Blame.NOBODY, 1001),
    Reason.HANDSHAKE_TIMEOUT: _Row(Blame.REMOTE, 4005),
    Reason.FLOOD: _Row(Blame.REMOTE, 4006),
    Reason.UNAUTHORIZED: _Row(Blame.REMOTE, 1008),
    Reason.VERSION: _Row(Blame.REMOTE, 4007),
    Reason.DUPLICATE: _Row(Blame.NOBODY, 4008),
    Reason.AGENT_LOCKED: _Row(Blame.NOBODY, 4009),
    Reason.INTERNAL: _Row(Blame.LOCAL, 1011),
}

LINK_REASONS: tuple[Reason, ...] = tuple(_LINKS)

# Failures of an open after which the target has not seen a byte: another agent may be tried.
RETRYABLE = frozenset(
    {
        Reason.TARGET_REFUSED,
        Reason.TARGET_UNREACHABLE,
        Reason.TARGET_TIMEOUT,
        Reason.NO_SUCH_CONNECTOR,
        Reason.OVERLOADED,
        Reason.DRAINING,
        Reason.NOT_OWNER,
        Reason.STALE_EPOCH,
        Reason.AGENT_LOCKED,
    }
)


def blame(reason: Reason) -> Blame:
    """Who is at fault when a link ends for `reason`."""
    return _LINKS[reason].blame


def close_code(reason: Reason) -> int:
    """The WebSocket close code that tells a peer of `reason`."""
    return _LINKS[reason].close_code


_BY_CLOSE_CODE = {row.close_code: reason for reason, row in reversed(_LINKS.items())}


def reason_of_close(code: int) -> Reason:
    """The reason behind a received WebSocket close code; any other than ours reads as CONNECTION_LOST."""
    return _BY_CLOSE_CODE.get(code, Reason.CONNECTION_LOST)


BY_CODE = {int(reason): reason for reason in Reason}  # a call of the class costs ten look-ups


def reason_of(code: int) -> Reason:
    """The reason for a wire code; unknown codes of newer peers read as INTERNAL."""
    return BY_CODE.get(code, Reason.INTERNAL)


class NcfastError(Exception):
    """Base of every exception class of ours but the codec's FrameError, which comes before this module in the arrow.

    What the system refuses stays an OSError, and an argument that makes no sense a ValueError.
    """


class LocalError(NcfastError):
    """Misuse of an interface by our own code: a defect."""


class RemoteError(NcfastError):
    """The peer broke the protocol; its link ends with `reason`."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.label}: {detail}" if detail else reason.label)
        self.reason = reason
        self.detail = detail
