"""Idle agents: what a thousand tunnels without a flow do to the flows of another agent, and what they cost the hub.

They are the product's own, in one process (`tests/support/fleet_program.py`), whose CPU counts for nobody.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench import service
from bench.idle import idle_cpu, may_stand, round_trips
from bench.load import load
from bench.metric import Metric, Sample, Values
from bench.process import resident_bytes, running
from bench.rig import ROOT, HubAt
from bench.routes import TLS, routes
from bench.scale import Scale
from bench.turns import carried
from ncfast.auth import mint

HUBS = ("before", "ncfast")  # the routes that have agents
PACE = 200  # that start in a second
START_SEC = 60.0

METRICS = (
    Metric("hub", "KiB/agent", "lower"),
    Metric("cpu while idle", "ms/s", "lower"),
    Metric("rtt p50 beside, of alone", "", "lower"),
    Metric("rtt p99 beside, of alone", "", "lower"),
    Metric("cpu of a connection beside, of alone", "", "lower"),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    may_stand()
    for turn in range(scale.rounds):
        for name in names:
            if name.removesuffix(TLS) in HUBS:
                yield turn, name, carried(name, METRICS, partial(measure, name, scale, folder / f"{turn}"))


def measure(name: str, scale: Scale, folder: Path) -> Values:
    folder.mkdir(exist_ok=True)
    with service.echo(folder) as echo, routes([name], echo.address, folder) as (way,):
        assert way.hub is not None
        load("churn", way, scale.load_sec, flows=50)
        churn = load("churn", way, scale.load_sec, flows=50)
        alone, resident = round_trips(way, scale), resident_bytes(way.pids["near"])
        with fleet(way.hub, scale.idle_agents, folder / f"{name}-fleet"):
            beside = round_trips(way, scale)
            more = load("churn", way, scale.load_sec, flows=50)
            return {
                "hub": (resident_bytes(way.pids["near"]) - resident) / scale.idle_agents / 1024,
                "cpu while idle": idle_cpu(way, scale.load_sec),
                "rtt p50 beside, of alone": beside[0] / alone[0],
                "rtt p99 beside, of alone": beside[1] / alone[1],
                "cpu of a connection beside, of alone": more.route_cpu_sec
                / more.asked
                / (churn.route_cpu_sec / churn.asked),
            }


@contextmanager
def fleet(hub: HubAt, count: int, folder: Path, first: int = 0) -> Iterator[None]:
    """So many more agents, numbered from ``first``, once the last has been started. They offer what nobody asks for."""
    folder.mkdir(mode=0o700)
    agents = []
    for number in range(first, first + count):
        name = f"idle-{number}"
        token = folder / name
        token.write_text(mint(hub.key.encode(), name, connectors=["idle"]))
        token.chmod(0o600)
        connectors = [{"name": "idle", "target": "127.0.0.1:1"}]
        agents.append({"hubs": [hub.url], "agent_id": name, "token_file": str(token), "connectors": connectors})
    config = folder / "fleet.json"
    config.write_text(json.dumps({"pace": PACE, "agents": agents}))
    argv = [sys.executable, "-m", "support.fleet_program", str(config)]
    with running(argv, folder / "log", cwd=ROOT / "tests", path=ROOT) as process:
        process.wait_for(lambda line: line == str(count) or None, START_SEC)
        yield
