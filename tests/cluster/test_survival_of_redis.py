"""Redis dies, freezes, or comes back empty: what stands goes on, local flows open, and the cluster finds itself
again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.cluster import Cluster
from support.ldap import LdapConversation, LdapLoop
from support.ncfast_process import merged
from support.peer import Peer, is_refused
from support.transfer import Transfer, strike
from support.until import wait_until

CLUSTER = {"proxied": ("tunnel", "redis"), "listener": {"hold_sec": 1}}
UNHEALTHY = "registry_unhealthy"


DEFAULT = "last_view"
FLAPS = 5


def turn_to(cluster: Cluster, key: str) -> None:
    """`ha.without_redis` of all hubs, by SIGHUP."""
    for hub in cluster.hubs.values():
        hub.config = merged(hub.config, {"ha": {"without_redis": key}})
        assert hub.reload(hub.config)


@pytest.fixture(params=["last_view", "local_only"])
def without_redis(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """Both values of the key, in force."""
    turn_to(cluster, request.param)
    yield request.param
    turn_to(cluster, DEFAULT)


def take(cluster: Cluster, how: str) -> None:
    redis = cluster.redis
    assert redis is not None
    (redis.kill if how == "killed" else redis.freeze)()


def give_back(cluster: Cluster, how: str) -> None:
    """Killed, it comes back empty."""
    redis = cluster.redis
    assert redis is not None
    (redis.start if how == "killed" else redis.thaw)()


def wait_away(cluster: Cluster) -> None:
    """Until every hub has noticed."""
    for name in cluster.names:
        cluster.wait_degraded(name, UNHEALTHY)


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_redis_lost(cluster: Cluster, peer: Peer, tmp_path: Path, how: str, without_redis: str) -> None:
    """Degraded and 200; local searches all succeed, transfers across hubs go on; new ones across hubs are served by the
    last view, or refused, as the key says; the tunnel is cut meanwhile, and resumes need no Redis. Killed, Redis comes
    back empty, and the epochs rise all the same."""
    owner, standby, third = cluster.wait_settled()
    epochs = cluster.epochs()
    with ExitStack() as running:
        cross = running.enter_context(LdapLoop(cluster.address(third, "ldap"), third, may_fail=True))
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        far, near = (
            running.enter_context(Transfer(peer, cluster.address(name), f"through {name}")) for name in (third, owner)
        )
        with LdapLoop(cluster.address(owner, "ldap"), owner):
            strike(lambda: take(cluster, how), far, near)
            wait_away(cluster)
            talk.ask()
            if without_redis == "last_view":
                cross.goes_on(5)
                assert not cross.failed
            else:
                wait_until(lambda: is_refused(cluster.address(third)), "an open across hubs refused")
                wait_until(lambda: cross.failed, "a search across hubs refused")
        far.wait_withheld()

        cluster.proxies["tunnel", owner].fault("rst")
        during = cluster.wait_grant(len(epochs))
        talk.ask()
        new_owner = cluster.wait_owner()
        assert cluster.hubs[new_owner].metric_by("nowconnect_ownership_claims_total")["memory",] >= 1

        give_back(cluster, how)
        cluster.wait_settled()
        cross.goes_on(2)
    assert during > epochs[-1]
    for name, transfer in ((third, far), (owner, near)):
        assert cluster.line_of(name, transfer)["resumes"] >= 1

    grants = cluster.grants()
    cluster.proxies["tunnel", cluster.wait_owner()].fault("rst")
    assert cluster.wait_grant(grants) > during
    cluster.wait_settled()
    with LdapLoop(cluster.address(cluster.wait_owner(), "ldap")), LdapLoop(cluster.address(third, "ldap")):
        pass


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_redis_comes_and_goes(cluster: Cluster, how: str) -> None:
    """Nobody is refused, at whichever hub: before an outage is noticed, in it, and while the hubs find Redis again."""
    cluster.wait_settled()
    with ExitStack() as running:
        searches = [running.enter_context(LdapLoop(cluster.address(name, "ldap"), name)) for name in cluster.names]
        for _ in range(FLAPS):
            take(cluster, how)
            wait_away(cluster)
            for search in searches:
                search.goes_on()
            give_back(cluster, how)
            cluster.wait_ready()
            for search in searches:
                search.goes_on()


def test_a_hub_that_starts_while_redis_is_away(cluster: Cluster) -> None:
    """It has no last view: the clients of other hubs' agents wait in vain, and are served when Redis is back."""
    _, _, third = cluster.wait_settled()
    take(cluster, "killed")
    wait_away(cluster)
    cluster.kill(third)
    cluster.start(third)
    cluster.wait_degraded(third, UNHEALTHY)
    assert is_refused(cluster.address(third))
    give_back(cluster, "killed")
    cluster.wait_settled()
    with LdapLoop(cluster.address(third, "ldap"), third):
        pass


