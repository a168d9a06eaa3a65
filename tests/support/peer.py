"""The test's hold on the scripted service, and flows that run a script at both ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.process import support_program
from support.script import End, Gates, Outcome, Step
from support.until import PATIENCE, until, wait_until

Address = tuple[str, int]


class Peer:
    """One ``peer_program`` process."""

    def __init__(self, directory: Path) -> None:
        self.program = support_program("peer_program", directory, "peer")
        ports = self.program.answer()
        self.address: Address = ("127.0.0.1", ports["port"])
        self.armed_address: Address = ("127.0.0.1", ports["armed_port"])
        self._keys = itertools.count(1)

    def next_seed(self) -> int:
        """A number that names one flow and its two patterns."""
        return next(self._keys)

    def arm(self, order: dict[str, Any]) -> None:
        """What the armed port does with its next client."""
        self.program.ask(do="arm", order=order)

    def open_gate(self, gate: str) -> None:
        self.program.ask(do="open_gate", gate=gate)

    def outcome(self, seed: int) -> Outcome | None:
        """What the service's end of a flow has seen so far; None before it has accepted."""
        found = self.program.ask(do="outcome", key=str(seed))
        return Outcome(**found) if found else None

    async def reached(self, seed: int, count: int = 1) -> None:
        """Until the service has this flow's first ``count`` bytes."""
        await until(
            lambda: (seen := self.outcome(seed)) and seen.received >= count,
            f"{count} bytes of flow {seed} at the service",
        )

    def ended(self, seed: int, timeout: float = PATIENCE) -> Outcome:
        """What the service's end saw, once that end is over."""

        def over() -> Outcome | None:
            outcome = self.outcome(seed)
            return outcome if outcome and (outcome.finished or outcome.error) else None

        return wait_until(over, f"the end of flow {seed} at the service", timeout)

    def counts(self) -> dict[str, int]:
        """Connections accepted ever, and open now."""
        return self.program.ask(do="counts")

    def unlisten(self) -> None:
        """The target goes down."""
        self.program.ask(do="unlisten")

    def listen(self) -> None:
        """The target comes back, on the same ports."""
        self.program.ask(do="listen")

    def stop(self) -> None:
        self.program.stop()


@dataclass(frozen=True)
class Both:
    """What the two ends of one flow saw."""

    client: Outcome
    service: Outcome


def order(seed: int, script: list[Step], **options: Any) -> dict[str, Any]:
    """What the service is told about a flow."""
    return {"key": str(seed), "seed": seed, "script": script, **options}


def order_line(seed: int, script: list[Step], **options: Any) -> bytes:
    """The same, as the first line a client sends."""
    return json.dumps(order(seed, script, **options)).encode() + b"\n"


async def connect(address: Address, receive_buffer: int | None = None) -> socket.socket:
    """A connected non-blocking socket."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


async def run_flow(
    peer: Peer,
    address: Address,
    *,
    client: list[Step],
    service: list[Step],
    armed: bool = False,
    digest: bool = False,
    gates: Gates | None = None,
    receive_buffer: int | None = None,
    on_progress: Callable[[Outcome], None] | None = None,
    seed: int | None = None,
    timeout: float = PATIENCE,
) -> Both:
    """Run one flow to its end at both ends.

    With ``armed`` the service acts before the client has sent a byte; ``address`` leads to its armed port.
    """
    seed = peer.next_seed() if seed is None else seed
    async with asyncio.timeout(timeout):
        if armed:
            peer.arm(order(seed, service, digest=digest))
        sock = await connect(address, receive_buffer)
        end = End(
            sock,
            send_seed=2 * seed,
            receive_seed=2 * seed + 1,
            gates=gates or Gates(),
            digest=digest,
            on_progress=on_progress,
        )
        if not armed:
            await asyncio.get_running_loop().sock_sendall(sock, order_line(seed, service, digest=digest))
        seen = await end.run(client)
        return Both(seen, await asyncio.to_thread(peer.ended, seed, timeout))


def byte_exact(outcome: Outcome, length: int) -> None:
    """Fail unless an end received exactly the first ``length`` bytes of the other end's pattern."""
    assert outcome.first_bad is None, f"wrong byte at offset {outcome.first_bad}: {outcome}"
    assert outcome.received == length, outcome


def is_refused(address: Address) -> bool:
    """Whether a client is closed or reset without a byte; it sends none itself."""
    try:
        with socket.create_connection(address, timeout=PATIENCE) as client:
            return client.recv(1) == b""
    except (ConnectionResetError, ConnectionRefusedError):
        return True
