"""Two processes of one replica at once: one hands over to the other, and the cluster sees one hub all the time."""

from __future__ import annotations

import asyncio
import contextlib
import time

import orjson
import pytest
from support.until import until

from ncfast.observe.stats import Stats
from ncfast.registry.memory import MemoryRegistry
from registry.hubs import Hub, cluster, replica, run


@contextlib.asynccontextmanager
async def successor(net, url, predecessor):
    """The other process of the same hub, as far as the registry knows: it has adopted what was held."""
    heritage = orjson.loads(orjson.dumps(predecessor.registry.heritage()))
    hub = Hub(net, url, predecessor.replica.replica_id, predecessor.replica)
    hub.registry.adopt(heritage)
    await hub.registry.start()
    try:
        yield hub
    finally:
        await hub.registry.aclose()


async def says(hub, agent):
    return await hub.registry.get_owner(agent)


def seen(hub):
    """What another hub has seen of the agents since, and how often the set of hubs has changed."""
    return list(hub.agents), hub.replica_changes


def test_the_cluster_sees_one_hub_and_no_route_is_lost(url):
    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b") as (a, b):
            epoch = await a.claim("/site")
            await until(lambda: b.routes() == [("/site", "hub-a", epoch)] and b.agents, "the other sees it")
            before = seen(b)
            a.registry.quiet(True)
            async with successor(net, url, a) as heir:
                assert heir.routes() == [("/site", "hub-a", epoch)]
                a.registry.quiet(True, beats=False)
                second = await heir.claim("/site", epoch)
                await until(lambda: b.routes() == [("/site", "hub-a", second)], "the claim at the successor is seen")
                await until(lambda: a.view.agent("/site").epoch == second, "the predecessor hears of it")
                await a.registry.release("/site", epoch)
                await a.registry.aclose()
                assert await says(b, "/site") == ("hub-a", second)
                assert seen(b) == ([*before[0], "/site"], before[1])
                assert not a.fenced and not heir.fenced
                assert b.routes() == heir.routes() == [("/site", "hub-a", second)]

    run(main)


def test_who_has_adopted_an_agent_releases_it_when_it_is_told(url):
    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b") as (a, b):
            epoch = await a.claim("/site")
            await until(b.routes, "the other sees it")
            a.registry.quiet(True)
            async with successor(net, url, a) as heir:
                await a.registry.release("/site", epoch)  # its tunnel has ended: here nothing is said of that
                assert await says(b, "/site") == ("hub-a", epoch)
                await heir.registry.release("/site", epoch)
                await until(lambda: not b.routes(), "the route is gone")

    run(main)


def test_an_entry_that_goes_missing_is_asserted_by_the_successor(url, redis):
    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b") as (a, b):
            epoch = await a.claim("/site")
            await until(b.routes, "the other sees it")
            a.registry.quiet(True)
            async with successor(net, url, a) as heir:
                a.registry.quiet(True, beats=False)
                redis.client().flushall()
                await until(lambda: redis.client().dbsize(), "the hubs say again who they are")
                await b.registry.get_owner("/site")
                while await says(b, "/site") != ("hub-a", epoch):
                    await asyncio.sleep(0.02)
                assert heir.routes() == [("/site", "hub-a", epoch)]

    run(main)


def test_a_predecessor_that_takes_everything_back_asserts_it_again(url):
    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b") as (a, b):
            epoch, other = await a.claim("/site"), await a.claim("/plant")
            await until(lambda: len(b.routes()) == 2, "the other sees them")
            a.registry.quiet(True)
            async with successor(net, url, a) as heir:
                a.registry.quiet(True, beats=False)
                second = await heir.claim("/site", epoch)
                await until(lambda: a.view.agent("/site").epoch == second, "the predecessor hears of it")
            # in order, which is worse than a death: it has released all and left
            await until(lambda: not b.routes(), "they are gone with the successor")
            a.registry.quiet(False)
            await until(lambda: b.routes() == [("/plant", "hub-a", other)], "what is held is asserted")
            await until(lambda: "hub-a" in b.view.replicas, "the hub is there")
            # the agent is where nobody knows: its session here is asked to claim anew
            await until(lambda: [one.key for one in a.fenced] in ([], ["/site"]), "nothing else is fenced")

    run(main)


def test_what_was_lost_while_a_predecessor_was_quiet_is_asserted_when_it_takes_back(url, redis):
    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b") as (a, b):
            epoch = await a.claim("/site")
            await until(b.routes, "the other sees it")
            a.registry.quiet(True)  # its successor has not begun to speak
            before = a.registry._mirror.generation
            redis.client().flushall()
            await until(lambda: a.registry._mirror.generation != before, "it has heard that all is lost")
            await until(lambda: not b.routes(), "the other has waited for it in vain")
            a.registry.quiet(False)
            await until(lambda: b.routes() == [("/site", "hub-a", epoch)], "what is held is asserted")
            assert not a.fenced

    run(main)


def test_memory_adopts_too_and_epochs_go_on_above():
    async def main(net):
        one, clock = replica("hub-1"), time.time
        old = MemoryRegistry(one, net, Stats(), clock)
        epoch = await old.claim_ownership("acme/site", "hub-1", connectors=["ldap"], instance="aa", window=65536)
        heir = MemoryRegistry(one, net, Stats(), clock)
        adopted = heir.adopt(orjson.loads(orjson.dumps(old.heritage())))
        assert adopted == old.held() == heir.held()
        assert await heir.claim_ownership("acme/site", "hub-1") > epoch

    run(main)


def test_what_no_predecessor_says_is_refused():
    async def main(net):
        registry = MemoryRegistry(replica("hub-1"), net, Stats(), time.time)
        for heritage in ({}, {"agents": [{}]}, {"agents": [{"key": "/a", "owner": "x", "epoch": 1, "connectors": 3}]}):
            with pytest.raises(ValueError):
                registry.adopt(heritage)

    run(main)
