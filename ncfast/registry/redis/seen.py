"""The highest epochs that this process has seen, and those that are granted from memory while Redis is away.

Such an epoch leaps to the next multiple of 2**16, plus 16 bits of this process's name: no other hub that is cut off as
we are grants the same one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ncfast.registry.view import View

LEAP = 16  # bits below which an epoch granted from memory tells hubs apart
EPOCHS_SEEN = 65_536  # agents whose epoch this process remembers beside those in the view


class SeenEpochs:
    """`process` is its name, in hexadecimal; `possible` the largest epoch that is believed now."""

    def __init__(self, process: str, view: View, possible: Callable[[], int]) -> None:
        self._mark = int(process[-4:] or "0", 16)
        self._view = view
        self._possible = possible
        self._epochs: OrderedDict[str, int] = OrderedDict()  # by key, the oldest first

    def of(self, key: str) -> int:
        """The highest of an agent; 0 if that is not possible by now, for clocks may be put right."""
        epoch = self._epochs.get(key, 0)
        return epoch if epoch <= self._possible() else 0

    def see(self, key: str, epoch: int) -> None:
        if epoch > self.of(key):
            self._epochs[key] = epoch
            self._epochs.move_to_end(key)
            if len(self._epochs) > EPOCHS_SEEN + len(self._view.agents):
                self._epochs.popitem(last=False)

    def leap(self, key: str, at_least: int, beginning: int) -> int:
        """An epoch without Redis, above all that is known; where nothing is, above `beginning`, at which it would start
        if Redis did not know the agent."""
        floor = max(at_least, self.of(key)) or beginning
        return (((floor >> LEAP) + 1) << LEAP) | self._mark
