"""Partitions in real networks: each hub and Redis in a namespace of its own, with a router between that swallows what
it should carry, or a plug that is pulled. Nobody is told; silence is all there is. The agent is with the services,
here."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from support.bystander import Bystander
from support.cluster import Cluster
from support.ldap import LdapConversation, LdapLoop
from support.namespaces import Namespaces
from support.peer import Peer, is_refused
from support.transfer import MIB, Transfer, strike
from support.until import wait_until

CLUSTER = {"places": Namespaces, "security": "secret", "listener": {"hold_sec": 1}}


@pytest.fixture
def places(cluster: Cluster) -> Namespaces:
    assert isinstance(cluster.places, Namespaces)
    return cluster.places


@pytest.mark.parametrize("way", ["both ways", "to the owner", "from the owner"])
def test_between_two_hubs(cluster: Cluster, places: Namespaces, peer: Peer, tmp_path: Path, way: str) -> None:
    """The flows between the two wait, every other goes on, and new ones are not sent into the void; healed, all go
    on."""
    owner, standby, third = cluster.wait_settled()
    grants = cluster.grants()
    with ExitStack() as running:
        beside = running.enter_context(Bystander(cluster.door(owner), peer))
        other = running.enter_context(LdapLoop(cluster.address(standby, "ldap"), standby))
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        far = running.enter_context(Transfer(peer, cluster.address(third), f"through {third}"))
        one, two = (owner, third) if way == "from the owner" else (third, owner)
        strike(lambda: places.partition(one, two, both_ways=way == "both ways"), far)
        wait_until(
            lambda: not cluster.linked(third, owner) and not cluster.linked(owner, third), "the link lost at both ends"
        )
        beside.goes_on()
        other.goes_on()
        places.heal()
        wait_until(lambda: cluster.linked(third, owner) and cluster.linked(owner, third), "the link back")
        talk.ask()
        far.wait_withheld()
        with LdapLoop(cluster.address(third, "ldap"), third):
            pass
    assert cluster.line_of(third, far)["resumes"] >= 1
    assert cluster.grants() == grants, "a partition between hubs moved the agent"


def test_hub_without_any_peer(cluster: Cluster, places: Namespaces, peer: Peer) -> None:
    """Cut off from both other hubs, and from nothing else: it says so, and its clients of other hubs' agents are not
    served."""
    owner, standby, third = cluster.wait_settled()
    with LdapLoop(cluster.address(third, "ldap"), third, may_fail=True) as search:
        for other in (owner, standby):
            places.partition(third, other)
        cluster.wait_degraded(third, "mesh_missing")
        assert is_refused(cluster.address(third))
        places.heal()
        cluster.wait_ready()
        search.goes_on()


def test_between_the_owner_and_redis(cluster: Cluster, places: Namespaces, peer: Peer, tmp_path: Path) -> None:
    owner, standby, third = cluster.wait_settled()
    with ExitStack() as running:
        local = running.enter_context(LdapLoop(cluster.address(owner, "ldap"), owner))
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        far = running.enter_context(Transfer(peer, cluster.address(third), f"through {third}"))
        strike(lambda: places.partition(owner, "redis"), far)
        cluster.wait_degraded(owner, "registry_unhealthy")
        wait_until(lambda: owner not in cluster.replicas(third), f"{owner}'s lease to run out at {third}")
        local.goes_on()
        talk.ask()
        far.wait_withheld()
        places.heal()
        cluster.wait_settled()
        talk.ask()
    with LdapLoop(cluster.address(third, "ldap"), third):
        pass


def test_between_the_agent_and_its_owner(cluster: Cluster, places: Namespaces, peer: Peer, tmp_path: Path) -> None:
    """The old owner lives, with Redis and its peers, and hears of the new one from them before it misses its agent."""
    owner, standby, third = cluster.wait_settled()
    before = cluster.epochs()
    with ExitStack() as running:
        running.enter_context(LdapLoop(cluster.address(third, "ldap"), third, may_fail=True))
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        far = running.enter_context(Transfer(peer, cluster.address(third), f"through {third}"))
        cluster.away.add(owner)
        strike(lambda: places.partition("here", owner), far)
        assert cluster.wait_owner(other_than=owner) == standby
        talk.ask()
        far.wait_withheld()
        places.heal()
        cluster.away.discard(owner)
        cluster.wait_settled()
        talk.ask()
    assert cluster.epochs()[len(before)] > before[-1]
    assert cluster.wait_owner() == standby
    assert cluster.line_of(third, far)["resumes"] >= 1


def test_owner_unplugged(cluster: Cluster, places: Namespaces, peer: Peer, tmp_path: Path) -> None:
    """Tunnel, mesh and Redis are all lost at once, and without a word. Plugged in again it is a stale owner."""
    owner, standby, third = cluster.wait_settled()
    before = cluster.epochs()
    with ExitStack() as running:
        running.enter_context(LdapLoop(cluster.address(third, "ldap"), third, may_fail=True))
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        far, near = (
            running.enter_context(Transfer(peer, cluster.address(name), f"through {name}")) for name in (third, standby)
        )
        cluster.away.add(owner)
        strike(lambda: places.unplug(owner), far, near)
        assert cluster.wait_owner(other_than=owner) == standby
        talk.ask()
        for transfer in (far, near):
            transfer.wait_withheld()
        places.heal()
        cluster.away.discard(owner)
        cluster.wait_settled()
        talk.ask()
    assert cluster.epochs()[len(before)] > before[-1]
    assert cluster.wait_owner() == standby
    for name, transfer in ((third, far), (standby, near)):
        assert cluster.line_of(name, transfer)["resumes"] >= 1
    with Transfer(peer, cluster.address(owner), f"through {owner}", 20 * MIB):
        pass
