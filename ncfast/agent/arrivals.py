"""Flows that a predecessor has passed and that are put under their sockets in turn, some in each turn of the loop, so
that the first go on before the last are there. One that a hub asks for, or opens again, is put there at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ncfast.agent.passing import Agent, Passing
from ncfast.core.errors import NcfastError
from ncfast.core.record import FlowRecord
from ncfast.net.parcel import Parcel

SLICE = 32  # flows in one turn of the loop, about 1 ms


class Arrivals:
    """Of one hand-over."""

    def __init__(self, agent: Agent, parcels: list[Parcel], done: Callable[[], object]) -> None:
        """`done` is called when none waits any more."""
        self._agent = agent
        self._passing = Passing(agent.ground, agent.services)
        self._waiting = {FlowRecord.cid_of(parcel.record): parcel for parcel in parcels}
        self._turns = deque(self._waiting)
        self._done = done
        self.lost = 0  # that could not be put there, and were reset
        agent.ground.bring = self.bring

    @property
    def left(self) -> int:
        return len(self._waiting)

    def begin(self) -> None:
        """The first turn."""
        for _ in range(min(SLICE, len(self._turns))):
            self.bring(self._turns.popleft())
        if self._turns:
            self._agent.net.call_soon(self.begin)
        else:
            self._agent.ground.bring = None
            self._done()

    def bring(self, cid: bytes) -> None:
        """Puts the flow under its socket, if it waits for that, and takes it up, if we are owned by now."""
        parcel = self._waiting.pop(cid, None)
        if parcel is None:
            return
        try:
            flow = self._passing.put(parcel, passed=True)
        except (ValueError, KeyError, TypeError, OverflowError, OSError, NcfastError):
            self.lost += 1
            return
        owner = self._agent.tunnels.owner
        if owner is not None and not flow.closed:
            owner.carry(flow)

    def bring_all(self) -> None:
        """None waits any more."""
        for cid in list(self._waiting):
            self.bring(cid)