def test_owner_killed_while_redis_is_dead(cluster: Cluster, peer: Peer, tmp_path: Path) -> None:
    """The claim is granted from memory, above what the agent remembers, and the flows of other hubs go on over the
    mesh."""
    owner, standby, third = cluster.wait_settled()
    epochs = cluster.epochs()
    with ExitStack() as running:
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        far, near = (
            running.enter_context(Transfer(peer, cluster.address(name), f"through {name}")) for name in (third, standby)
        )
        for transfer in (far, near):
            transfer.wait_under_way()
        take(cluster, "killed")
        wait_away(cluster)
        strike(lambda: cluster.kill(owner), far, near)
        assert cluster.wait_owner(other_than=owner) == standby
        talk.ask()
        for transfer in (far, near):
            transfer.wait_withheld()
        with LdapLoop(cluster.address(standby, "ldap"), standby):
            pass
        give_back(cluster, "killed")
        cluster.start(owner)
        cluster.wait_settled()
        talk.ask()
    assert cluster.epochs()[len(epochs)] > epochs[-1]
    with LdapLoop(cluster.address(third, "ldap"), third):
        pass


def test_redis_emptied_under_the_cluster(cluster: Cluster, peer: Peer) -> None:
    """FLUSHALL: nobody is told. What is asserted again by its holders is enough for new flows and for higher epochs."""
    assert cluster.redis is not None
    owner, _, third = cluster.wait_settled()
    epochs = cluster.epochs()
    with LdapLoop(cluster.address(owner, "ldap"), owner), Transfer(peer, cluster.address(third), third) as far:
        with cluster.redis.client() as client:
            strike(client.flushall, far)
        cluster.proxies["tunnel", owner].fault("rst")
        assert cluster.wait_grant(len(epochs)) > epochs[-1]
        cluster.wait_settled()
    with LdapLoop(cluster.address(third, "ldap"), third) as search:
        search.goes_on()


def test_one_hub_loses_redis(cluster: Cluster, peer: Peer, tmp_path: Path) -> None:
    """The owner cannot reach Redis and the others can: it alone is degraded, and still serves; its lease runs out, and
    it has its agent back afterwards without a gap in what was under way."""
    owner, _, third = cluster.wait_settled()
    with ExitStack() as running:
        local = running.enter_context(LdapLoop(cluster.address(owner, "ldap"), owner))
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        far = running.enter_context(Transfer(peer, cluster.address(third), f"through {third}"))
        proxy = cluster.proxies["redis", owner]
        strike(proxy.freeze, far)
        cluster.wait_degraded(owner, UNHEALTHY)
        for name in cluster.names:
            if name != owner:
                assert cluster.readiness(name)[0] == 200
                wait_until(
                    lambda name=name: owner not in cluster.replicas(name), f"{owner}'s lease to run out at {name}"
                )
        talk.ask()
        local.goes_on()
        far.wait_withheld()
        proxy.thaw()
        cluster.wait_settled()
        talk.ask()
    with LdapLoop(cluster.address(third, "ldap"), third):
        pass


def test_slow_redis_delays_no_client(cluster: Cluster, peer: Peer) -> None:
    """Each command takes longer than it may: local clients are served, and readiness says what is missing."""
    owner, _, _ = cluster.wait_settled()
    proxy = cluster.proxies["redis", owner]
    with LdapLoop(cluster.address(owner, "ldap"), owner) as local:
        proxy.shape("down", delay=5)
        cluster.wait_degraded(owner, UNHEALTHY)
        local.goes_on(5)
        proxy.shape()
        cluster.wait_ready()
