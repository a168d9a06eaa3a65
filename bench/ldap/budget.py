"""The budgets that a session has to keep to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.ldap.faults import FAULTS
from bench.ldap.run import STYLES, Hit, Steady
from bench.ldap.ways import DIRECT


@dataclass(frozen=True)
class Budget:
    """``p99_ms`` for operations of each way through the product, while nothing is done to it; ``errors_percent`` of all
    that are asked there, and in each fault by which clients are not announced to lose anything. None is no budget."""

    p99_ms: float | None
    errors_percent: float | None

    @property
    def words(self) -> str:
        bounds = []
        if self.p99_ms is not None:
            bounds.append(f"p99 at most {self.p99_ms:g} ms")
        if self.errors_percent is not None:
            bounds.append(f"errors at most {self.errors_percent:g} %")
        return ", ".join(bounds) or "none was given"

    def broken(self, runs: Iterable[Steady | Hit]) -> Iterator[str]:
        """What is over, in words."""
        for run in runs:
            if isinstance(run, Hit):
                if not FAULTS[run.fault].announced:
                    for style, felt in run.felt.items():
                        yield from self._errors(f"{run.fault}, {STYLES[style]}", felt.errors_percent)
            elif run.way != DIRECT:
                yield from self._errors(run.name, run.felt.errors_percent)
                p99 = run.felt.every.ms(0.99)
                if self.p99_ms is not None and p99 > self.p99_ms:
                    yield f"{run.name}: p99 is {p99:,.3f} ms, over {self.p99_ms:g} ms"

    def _errors(self, name: str, percent: float) -> Iterator[str]:
        if self.errors_percent is not None and percent > self.errors_percent:
            yield f"{name}: {percent:.3f} % of all operations failed, over {self.errors_percent:g} %"
