"""Log events as lines: allow-listed, masked, thinned, never blocking."""

from ncfast.observe.log.fields import FIELDS, MAX_TEXT
from ncfast.observe.log.logger import (
    LEVELS,
    Logger,
    access,
    dropped,
    flush,
    get,
    mask_address,
    recent,
    security,
    setup,
    suppressed,
    trace,
)

__all__ = [
    "FIELDS",
    "LEVELS",
    "MAX_TEXT",
    "Logger",
    "access",
    "dropped",
    "flush",
    "get",
    "mask_address",
    "recent",
    "security",
    "setup",
    "suppressed",
    "trace",
]
