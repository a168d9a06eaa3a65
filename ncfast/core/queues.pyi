"""What waits for a link's carrier, and in which order it leaves. Sans-I/O."""

from collections.abc import Callable
from typing import Any

from ncfast.core.context import FlowContext
from ncfast.core.ends import Path
from ncfast.core.flow import Flow

class Carrier:
    """What moves a link's bytes; for Cython only."""

class Queues(Path):
    """The flows and relayed directions of one carrier, and what each has to send."""

    carrier: Carrier
    ctx: FlowContext
    flows: dict[bytes, Flow[Any]]
    closed: bool
    queue_depth: int
    bytes_out: int
    relay_frames: int  # relayed frames that wait for the carrier
    relay_bytes: int  # and what they cost: their bytes, and 256 for each
    drops_queue: int  # relayed frames dropped at this link's bounds
    drops_away: int  # relayed frames that came in here and had no link to leave by

    def __init__(
        self,
        carrier: Carrier,
        ctx: FlowContext,
        call_soon: Callable[..., Any],
        call_later: Callable[..., Any],
        *,
        max_inflight: int,
        queue_depth: int,
    ) -> None: ...
    @property
    def writable(self) -> bool: ...
    @property
    def answer_bytes(self) -> int:
        """Bytes of memory that answers take which wait for the carrier."""

    @property
    def queued(self) -> int:
        """Control frames and flows that wait for the carrier."""
