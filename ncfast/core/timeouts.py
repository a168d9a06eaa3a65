"""The timers of a flow, as `Flow.check` compares them."""

from __future__ import annotations

from dataclasses import dataclass

STOOD_STILL = 2.0  # seconds by which a look at timers is late when it was we who stood still; links have the same


@dataclass(slots=True, frozen=True)
class Timeouts:
    """What `Flow.check` compares with, in seconds; 0 switches idle and first_byte off."""

    open: float
    grace: float
    half_close: float
    stall: float
    idle: float = 0.0
    first_byte: float = 0.0
