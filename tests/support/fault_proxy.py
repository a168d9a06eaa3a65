"""The test's hold on the proxy that breaks connections."""

from __future__ import annotations

from pathlib import Path

from bench.ports import free_port
from support.process import support_program


class FaultProxy:
    """One ``fault_proxy_program`` process in front of ``upstream``."""

    def __init__(self, directory: Path, upstream: tuple[str, int], name: str = "fault_proxy") -> None:
        self.address = ("127.0.0.1", free_port())
        arguments = [str(part) for address in (upstream, self.address) for part in address]
        self.program = support_program("fault_proxy_program", directory, name, *arguments)
        self.program.answer()

    def fault(self, kind: str) -> None:
        """Now: ``rst``, ``silence``, ``drop_up`` or ``drop_down`` (what the dialling side says, or hears, is
        lost), for the present connections; ``restart`` (back after 0.2 s); ``down`` (until ``up``)."""
        self.program.ask(do="fault", kind=kind)

    def shape(self, way: str = "both", *, delay: float = 0, trickle: float = 0, slice: int = 0) -> None:
        """From now on, ``up``, ``down`` or both: so many seconds on the way, at most so many bytes a second, no
        write of more bytes than ``slice``; a zero ends the shape that was."""
        self.program.ask(do="shape", way=way, delay=delay, trickle=trickle, slice=slice)

    def plan(self, faults: list[tuple[int, str]]) -> None:
        """Faults that happen by themselves once so many more bytes have gone through."""
        self.program.ask(do="plan", plan=faults)

    def up(self) -> None:
        self.program.ask(do="up")

    def freeze(self) -> None:
        """Carry nothing until ``thaw``; nothing is lost."""
        self.program.ask(do="freeze")

    def thaw(self) -> None:
        self.program.ask(do="thaw")

    def stats(self) -> dict[str, int]:
        """``forwarded`` bytes, ``accepted`` and ``active`` connections, ``faults`` so far."""
        return self.program.ask(do="stats")

    def stop(self) -> None:
        self.program.stop()
