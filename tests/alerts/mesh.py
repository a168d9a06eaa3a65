"""Faults between the hubs."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

from support.until import PATIENCE, wait_until

from .fault import fault
from .stage import MIB, Stage


@fault(NcfastMeshLinkMissing=("mesh_link_down", "unreachable"))
def link_cut(stage: Stage) -> Iterator[None]:
    """Nothing comes through between two hubs."""
    owner, _, third = stage.settle()
    doors = [stage.cluster.proxies["mesh", name] for name in (owner, third)]  # either may dial the other
    for door in doors:
        door.fault("down")
    yield
    for door in doors:
        door.up()
    wait_until(lambda: stage.cluster.linked(owner, third), "the link")


@fault(NcfastMeshFlapping=("RECONNECTS", "mesh_link_down"))
def link_reset(stage: Stage) -> Iterator[None]:
    """The link between two hubs is reset every second."""
    owner, _, third = stage.settle()
    doors = [stage.cluster.proxies["mesh", name] for name in (owner, third)]  # whichever has dialled the other
    with stage.again(lambda: [door.fault("rst") for door in doors], pause=1):
        yield


@fault(NcfastMeshDrops=("mesh_backpressure_drops", "queue"))
def link_too_slow(stage: Stage) -> Iterator[None]:
    """Links with room for 64 KiB take 256 KiB a second, and downloads cross them."""
    _, _, third = stage.settle()
    cluster = stage.cluster
    small = {"ha": {"mesh": {"per_link_max_inflight_bytes": 65536, "send_queue_depth": 16}}}
    doors = [cluster.proxies["mesh", name] for name in cluster.names]
    with ExitStack() as stack:
        for name in cluster.names:
            stack.enter_context(stage.reloaded(name, small))
        for door in doors:
            door.fault("rst")  # what is reloaded counts for links that are made from then on
            door.shape(trickle=256 * 1024)
        stage.settle()
        for _ in range(4):
            client = stack.enter_context(closing(stage.pull(third, 64 * MIB)))
            stack.enter_context(stage.again(lambda client=client: client.recv(MIB), pause=0))
        yield
        for door in doors:
            door.shape()
            door.fault("rst")
    for door in doors:
        door.fault("rst")


@fault(NcfastEpochMismatch=("owner_epoch_mismatch",))
def stale_view(stage: Stage) -> Iterator[None]:
    """A hub is cut from Redis, the agent comes back to its own under a new epoch, and a client comes to the first."""
    owner, _, third = stage.settle()
    cluster = stage.cluster
    registry = cluster.proxies["redis", third]
    doors = [cluster.proxies["tunnel", name] for name in cluster.names if name != owner]
    for door in (registry, *doors):
        door.fault("down")
    stage.wait_reasons(third, "registry_unhealthy")
    before = cluster.grants()
    cluster.proxies["tunnel", owner].fault("rst")
    cluster.wait_grant(before)
    with suppress(OSError, AssertionError), closing(stage.talk(third)):
        pass
    yield
    for door in (registry, *doors):
        door.up()


@fault(NcfastMeshStrangers=("mesh_refused",))
def strangers(stage: Stage) -> Iterator[None]:
    """Somebody without a certificate knocks at a hub's mesh port."""
    _, _, third = stage.settle()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def knock() -> None:
        with (
            suppress(OSError),
            socket.create_connection(stage.cluster.mesh_address(third), timeout=PATIENCE) as raw,
            context.wrap_socket(raw) as sock,
        ):
            sock.recv(1)

    with stage.again(knock):
        yield


@fault(NcfastNoStandby=("nowconnect_agents_standby",))
def one_hub_in_reach(stage: Stage) -> Iterator[None]:
    """The agent reaches one hub of three."""
    owner, _, _ = stage.settle()
    doors = [stage.cluster.proxies["tunnel", name] for name in stage.cluster.names if name != owner]
    for door in doors:
        door.fault("down")
    yield
    for door in doors:
        door.up()


@fault(NcfastShadowDisagrees=("shadow_decisions_total", "mesh"))
def shadow(stage: Stage) -> Iterator[None]:
    """The hubs are in shadow mode, and a client comes to one that has not the agent."""
    _, _, third = stage.settle()
    _turn(stage, "shadow")
    wait_until(lambda: stage.cluster.routes(third), "the agent known there")
    stage.refused(third)
    yield
    _turn(stage, "active")


def _turn(stage: Stage, mode: str) -> None:
    for hub in stage.cluster.hubs.values():
        hub.config["ha"]["mode"] = mode
        assert hub.reload(hub.config)
