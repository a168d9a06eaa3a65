"""Whether a place can be reached: its name, then a connection, told apart for whoever has to mend it."""

from __future__ import annotations

import asyncio
import os
import socket

from ncfast.net.names import Share, literal
from ncfast.net.seam import Net
from ncfast.observe.findings import Findings

STEPS = ("DNS", "TCP")

NAME = "is the name right, and does this machine's resolver know it (getent hosts NAME)?"
REFUSED = "nobody listens on that port: is the service up, and the port right?"
SILENT = "no answer: a firewall on the way drops what we send, or the machine is away"
NO_WAY = "this machine, or one on the way, knows no way there: routes, firewall"


async def look_up(net: Net, findings: Findings, subject: str, host: str, timeout: float, share: Share) -> bool:
    """Asks for `host` within `timeout` seconds; what came of it is in `findings`, too."""
    if literal(host, 0):
        findings.skipped(subject, ("DNS",), f"{host} is an address")
        return True
    try:
        async with asyncio.timeout(timeout):
            places = await net.names.find(share, host, 0, timeout)
    except OSError as exc:  # TimeoutError is one
        findings.failed(subject, "DNS", f"{host}: {words(exc, timeout)}", NAME)
        return False
    findings.passed(subject, "DNS", f"{host} is {', '.join(where[0] for _, where in places)}")
    return True


async def connect(
    net: Net, findings: Findings, subject: str, host: str, port: int, timeout: float, share: Share
) -> bool:
    """Connects within `timeout` seconds, and leaves again without a word."""
    try:
        with await net.dial(host, port, share, timeout) as sock:
            where = sock.getpeername()
    except OSError as exc:
        findings.failed(subject, "TCP", f"port {port}: {words(exc, timeout)}", remedy(exc))
        return False
    findings.passed(subject, "TCP", f"{where[0]}, port {where[1]}")
    return True


def words(exc: OSError, timeout: float) -> str:
    """The kernel's, or the resolver's, or ours for a silence of `timeout` seconds."""
    if isinstance(exc, TimeoutError) and exc.errno is None:
        return f"no answer within {timeout:g} s"
    if isinstance(exc, socket.gaierror):
        return exc.strerror or "not found"
    return os.strerror(exc.errno) if exc.errno else type(exc).__name__


def remedy(exc: OSError) -> str:
    """What to do when a connection does not come about."""
    if isinstance(exc, ConnectionRefusedError):
        return REFUSED
    return SILENT if isinstance(exc, TimeoutError) else NO_WAY
