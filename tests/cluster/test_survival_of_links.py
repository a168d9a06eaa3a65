"""A tunnel or a mesh link is lost, by a reset or in silence, while transfers and searches run through hubs that do not
own the agent: no byte is lost, and who does not use the link does not notice."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from support.bystander import Bystander
from support.cluster import Cluster
from support.ldap import LdapConversation, LdapLoop
from support.peer import Peer
from support.transfer import MIB, Transfer, strike
from support.until import wait_until

CLUSTER = {"proxied": ("tunnel", "mesh")}


@pytest.mark.parametrize("kind", ["rst", "silence", "drop_up", "drop_down"])
def test_tunnel_lost(cluster: Cluster, peer: Peer, tmp_path: Path, kind: str) -> None:
    """The agent claims over its standby and resumes towards both origins: one that is now another hub than the owner,
    and the old owner, whose client goes on through the mesh."""
    owner, standby, third = cluster.wait_settled()
    before = cluster.grants()
    with ExitStack() as running:
        running.enter_context(LdapLoop(cluster.address(third, "ldap"), third))
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        far = running.enter_context(Transfer(peer, cluster.address(third), f"through {third}"))
        near = running.enter_context(Transfer(peer, cluster.address(owner), f"through {owner}"))
        strike(lambda: cluster.proxies["tunnel", owner].fault(kind), far, near)
        cluster.wait_grant(before)
        talk.ask()
        for transfer in (far, near):
            transfer.wait_withheld()
    assert cluster.wait_owner() == standby
    assert cluster.line_of(third, far)["resumes"] >= 1
    assert cluster.line_of(owner, near)["resumes"] >= 1


@pytest.mark.parametrize("kind", ["rst", "silence", "drop_up", "drop_down"])
def test_mesh_link_lost(cluster: Cluster, peer: Peer, tmp_path: Path, kind: str) -> None:
    """The origin resumes over the next link; the agent keeps its epoch, and a flow at the owner does not notice."""
    owner, standby, third = cluster.wait_settled()
    before = cluster.grants()
    reconnects = came_back(cluster, owner, third)
    with ExitStack() as running:
        beside = running.enter_context(Bystander(cluster.door(owner), peer))
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        running.enter_context(LdapLoop(cluster.address(third, "ldap"), third))
        far = running.enter_context(Transfer(peer, cluster.address(third), f"through {third}"))
        strike(lambda: cluster.mesh_proxy(owner, third).fault(kind), far)
        beside.goes_on()
        wait_until(lambda: came_back(cluster, owner, third) > reconnects, "a link that came back")
        talk.ask()
        far.wait_withheld()
    line = cluster.line_of(third, far)
    assert line["resumes"] >= 1 and line["path"] == "mesh", line
    assert cluster.grants() == before, "the tunnel was not the fault's"
    assert cluster.wait_owner() == owner


def test_tunnel_and_mesh_link_cut_again_and_again(cluster: Cluster, peer: Peer) -> None:
    """A transfer and a conversation across eight cuts of both kinds, one right after the other."""
    _, _, third = cluster.wait_settled()
    resumes = cluster.hubs[third].metric("nowconnect_flows_resumed_total")
    with (
        Bystander(cluster.door(third), peer) as across,
        Transfer(peer, cluster.address(third), f"through {third}") as far,
    ):
        far.wait_under_way()
        far.surge()
        for turn in range(4):
            before, owner = cluster.grants(), cluster.wait_owner()
            proxies = [cluster.proxies["tunnel", owner], cluster.mesh_proxy(owner, third)]
            for proxy in proxies if turn % 2 else reversed(proxies):
                proxy.fault("rst")
            cluster.wait_grant(before)
            across.goes_on()
    assert cluster.hubs[third].metric("nowconnect_flows_resumed_total") >= resumes + 8


def test_slow_and_sliced_mesh_link(cluster: Cluster, peer: Peer) -> None:
    """Frames come in pieces of any size, and late; a flow at the owner does not wait for them."""
    owner, standby, third = cluster.wait_settled()
    proxy = cluster.mesh_proxy(owner, third)
    with Bystander(cluster.door(owner), peer) as beside:
        with Transfer(peer, cluster.address(third), f"through {third}", 16 * MIB) as far:
            proxy.shape("up", slice=997)
            proxy.shape("down", delay=0.02)
            far.wait_moved(2 * MIB)
            beside.goes_on()
        proxy.shape()


def came_back(cluster: Cluster, *names: str) -> float:
    """Reconnects of these hubs' links; of two the one that has noticed the loss first counts it."""
    return sum(cluster.hubs[name].metric("nowconnect_mesh_link_reconnects_total") for name in names)
