"""A session as a page of Markdown, with plots in a folder beside it."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ldap import plots
from bench.ldap.faults import FAULTS
from bench.ldap.load import OPERATIONS, Felt, Load
from bench.ldap.run import STYLES, Hit, Steady
from bench.ldap.ways import WAYS

SLOW_MS = 100.0  # an operation that took longer is told of in the faults' table


@dataclass(frozen=True)
class Session:
    """All that is reported; ``broken`` is what was over its budget."""

    command: str
    load: Load
    budgets: str
    broken: list[str]
    environment: dict[str, Any]
    runs: Sequence[Steady | Hit]


def write(path: Path, session: Session) -> None:
    """The page, and its plots in a folder of its name."""
    folder = path.with_suffix("")
    steady = [run for run in session.runs if isinstance(run, Steady)]
    hits = [run for run in session.runs if isinstance(run, Hit)]
    lines = [
        "# LDAP: what clients feel",
        "",
        *_head(session),
        *(["## Ways", "", *_ways(steady), *_plot(folder, plots.percentiles(folder, steady))] if steady else []),
        *(["## Faults", "", *_faults(session.load, hits)] if hits else []),
    ]
    for hit in hits:
        lines += [
            f"### {hit.fault}",
            "",
            *_prose(FAULTS[hit.fault].what),
            "",
            *_plot(folder, plots.timeline(folder, hit)),
        ]
    lines += ["## The generator", "", *_generator(session.runs)]
    path.write_text("\n".join(lines))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], words: int = 1) -> Iterator[str]:
    """The first columns are ``words``, the others numbers."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * words + " ---: |" * (len(head) - words)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"
    yield ""


def _prose(words: str, bullet: str = "") -> Iterator[str]:
    yield from textwrap.wrap(words, 120, initial_indent=bullet, subsequent_indent=" " * len(bullet))


def _head(session: Session) -> Iterator[str]:
    load, about = session.load, session.environment
    mix = ", ".join(f"{name} {share}" for name, share in load.mix.items())
    yield f"**{'over the budget' if session.broken else 'within the budget'}**: {session.budgets}."
    yield ""
    for words in session.broken:
        yield from _prose(words, "- ")
    yield from ("" for _ in session.broken[:1])
    yield from ("```sh", session.command, "```", "")
    yield from _table(
        ("load", ""),
        (
            ("operations a second, by a timetable", f"{load.rate:g}"),
            ("seconds of a run, after a warm-up", f"{load.sec:g}, {load.warm_sec:g}"),
            ("mix", mix),
            ("connections, where they are kept", load.connections),
            ("an operation fails after", f"{load.limit_sec:g} s"),
        ),
    )
    yield from _table(
        ("environment", ""),
        (
            ("when", about["when"]),
            ("machine", f"{about['cpus']} CPUs ({about['cpu']}), Linux {about['kernel']}"),
            ("load average of 1, 5, 15 minutes, at the beginning", _averages(about["load"])),
            ("the same at the end", _averages(os.getloadavg())),
            ("niceness of all that ran, and of its session", f"{os.nice(0)}, {_session_niceness()}"),
            ("ncfast, Python", f"{about['ncfast']}, {about['python']}"),
            ("slapd", about["slapd"]),
            ("Redis", about["programs"]["redis"]),
        ),
    )


def _session_niceness() -> str:
    """That of the kernel's autogroup, which sched(7) says counts between sessions; the last word of the file."""
    path = Path("/proc/self/autogroup")
    return path.read_text().split()[-1] if path.exists() else "none"


def _averages(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _ways(runs: Sequence[Steady]) -> Iterator[str]:
    yield "Milliseconds from when an operation was due to its answer; connecting and binding count where it has to."
    yield ""
    for name, words in WAYS.items():
        if any(run.way == name for run in runs):
            yield from _prose(f"*{name}*: {words}", "- ")
    for style, title in STYLES.items():
        chosen = [run for run in runs if run.style == style]
        if not chosen:
            continue
        yield from ("", f"### {title[0].upper()}{title[1:]}", "")
        yield from _table(
            ("way", "asked", "failed", "errors, %", "p50", "p95", "p99", "p99.9", "max"),
            ((run.way, *_felt(run.felt)) for run in chosen),
        )
        named = [name for name in OPERATIONS if any(run.felt.operations[name].count for run in chosen)]
        yield from _table(
            ("p50, p99 of", *named),
            ((run.way, *(_both(run.felt, name) for name in named)) for run in chosen),
        )


def _felt(felt: Felt) -> tuple[str, ...]:
    every = felt.every
    times = (*(every.ms(share) for share in (0.5, 0.95, 0.99, 0.999)), every.max / 1e3)
    return (
        f"{felt.asked:,}",
        f"{felt.failed:,}",
        f"{felt.errors_percent:.2f}",
        *(f"{one:,.2f}" for one in times),
    )


def _both(felt: Felt, name: str) -> str:
    one = felt.operations[name]
    return f"{one.ms(0.5):,.2f}, {one.ms(0.99):,.2f}" if one.count else ""


def _faults(load: Load, hits: Sequence[Hit]) -> Iterator[str]:
    yield from _prose(
        "A quarter of a run passes before the fault; what it took away is started again when two thirds have. Clients "
        "that keep connections and clients that make one for each operation are there together, "
        f"{load.rate:g} operations a second each. An operation that fails is not tried again."
    )
    yield ""
    rows = []
    for hit in hits:
        for style, felt in hit.felt.items():
            every = felt.every
            slow = sum(times for value, times in every.buckets if value > SLOW_MS * 1e3)
            rows.append(
                (
                    hit.fault,
                    STYLES[style],
                    f"{felt.asked:,}",
                    f"{felt.failed}{f' ({felt.why})' if felt.failed else ''}",
                    sum(felt.dropped.values()),
                    f"{slow:,}",
                    *(f"{one:,.1f}" for one in (every.ms(0.5), every.ms(0.99), every.max / 1e3)),
                )
            )
    head = ("fault", "clients", "asked", "failed", "resting connections lost", f"over {SLOW_MS:g} ms")
    yield from _table((*head, "p50, ms", "p99", "longest"), rows, words=2)
    for hit in hits:
        if words := FAULTS[hit.fault].announced:
            yield from _prose(f'*{hit.fault}* may lose clients: "{words}" (README). It is not held against the budget.')
            yield ""


def _plot(folder: Path, name: str) -> Iterator[str]:
    yield f"![{name}]({folder.name}/{name}.svg)"
    yield ""
    yield f"The same as [PNG]({folder.name}/{name}.png)."
    yield ""


def _generator(runs: Sequence[Steady | Hit]) -> Iterator[str]:
    yield from _prose(
        "How late it saw that an operation was due, which counts in all figures above, and its share of one CPU. Where "
        "these are large beside the figures, the machine was too busy for them."
    )
    yield ""
    every = [(run.name, run.felt) for run in runs if isinstance(run, Steady)]
    for run in runs:
        if isinstance(run, Hit):
            every += [(f"{run.fault}, {STYLES[style]}", felt) for style, felt in run.felt.items()]
    yield from _table(
        ("run", "late, p50, ms", "p99", "max", "CPU, %"),
        (
            (
                name,
                *(f"{one:.2f}" for one in (felt.lateness.ms(0.5), felt.lateness.ms(0.99), felt.lateness.max / 1e3)),
                f"{100 * felt.cpu_sec / (felt.load.sec + felt.load.warm_sec):.1f}",
            )
            for name, felt in every
        ),
    )
