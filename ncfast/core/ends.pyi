"""What a flow stands between: the socket above it, and the link below it."""

from typing import Any

class Sink:
    """The socket above a flow; for Cython only."""

class Source:
    """What takes its turns on a link."""

    unsent_bytes: int

class Path:
    """The link below a flow; for Cython only."""

    epoch: int  # 0: each flow has its own
    lanes: dict[bytes, Any]  # relayed flows that come in here
    rtt: float  # seconds
    inflight: int
    max_inflight: int
    peer_window: int  # credit that the peer gives each new flow
