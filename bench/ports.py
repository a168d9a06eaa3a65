"""Ports for programs that must be told theirs, or that come back to it."""

from __future__ import annotations

import contextlib
import random
import socket

BELOW_EPHEMERAL = range(20_000, 32_000)  # the kernel gives these to nobody who asks for port 0, or dials
_given: set[tuple[str, int]] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """One that nobody has now, given only once. Callers who share the address with strangers retry on a clash."""
    while True:
        address = host, random.SystemRandom().choice(BELOW_EPHEMERAL)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(address)
            if address not in _given:
                _given.add(address)
                return address[1]
