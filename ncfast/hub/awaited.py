"""Flows that a predecessor is passing and that are not here yet: who asks for one meanwhile is answered when it has
come, or when it is known that it does not.

An agent that has claimed here asks at once for all its flows, and so do hubs whose link has come up; the flows follow
within milliseconds. So M_RESUME for one of the predecessor's cids is kept, the latest of each, and worked with later as
if it had just come. An M_RST behind it, from the same link, is kept with it. All else that comes for such a flow is
answered by M_DETACH (`AgentSession.foreign`): its sender waits, and we ask for the flow when it is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ncfast.core.errors import Reason, reason_of

if TYPE_CHECKING:
    from ncfast.core.link import Link
    from ncfast.hub.ground import Ground


class Asked:
    """M_RESUME for a flow that is yet to come. `again` works with it as if it had just come."""

    __slots__ = ("again", "far_rtt", "link", "reset_by")

    def __init__(self, link: Link, again: Callable[[], object]) -> None:
        self.link = link
        self.far_rtt = link.far_rtt
        self.again = again
        self.reset_by: Reason | None = None  # the flow has ended beyond the link since


class Awaited:
    """Of one predecessor, whose cids have numbers below `first`."""

    def __init__(self, ground: Ground, first: int) -> None:
        self._ground = ground
        self._first = ground.instance + first.to_bytes(8, "big")
        self._most = ground.config.limits.max_flows
        self._asked: dict[bytes, Asked] = {}
        self._settled: set[str] = set()  # agents of which all flows are here
        ground.awaited = self
        ground.context.stray_reset = self._reset

    def awaits(self, cid: bytes) -> bool:
        """Whether it is a flow that may be yet to come."""
        return cid < self._first and self._ground.missing(cid)

    def __len__(self) -> int:
        return len(self._asked)

    def complete(self, agent: str) -> bool:
        """Whether all flows of this agent, by key, are here."""
        return agent in self._settled

    def keep(self, cid: bytes, link: Link, epoch: int, again: Callable[[], object]) -> None:
        """The flow is asked for on the link. If more are than there may be flows, it is to wait there until we ask."""
        if cid in self._asked or len(self._asked) < self._most:
            self._asked[cid] = Asked(link, again)
        else:
            link.tell_detached(cid, epoch, Reason.OVERLOADED)

    def _reset(self, link: Any, cid: bytes, code: int) -> None:
        asked = self._asked.get(cid)
        if asked is not None and asked.link is link:
            asked.reset_by = reason_of(code)

    def came(self, cid: bytes) -> bool:
        """The flow is here: works with what was asked for it. False: nobody has."""
        asked = self._asked.pop(cid, None)
        if asked is None or asked.link.closed:
            return False
        asked.again()
        flow = self._ground.flows.get(cid)
        if flow is not None and flow.path is asked.link:
            asked.link.resumed_late(flow, asked.far_rtt)
            if asked.reset_by is not None:
                flow.reset(asked.reset_by)
        return True

    def settle(self, agent: str) -> None:
        """No more flows of this agent come: whoever asks for others asks in vain."""
        self._settled.add(agent)
        for cid in list(self._asked):
            if (asked := self._asked.get(cid)) is not None and getattr(asked.link.handler, "key", None) == agent:
                del self._asked[cid]
                asked.again()

    def over(self) -> None:
        """No more flows come at all."""
        self._ground.awaited = self._ground.context.stray_reset = None
        asked, self._asked = self._asked, {}
        for one in asked.values():
            one.again()
