"""The states of a way to another hub, in one table.

A *way* is a URL that we dial, or a connection that another hub has made. A dialled way lives on when its link is lost:
it goes through BACKOFF to the next attempt. An accepted one begins with the handshake and is LOST when its link ends;
whoever made it makes the next. RESTING is a URL for which there is nothing to do: a link to the replica behind it
stands (another URL's, or one that the replica dialled), or the replica behind it is ourselves.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from ncfast.core.errors import LocalError


class LinkState(enum.StrEnum):
    BACKOFF = "backoff"  # no connection; the next attempt comes after a pause
    DIALLING = "dialling"  # TCP, TLS and HTTP upgrade
    HANDSHAKING = "handshaking"  # HELLO, HELLO_ACK, AUTH
    UP = "up"
    DRAINING = "draining"  # the peer has said GOAWAY: no new flows
    RESTING = "resting"  # not dialled, because it is not needed
    LOST = "lost"  # over


class LinkEvent(enum.IntEnum):
    DIAL = 0  # the pause is over
    CONNECTED = 1
    WELCOMED = 2  # both ends have proved who they are, and the link is the one that stays
    GOAWAY = 3
    FAILED = 4  # the attempt failed, or the link was lost
    SPARED = 5  # another link to the replica stands, or the replica is ourselves
    NEEDED = 6  # the other link is gone
    DROPPED = 7  # the URL is no longer listed, the accepted link has ended, or we stop


S, E = LinkState, LinkEvent

TRANSITIONS: dict[tuple[LinkState, LinkEvent], LinkState] = {
    (S.BACKOFF, E.DIAL): S.DIALLING,
    (S.DIALLING, E.CONNECTED): S.HANDSHAKING,
    (S.HANDSHAKING, E.WELCOMED): S.UP,
    (S.UP, E.GOAWAY): S.DRAINING,
    **{(state, E.FAILED): S.BACKOFF for state in (S.DIALLING, S.HANDSHAKING, S.UP, S.DRAINING)},
    **{(state, E.SPARED): S.RESTING for state in (S.BACKOFF, S.DIALLING, S.HANDSHAKING, S.UP, S.DRAINING)},
    (S.RESTING, E.NEEDED): S.BACKOFF,
    **{(state, E.DROPPED): S.LOST for state in S if state is not S.LOST},
}


def advance(state: LinkState, event: LinkEvent) -> LinkState:
    """The state after `event`. Raises LocalError for an edge that the table lacks."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LocalError(f"a way in {state.name} cannot take {event.name}") from None


class Way:
    """What has a state of the table; `url` is "" for an accepted connection, `since` when it took its state."""

    url = ""

    def __init__(self, state: LinkState, clock: Callable[[], float]) -> None:
        self.state = state
        self._clock = clock
        self.since = clock()

    @property
    def expects(self) -> str:
        """The one replica that may be at the far end; "": any that proves to be one."""
        return ""

    def move(self, event: LinkEvent) -> None:
        """The only place where a way's state changes."""
        self.state = advance(self.state, event)
        self.since = self._clock()
