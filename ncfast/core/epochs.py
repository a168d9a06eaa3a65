"""What an epoch may be: a number of microseconds, or one that was counted up from it.

An honest epoch begins at a registry's clock in microseconds and grows by one a claim, by a thousand where data were
lost, by 65,536 where it is granted without Redis. Nobody claims that fast for long, so no honest epoch is far above the
clock; and a bound that goes with the clock leaves whatever was granted at the bound behind within milliseconds.

Two bounds, `REACH` apart. What an agent says must be `claimable`: it may have made it up. What stands in a registry, or
is said by a hub, must be `possible`; the rest counts as absent. So what was granted at the first bound is far below the
second, whoever's clock judges it.
"""

from __future__ import annotations

YEAR = 31_557_600_000_000  # microseconds
REACH = 10 * YEAR  # a clock that was wrong by less, once, locks out nobody: what was granted then stays good
BEGINNING = 56 * YEAR  # the first hour of 2026: a clock that says less, as one without a battery does, is wrong
LARGEST = 2**53 - 2**32  # in the year 2255: above it there is room for a claim each second, and JSON readers are exact


def claimable(seconds: float) -> int:
    """The largest epoch that an agent may say it was granted, when a clock says `seconds` since 1970."""
    return _above(seconds, REACH)


def possible(seconds: float) -> int:
    """The largest epoch that a registry can hold, when a clock says `seconds` since 1970."""
    return _above(seconds, 2 * REACH)


def follows(epoch: int, granted: int) -> bool:
    """Whether somebody else can know of `epoch` when `granted` is ours. No clock is asked: an agent's may say
    anything."""
    return epoch <= min(max(granted, BEGINNING) + REACH, LARGEST)


def _above(seconds: float, reach: int) -> int:
    return min(max(int(seconds * 1_000_000), BEGINNING) + reach, LARGEST)
