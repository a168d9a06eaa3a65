"""Log events as lines: allow-listed, masked, thinned, never blocking."""

from ncfast.observe.log.fields import FIELDS, MAX_TEXT
from ncfast.observe.log.logger import (
    LEVELS,
    Logger,
    access,
    also,
    dropped,
    flush,
    get,
    mask_address,
    mask_identity,
    notable,
    recent,
    security,
    setup,
    suppressed,
    trace,
)
from ncfast.observe.log.notable import Event

__all__ = [
    "FIELDS",
    "LEVELS",
    "MAX_TEXT",
    "Event",
    "Logger",
    "access",
    "also",
    "dropped",
    "flush",
    "get",
    "mask_address",
    "mask_identity",
    "notable",
    "recent",
    "security",
    "setup",
    "suppressed",
    "trace",
]
