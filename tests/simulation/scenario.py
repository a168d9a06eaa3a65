"""One seed, from the plan to the verdict."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .checks import AMPLE, Watch
from .cluster import START, Cluster
from .loop import World
from .plan import Plan, draw
from .processes import Files, simulated
from .verdict import Verdict

TAIL = 300.0  # seconds after the last fault within which every trip must have come to an end
SETTLE = 36.0  # seconds after the last trip until nothing may be left: lingering, reaping, closing
INSPECT_EVERY = 0.2


@dataclass(slots=True)
class Result:
    seed: int
    problems: list[str]
    fingerprint: str
    steps: int
    seconds: float  # virtual
    counts: Counter[str]


_files: Files | None = None


def files() -> Files:
    """Made once a process."""
    global _files
    if _files is None:
        _files = Files()
    return _files


def run(seed: int, show: Callable[[str], None] | None = None, plan: Plan | None = None) -> Result:
    """Runs a seed, or a plan made by hand."""
    plan = plan or draw(seed)
    if show is not None:
        show(plan.describe())
    world = World(seed, show)
    gc.disable()  # finalizers must not run at times of the collector's choice
    try:
        cluster = Cluster(plan, world, files())
        watch = Watch(cluster)
        with simulated(world, cluster.kernel, watch.on_log, plan.shape.moves_again):
            try:
                _run(cluster, watch)
            except Exception as exc:  # of the simulation itself
                if show is not None:
                    raise
                world.problem(f"simulation: {exc!r}")
            for process in (*cluster.processes.values(), *cluster.clones.values()):
                if process.running:
                    process.on_exit = None
                    for life in process.all:
                        life.loop.kill()
    finally:
        gc.enable()
        if seed % 8 == 0:
            gc.collect()
    return Result(seed, world.problems, world.fingerprint, world.steps, world.now - START, watch.counts)


def _run(cluster: Cluster, watch: Watch) -> None:
    world, plan = cluster.world, cluster.plan
    cluster.start()
    until = START
    deadline = START + plan.quiet_at + TAIL
    probed = False
    while until < START + plan.quiet_at or ((cluster.busy or not probed) and until < deadline and not world.problems):
        until += INSPECT_EVERY
        world.run(until)
        watch.inspect()
        # an agent whose client's hub is gone may hold the flow, and a budget with it, until its grace is over
        roomy = not cluster.busy or (
            plan.shape.least_memory >= AMPLE
            and (not cluster.clients.open or plan.shape.hub["limits"]["pending_opens_per_agent"] >= 16)
        )
        if until >= START + plan.quiet_at and not probed and world.now >= cluster.well_at and roomy:
            probed = True
            if plan.shape.mode in ("", "active"):
                cluster.probe()
    if world.problems:
        return
    world.note("all is over" if not cluster.busy else "time is over")
    world.run(until + SETTLE)
    Verdict(watch).judge()
