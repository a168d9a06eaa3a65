"""``python -m bench.profiles --before DIR --page docs/reports/profiles.md``: what a work costs hub and agent, and where
it goes, of an earlier state of the tree and of this one, one beside the other.

Shares are of ``perf``'s samples of one process; what a unit of the work costs is measured before, without ``perf``.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import service
from bench.load import load as carry
from bench.profile import LOADS, record, report, samples_of
from bench.report import machine
from bench.routes import add_before, routes

TOP = 15  # symbols of each process
SIDES = {"near": "hub", "far": "agent"}
TITLES = {
    "churn": ("Connections, 50 at a time", "a connection"),
    "pingpong": ("Ping-pong of 128 bytes, one flow", "a message"),
    "openloop": ("Sparse: 2,000 messages a second over 50 flows", "a message"),
    "download": ("One stream to the client", "a megabyte"),
}
ROW = re.compile(r"\s*([\d.]+%)\s+(?:\[[.k]\]\s+)?(.*?)\s*$")
PREFIX = re.compile(r"__pyx_(?:f|fuse_\d+f|pf|pw|tp_\w+?)_(?=\d)")  # Cython's; names with their lengths follow


@dataclass(frozen=True)
class Profile:
    """Of one work on one route: microseconds of CPU a unit, of both processes; what ``perf`` lists of each."""

    cost: float
    objects: dict[str, list[str]]
    symbols: dict[str, list[str]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profiles", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, metavar="DIR", help="a built tree of an earlier state")
    parser.add_argument("--seconds", type=int, default=10, help="of each work on each route")
    parser.add_argument("--page", type=Path, help="where the page goes; standard output, if it is not given")
    options = parser.parse_args()
    names = add_before(options.before, ["ncfast"])
    parts = [_head(options.seconds)]
    for work in TITLES:
        parts.append(_part(work, [_profile(work, name, options.seconds) for name in names]))
    text = "\n".join(parts)
    if options.page:
        options.page.write_text(text)
    else:
        print(text)
    return 0


def _profile(work: str, name: str, seconds: int) -> Profile:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ncfast-profile-")))
        target = stack.enter_context(service.echo(folder))
        (way,) = stack.enter_context(routes([name], target.address, folder))
        asked = LOADS.get(work, {})
        carry(work, way, 0.5, **asked)  # imports, caches, windows
        measured = carry(work, way, seconds, **asked)
        units = measured.bytes / 1e6 if work == "download" else measured.asked
        record(work, way, folder, seconds)
        roles = [role for role in SIDES if role in way.pids]
        return Profile(
            measured.route_cpu_sec / units * 1e6,
            {role: report(samples_of(folder, role), "dso")[:4] for role in roles},
            {role: report(samples_of(folder, role), "symbol,dso")[:TOP] for role in roles},
        )


def _head(seconds: int) -> str:
    on = machine()
    return f"""# Profiles

Where hub and agent spend their time, before the opening of a flow, the transport of its socket and what runs once a
turn were rebuilt, and now: the {TOP} symbols with the most samples of each process, and its objects. A share is of that
process's own samples, so one that grew may still cost less than before: above each table is what a unit costs both
processes together. `python -m bench.profiles --before DIR --page docs/reports/profiles.md` makes it anew, where `DIR`
is a built tree of the earlier state; it takes `perf`, and a quiet machine.

{on["cpus"]} CPUs ({on["cpu"]}), Linux {on["kernel"]}, Python {on["python"]}; {seconds} s of each, {on["when"]}.
"""


def _part(work: str, both: list[Profile]) -> str:
    title, unit = TITLES[work]
    before, now = both
    lines = [
        f"## {title}",
        "",
        f"CPU of both processes {unit}: {before.cost:,.0f} µs before, {now.cost:,.0f} µs now "
        f"({now.cost / before.cost:.2f} of it).",
        "",
    ]
    for role in now.symbols:
        side = SIDES[role]
        objects = ["; ".join(map(words, profile.objects[role])) for profile in both]
        lines += [f"| {side}, before | {side}, now |", "| --- | --- |", f"| **{objects[0]}** | **{objects[1]}** |"]
        pairs = zip(before.symbols[role], now.symbols[role], strict=False)
        lines += [f"| {words(one)} | {words(other)} |" for one, other in pairs]
        lines.append("")
    return "\n".join(lines)


def words(line: str) -> str:
    """``perf``'s line, without what says how an object was built."""
    found = ROW.match(line)
    if found is None:
        raise ValueError(f"no line of perf's: {line!r}")
    share, what = found.groups()
    what = re.sub(r"\.cpython-\S+", "", what).replace("[kernel.kallsyms]", "kernel")
    what = re.sub(r"\.so[.\d]*|\.(?:isra|part|constprop|cold)\.?\d*", "", what)
    symbol, _, where = what.rpartition("  ")
    if not symbol:
        return f"{share} {where.strip()}"
    return f"{share} `{_plain(symbol.strip())}` {where.strip()}"


def _plain(symbol: str) -> str:
    """Cython's ``__pyx_f_4core_4link_4Link__find`` as ``core.link.Link._find``; any other as it is."""
    prefix = PREFIX.match(symbol)
    if prefix is None:
        return symbol
    rest, names = symbol[prefix.end() :], []
    while length := re.match(r"\d+", rest):
        end = length.end() + int(length[0])
        if rest[end : end + 1] != "_":  # a method's index, not a length
            rest = rest[length.end() :]
            break
        names.append(rest[length.end() : end])
        rest = rest[end + 1 :]
    return ".".join([*names, rest])


if __name__ == "__main__":
    sys.exit(main())
