"""What the objectives forbid. Beside each fault clients are served as ever: a share needs the whole."""

from __future__ import annotations

from collections.abc import Iterator

from .fault import fault
from .stage import Stage


@fault(NcfastMeshSlow=("RTT",))
def mesh_slow(stage: Stage) -> Iterator[None]:
    """Every byte between two hubs takes 30 ms."""
    owner, _, third = stage.settle()
    doors = [stage.cluster.proxies["mesh", name] for name in stage.cluster.names]
    for door in doors:
        door.shape(delay=0.03)
    yield
    for door in doors:
        door.shape()


@fault(NcfastCrossReplicaShare=("flows_by_path", "mesh"))
def clients_elsewhere(stage: Stage) -> Iterator[None]:
    """Clients come to a hub that has not the agent; afterwards to the one that has."""
    owner, _, third = stage.settle()
    with stage.again(lambda: stage.visit(third), pause=0.05):
        yield
    stage.run_on(lambda: stage.visit(owner))


@fault(
    NcfastBudgetBurnsFast=("flows_closed", "hold_timeout"),
    NcfastBudgetBurnsSlowly=("flows_closed", "hold_timeout"),
)
def many_refused(stage: Stage) -> Iterator[None]:
    """A site of two is down, and its clients are refused; those of the other are served, then and afterwards."""
    owner, _, third = stage.settle()
    lonely = {"name": "lonely", "bind": f"{stage.address(third)[0]}:0", "connector": "lonely", "hold_sec": 0.1}
    stage.run_on(lambda: stage.visit(owner))
    listeners = [*stage.cluster.hubs[third].config["listeners"], lonely]
    with stage.restarted(third, {"listeners": listeners}), stage.again(lambda: stage.refused(third, "lonely")):
        yield
