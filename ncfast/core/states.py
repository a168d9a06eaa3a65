"""The states of a flow's end, in one table.

Both ends of a flow, the hub's (client socket) and the agent's (target socket), run the same machine. OPENING lasts
until the target is connected; bytes and even the end of the local direction may be queued meanwhile (OPENING_FIN). From
OPEN on each direction ends by itself, as TCP's do: `local_fin` is our socket's end of stream queued for the peer,
`remote_fin` the peer's end of stream delivered to our socket. CLOSING waits until both ends are acknowledged. `reset`
ends a flow at once, from anywhere. Losing the link is no state here: a flow without a link stays what it is and goes on
when it is resumed.
"""

from __future__ import annotations

import enum

from ncfast.core.errors import LocalError


class FlowState(enum.IntEnum):
    OPENING = 0
    OPENING_FIN = 1
    OPEN = 2
    HALF_LOCAL = 3  # our direction has ended, the peer's goes on
    HALF_REMOTE = 4  # the peer's direction has ended, ours goes on
    CLOSING = 5  # both have ended, acknowledgements outstanding
    CLOSED = 6


class FlowEvent(enum.IntEnum):
    ACCEPTED = 0
    LOCAL_FIN = 1
    REMOTE_FIN = 2
    DONE = 3
    RESET = 4


S, E = FlowState, FlowEvent

TRANSITIONS: dict[tuple[FlowState, FlowEvent], FlowState] = {
    (S.OPENING, E.ACCEPTED): S.OPEN,
    (S.OPENING, E.LOCAL_FIN): S.OPENING_FIN,
    (S.OPENING_FIN, E.ACCEPTED): S.HALF_LOCAL,
    (S.OPEN, E.LOCAL_FIN): S.HALF_LOCAL,
    (S.OPEN, E.REMOTE_FIN): S.HALF_REMOTE,
    (S.HALF_LOCAL, E.REMOTE_FIN): S.CLOSING,
    (S.HALF_REMOTE, E.LOCAL_FIN): S.CLOSING,
    (S.CLOSING, E.DONE): S.CLOSED,
    **{(state, E.RESET): S.CLOSED for state in S if state is not S.CLOSED},
}

_AFTER = {
    (int(state), event): after for (state, event), after in TRANSITIONS.items()
}  # a look-up, no call of the class


def advance(state: int, event: FlowEvent) -> int:
    """The state after `event`. Raises LocalError for an edge that the table lacks."""
    after = _AFTER.get((state, event))
    if after is None:
        raise LocalError(f"a flow in {S(state).name} cannot take {event.name}")
    return after
