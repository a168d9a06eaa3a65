"""Flows leave the tunnels of agents that have claimed at our successor: one by one, so that each stands still for its
own sake alone.

Such an agent keeps its old tunnel here for a while (docs/protocol.md, 8.40), and its flows go on there. We tell it by
M_DETACH which of them may go; it takes up each over its new tunnel, and says M_DETACH here, behind all that it has sent
of the flow. So the flow has lost its way here, nothing of it is under way, and it is passed. No more are told than the
successor keeps up with. When all have left, the tunnel ends; if the agent ends it before, or takes too long, those that
are left lose their way together.

An agent may be another process by then, which has all flows and says that it is `alone`: nobody looks at the old tunnel
any more, or answers there. It ends as soon as what was sent on it has been heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ncfast.core.errors import Reason
from ncfast.hub.client import ClientFlow
from ncfast.hub.session import AgentSession

AT_ONCE = 256  # flows of a tunnel that are told, and have not left: some 10 ms of work for the successor
PATIENCE = 15.0  # seconds for an agent to let go of the next flow; nothing waits meanwhile
SILENT = 0.01  # seconds in which nothing comes by a tunnel that its agent has left: all of it has been heard
LEAVES = 0.25  # seconds for an agent to hear that it is granted its claim there, before a tunnel without flows ends


class Leaving:
    """Of all agents that have claimed there."""

    def __init__(self, clock: Callable[[], float], keeps_up: Callable[[], bool]) -> None:
        """`keeps_up`: whether the successor has gone on with nearly all that has come to it."""
        self._clock = clock
        self._keeps_up = keeps_up
        self._staying: dict[AgentSession, deque[ClientFlow]] = {}  # not told yet
        self._told: dict[AgentSession, set[ClientFlow]] = {}
        self._heard: dict[AgentSession, float] = {}  # when the last flow left
        self._knows: set[AgentSession] = set()  # that it is owned there: a flow has left
        self._left: dict[AgentSession, int] = {}  # by the agent, with all flows: bytes that had come by it then

    def begin(self, session: AgentSession, flows: list[ClientFlow], *, alone: bool) -> None:
        """These, of which some may be on no tunnel, are to leave it. `alone`: for the agent they have."""
        self._staying[session] = deque(flow for flow in flows if flow.path is session.link and not alone)
        self._told[session] = set()
        self._heard[session] = self._clock()
        if alone:
            self._left[session] = session.link.bytes_in

    def left(self, session: AgentSession, flow: ClientFlow) -> None:
        """The agent has let go of it."""
        if session in self._told:
            self._told[session].discard(flow)
            self._heard[session] = self._clock()
            self._knows.add(session)

    def over(self, session: AgentSession) -> None:
        """The tunnel has ended."""
        for one in (self._staying, self._told, self._heard, self._left):
            one.pop(session, None)
        self._knows.discard(session)

    def go_on(self) -> None:
        """Tells more of them, and ends tunnels that all have left, or of which nothing is heard."""
        for session, staying in list(self._staying.items()):
            told = self._told[session]
            told -= {flow for flow in told if flow.closed}
            if len(told) <= AT_ONCE // 2 and self._keeps_up():
                self._tell(session, staying, told)
            if session not in self._heard:
                continue  # it does not read, and its tunnel has ended by what we have told it
            if session in self._left and session.link.bytes_in != self._left[session]:
                self._left[session], self._heard[session] = session.link.bytes_in, self._clock()
            silent = self._clock() - self._heard[session]
            empty = not staying and all(flow.path is not session.link or flow.closed for flow in told)
            patience = SILENT if session in self._left else PATIENCE
            if silent >= patience or (empty and (session in self._knows or silent >= LEAVES)):
                session.link.fail(Reason.GOING_AWAY, "another process of this hub goes on")

    def _tell(self, session: AgentSession, staying: deque[ClientFlow], told: set[ClientFlow]) -> None:
        for _ in range(min(len(staying), AT_ONCE - len(told))):
            flow = staying.popleft()
            if flow.open_waits:  # our word would overtake that, and be about nothing that the agent knows
                staying.append(flow)
                continue
            if flow.path is session.link and not flow.closed:
                told.add(flow)
                session.link.tell_detached(flow.cid, session.epoch, Reason.LINK_LOST)
