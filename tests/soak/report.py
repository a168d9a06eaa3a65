"""The soak's report, in Markdown."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isinf

from support.report import table, wrapped

from .ledger import Fault, Ledger
from .samples import BOUNDS, MIB, Life

SHOWN = 30  # failures


@dataclass(frozen=True)
class Outcome:
    """All that is reported."""

    seconds: float
    seed: int
    ledger: Ledger
    lives: list[Life]
    warm_up: float
    interval: float
    accounts: Mapping[str, Mapping[str, float]]
    broken_off: bool = False

    @property
    def passed(self) -> bool:
        return not self.ledger.failures and not self.broken_off and sum(self.ledger.done.values()) > 0


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    return table(head, rows, figures=True)


def render(outcome: Outcome) -> str:
    """The whole page."""
    ledger = outcome.ledger
    verdict = "broken off" if outcome.broken_off else "passed" if outcome.passed else "FAILED"
    lines = [
        "# Soak",
        "",
        f"**{verdict}**: {outcome.seconds / 60:.1f} minutes, seed {outcome.seed}, "
        f"{sum(ledger.done.values())} trials done, {sum(ledger.lost.values())} lost as announced, "
        f"{sum(ledger.failed.values())} failed; {len(ledger.faults)} faults; {len(ledger.failures)} failures in all. "
        f"Python {platform.python_version()}.",
        "",
        "## Clients",
        "",
        *_table(("kind", "done", "lost as announced", "failed", "lost by"), _clients(ledger)),
        "## LDAP operations",
        "",
        "Of the LDAP load (`bench/ldap/clients.c`), faults and all; milliseconds from when an operation was due.",
        "",
        *_table(("clients", "operation", "answered", "failed", "p50", "p99", "p99.9", "longest"), _ldap(ledger)),
        "## Faults",
        "",
        "The longest standstill is that of a conversation's turn (64 bytes there and back) that was under way while "
        "the fault lasted; at the hub it was done to, and at the others.",
        "",
        *_table(
            ("kind", "played", "standstill there, s", "elsewhere, s", "until all was in its place, s"),
            _faults(ledger),
        ),
        "## Processes",
        "",
        f"Sampled every {outcome.interval:g} s; medians of the first and the last third of a process's life after "
        f"{outcome.warm_up:g} s. {_bounds()}",
        "",
        *_table(
            ("process", "pid", "samples", "RSS, MiB", "descriptors", "threads", "most held, KiB", "loop lag up to, s"),
            _processes(outcome),
        ),
        "## Accounts",
        "",
        "Of each hub's last process, when no client was left: opened = closed + active; bytes in = acknowledged + "
        "discarded + held.",
        "",
        *_table(("hub", *next(iter(outcome.accounts.values()), {})), _accounts(outcome)),
        "## Failures",
        "",
        "With what the origin has logged of the flow, and what all have logged around it (once, if several come at a "
        "time).",
        "",
        *(_failures(ledger) if ledger.failures else ["None."]),
    ]
    return "\n".join(part for line in lines for part in wrapped(line))


def _clients(ledger: Ledger) -> Iterator[tuple[object, ...]]:
    for kind in sorted({*ledger.done, *ledger.failed, *(kind for kind, _ in ledger.lost)}):
        by = {fault: count for (one, fault), count in sorted(ledger.lost.items()) if one == kind}
        told = ", ".join(f"{fault} {count}" for fault, count in by.items())
        yield kind, ledger.done[kind], sum(by.values()), ledger.failed[kind], told


def _ldap(ledger: Ledger) -> Iterator[tuple[object, ...]]:
    for (kind, name), times in ledger.times.items():
        if times.count or times.failed:
            shares = (f"{times.ms(share):,.1f}" for share in (0.5, 0.99, 0.999))
            yield kind, name, times.count, times.failed, *shares, f"{times.max / 1e3:,.1f}"


def _faults(ledger: Ledger) -> Iterator[tuple[object, ...]]:
    by_kind: dict[str, list[Fault]] = {}
    for fault in ledger.faults:
        by_kind.setdefault(fault.kind, []).append(fault)
    met: set[int] = set()
    for kind, faults in sorted(by_kind.items()):
        there, elsewhere = 0.0, 0.0
        for number, turn in enumerate(ledger.standstills):
            for fault in faults:
                if turn.began <= fault.settled and turn.ended >= fault.began:
                    met.add(number)
                    took = turn.ended - turn.began
                    if turn.hub == fault.target:
                        there = max(there, took)
                    else:
                        elsewhere = max(elsewhere, took)
        yield kind, len(faults), f"{there:.1f}", f"{elsewhere:.1f}", f"{max(f.settled - f.began for f in faults):.1f}"
    calm = [turn.ended - turn.began for number, turn in enumerate(ledger.standstills) if number not in met]
    yield "no fault", "", "", f"{max(calm, default=0):.1f}", ""


def _bounds() -> str:
    told = {
        "rss": "RSS {share:.0%} and {mib:.0f} MiB",
        "files": "descriptors {share:.0%} and {amount:g}",
        "threads": "threads {amount:g}",
    }
    words = [
        told[what].format(share=bound.share, amount=bound.amount, mib=bound.amount / MIB)
        for what, bound in BOUNDS.items()
    ]
    return f"The last may be above the first by {', '.join(words)}; whose samples are too few is not judged (–)."


def _processes(outcome: Outcome) -> Iterator[tuple[object, ...]]:
    for life in sorted(outcome.lives, key=lambda one: (one.name, one.samples[0].at if one.samples else 0)):
        if not life.samples:
            continue
        cells = []
        for what, unit in (("rss", MIB), ("files", 1), ("threads", 1)):
            thirds = life.thirds(what, outcome.warm_up)
            most = f"most {life.worst(what) / unit:.0f}"
            cells.append(f"{thirds[0] / unit:.0f} → {thirds[1] / unit:.0f}, {most}" if thirds else f"–, {most}")
        held, lag = life.worst("held"), life.worst("lag")
        yield (
            life.name,
            life.pid,
            len(life.samples),
            *cells,
            "" if held is None else held // 1024,
            "" if lag is None else "beyond the scale" if isinf(lag) else f"{lag:g}",
        )


def _accounts(outcome: Outcome) -> Iterator[tuple[object, ...]]:
    for name, account in outcome.accounts.items():
        yield name, *(f"{value:.0f}" for value in account.values())


def _failures(ledger: Ledger) -> Iterator[str]:
    for failure in ledger.failures[:SHOWN]:
        yield f"- at {failure.at:.1f} s: {failure.what}"
        if failure.evidence:
            yield ""
            yield "  ```"
            yield from (f"  {line}" for line in failure.evidence)
            yield "  ```"
            yield ""
    if len(ledger.failures) > SHOWN:
        yield f"- and {len(ledger.failures) - SHOWN} more"
    yield ""
