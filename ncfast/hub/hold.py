"""Clients that wait: while every agent of a connector is reconnecting, downtime shows as latency first."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable

from ncfast.hub.client import ClientFlow, Key


class Hold:
    """A queue for each connector, oldest first, within each listener's bounds of number (`hold_max`) and time
    (`hold_sec`)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.queues: dict[Key, deque[tuple[ClientFlow, float]]] = {}  # none is empty
        self.count: Counter[str] = Counter()  # by listener

    def __contains__(self, key: Key) -> bool:
        return key in self.queues

    def add(self, flow: ClientFlow) -> bool:
        """False: the listener holds as many as it may, or none at all, or the flow has been held for long enough
        before."""
        info = flow.info
        listener = info.listener
        if not self.patient(flow) or self.count[listener.name] >= listener.hold_max:
            return False
        self.queues.setdefault(info.key, deque()).append((flow, info.hold_until))
        self.count[listener.name] += 1
        return True

    def patient(self, flow: ClientFlow) -> bool:
        """Whether the flow may wait: `hold_sec` from when it first had to, here or for its turn at an agent."""
        info, now = flow.info, self._clock()
        if not info.hold_until:
            info.hold_until = now + info.listener.hold_sec
        return info.hold_until > now

    def release(self, key: Key, dispatch: Callable[[ClientFlow], bool], most: int = sys.maxsize) -> None:
        """Lets go in order as long as `dispatch` finds a way, and at most so many."""
        queue = self.queues.pop(key, None)
        while queue:
            flow, deadline = queue.popleft()
            self.count[flow.info.listener.name] -= 1
            if flow.closed:
                continue
            if not most or not dispatch(flow):
                queue.appendleft((flow, deadline))
                self.count[flow.info.listener.name] += 1
                self.queues[key] = queue
                return
            most -= 1

    def tick(self, now: float, dispatch: Callable[[ClientFlow], bool], late: Callable[[ClientFlow], None]) -> None:
        """Looks for a way for all that wait; tells of those whose time is over."""
        for key in list(self.queues):
            self.release(key, dispatch)
        for key, queue in list(self.queues.items()):
            while queue and (queue[0][0].closed or queue[0][1] <= now):
                flow, _ = queue.popleft()
                self.count[flow.info.listener.name] -= 1
                if not flow.closed:
                    late(flow)
            if not queue:
                self.queues.pop(key, None)

    def clear(self) -> list[ClientFlow]:
        """Nobody waits here any longer: who did, each connector's in order."""
        waiting = [flow for flow in self.flows() if not flow.closed]
        self.queues.clear()
        self.count.clear()
        return waiting

    def flows(self) -> list[ClientFlow]:
        """All that wait."""
        return [flow for queue in self.queues.values() for flow, _ in queue]
