"""``python -m bench.plots``: how the cost of a message or a connection grows, drawn into ``docs/plots``.

Cost is CPU time of all processes of a route, in user space and kernel. Each point is the median of the rounds; within a
round the routes take turns. A route that does not carry a load has no point there.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import service
from bench.agents import fleet
from bench.cluster import cluster
from bench.idle import may_stand
from bench.load import Load, load
from bench.report import RESULTS
from bench.rig import ROOT, Address, Route, haproxy
from bench.routes import ROUTES, add_before, at_hand, comma_separated, routes
from bench.svg import chart
from bench.turns import tried

PLOTS = ROOT / "docs" / "plots"

Lines = dict[str, list[tuple[float, float]]]
"""Points by route: how much of what grows, and microseconds."""

FLOWS = (1, 10, 100, 1_000, 10_000)
FLOWS_RATE = 2_000  # messages a second over all of them
AGENTS = (1, 10, 100, 1_000)
RATES = (100, 300, 1_000, 2_000, 4_000, 8_000)  # connections a second
SIZES = (64, 256, 1_024, 4_096, 16_384, 65_536)  # bytes
WAITING = 500  # connections under way at most
CARRIED = 0.9  # of what was asked for in a time: below, the load was another


class Sweep:
    """What all plots have in common."""

    def __init__(self, names: Sequence[str], smoke: bool, folder: Path) -> None:
        self.names = [name for name in names if name != "direct"]  # it has no process
        self.smoke = smoke
        self.rounds = 1 if smoke else 3
        self.sec = 0.1 if smoke else 0.5
        self.folder = folder

    def points(self, ways: Sequence[Route], x: float, measure: Callable[[Route], Load], lines: Lines) -> None:
        """One more for each way that carries it in every round."""
        costs: dict[str, list[float]] = {way.name: [] for way in ways}
        for _ in range(self.rounds):
            for way in ways:
                if way.name not in costs:
                    continue
                done = tried(way.name, partial(measure, way))
                if done and done.carried:
                    costs[way.name].append(done.route_cpu_sec / done.asked * 1e6)
                else:
                    del costs[way.name]
        for name, values in costs.items():
            lines.setdefault(name, []).append((x, statistics.median(values)))


def by_flows(sweep: Sweep) -> Lines:
    lines: Lines = {}
    most = 20 if sweep.smoke else may_stand()
    for name in sweep.names:  # one route at a time: descriptors are few
        with service.echo(sweep.folder) as echo, routes([name], echo.address, sweep.folder / "flows") as ways:
            for flows in dict.fromkeys(min(flows, most) for flows in FLOWS):
                measure = partial(load, "openloop", sec=sweep.sec, flows=flows, rate=FLOWS_RATE)
                sweep.points(ways, flows, measure, lines)
    return lines


def by_rate(sweep: Sweep) -> Lines:
    lines: Lines = {}
    with service.echo(sweep.folder) as echo, routes(sweep.names, echo.address, sweep.folder / "rate") as ways:
        for rate in RATES:

            def measure(way: Route, rate: int = rate) -> Load:
                done = load("churn", way, sweep.sec, flows=WAITING, rate=rate)
                return done if done.count >= CARRIED * rate * sweep.sec else done.refused()

            sweep.points(ways, rate, measure, lines)
    return lines


def by_size(sweep: Sweep) -> Lines:
    lines: Lines = {}
    with service.echo(sweep.folder) as echo, routes(sweep.names, echo.address, sweep.folder / "size") as ways:
        for size in SIZES:
            sweep.points(ways, size, partial(load, "pingpong", sec=sweep.sec, size=size), lines)
    return lines


def by_agents(sweep: Sweep) -> Lines:
    lines: Lines = {}
    counts = AGENTS[: 2 if sweep.smoke else None]
    with service.echo(sweep.folder) as echo, routes(sweep.names, echo.address, sweep.folder / "agents") as ways:
        for way in ways:
            if way.hub is None:
                continue
            stands = 1
            with ExitStack() as stack:
                for count in counts:
                    if count > stands:
                        place = sweep.folder / f"{way.name}-fleet-{count}"
                        stack.enter_context(fleet(way.hub, count - stands, place, first=stands))
                        stands = count
                    sweep.points([way], count, partial(load, "churn", sec=sweep.sec, flows=50), lines)
    return lines


def by_hops(sweep: Sweep) -> Lines:
    """Processes on the way: HAProxy one to three, hub and agent, and a hub more between them."""
    lines: Lines = {}
    with ExitStack() as stack:
        echo = stack.enter_context(service.echo(sweep.folder))
        made = stack.enter_context(cluster(echo.address, sweep.folder))
        owner, _, origin = made.settled()
        pids = {"owner": owner.pid, "agent": made.agent.pid}
        ways = {
            ("ncfast", 2): Route("ncfast", owner.address, pids),
            ("ncfast", 3): Route("ncfast", origin.address, {"origin": origin.pid, **pids}),
        }
        for hops in 1, 2, 3:
            ways["haproxy", hops] = stack.enter_context(_chain(hops, echo.address, sweep.folder))
        for (_, hops), way in ways.items():
            sweep.points([way], hops, partial(load, "pingpong", sec=sweep.sec), lines)
    return lines


def _chain(hops: int, address: Address, folder: Path):
    place = folder / f"chain-{hops}"
    place.mkdir()
    return haproxy("haproxy", address, place, hops=hops)


TITLES = {
    "flows": (f"Messages, {FLOWS_RATE:,} a second over all flows", "flows", "CPU us a message"),
    "rate": ("Connections: connect, 128 bytes and their echo, close", "connections a second", "CPU us a connection"),
    "size": ("Messages of one flow and their echo", "bytes of a message", "CPU us a message"),
    "agents": ("Connections to one agent while others are idle", "agents", "CPU us a connection"),
    "hops": ("Messages of one flow, 128 bytes and their echo", "processes on the way", "CPU us a message"),
}


SWEEPS: dict[str, Callable[[Sweep], Lines]] = {
    "flows": by_flows,
    "rate": by_rate,
    "size": by_size,
    "agents": by_agents,
    "hops": by_hops,
}


def draw(measured: dict[str, Lines], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, lines in measured.items():
        ours_first = {name: lines[name] for name in sorted(lines, key=lambda name: name != "ncfast")}
        (folder / f"{name}.svg").write_text(chart(*TITLES[name], ours_first))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description=__doc__)
    parser.add_argument("--before", type=Path, metavar="DIR", help="a built tree of an earlier state, as one more line")
    parser.add_argument(
        "--routes", type=comma_separated(ROUTES), metavar="NAMES", help="comma-separated (default: all at hand)"
    )
    parser.add_argument("--only", type=comma_separated(SWEEPS), metavar="NAMES", help="of them; the others are kept")
    parser.add_argument("--smoke", action="store_true", help="the least work that runs every line")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw what an earlier run has kept, measure nothing")
    parser.add_argument("--output", type=Path, default=PLOTS, help="folder for the plots")
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw.read_text()), options.output)
        return 0
    names = options.routes or (["haproxy", "ncfast"] if options.smoke else at_hand())
    if options.before:
        names = add_before(options.before, names)
    kept = (options.output if options.smoke else RESULTS) / "plots.json"
    kept.parent.mkdir(exist_ok=True)
    measured = json.loads(kept.read_text()) if options.only and kept.exists() else {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that every child is reaped
    for name in options.only or SWEEPS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="ncfast-plots-") as folder:
            measured[name] = SWEEPS[name](Sweep(names, options.smoke, Path(folder)))
        print(f"{name}, {time.monotonic() - started:.0f} s: {measured[name]}", file=sys.stderr, flush=True)
        kept.write_text(json.dumps(measured))  # what is measured stays, whatever becomes of the others
        draw({name: measured[name]}, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
