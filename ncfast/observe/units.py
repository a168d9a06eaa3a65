"""Sizes and durations as people read them, on the status page and on the command line."""

from __future__ import annotations


def size(count: int) -> str:
    """Bytes in binary units (IEC 80000-13): 512 B, 1.5 KiB."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: float) -> str:
    """Whole seconds in the two largest units: 42 s, 3 min 5 s, 2 h 10 min, 4 d 1 h."""
    whole = int(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part} {smaller}"
    return f"{whole} s"
