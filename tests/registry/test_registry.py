"""Hubs on one Redis: claims, routes, leases, drains, tenants."""

from __future__ import annotations

import asyncio

import pytest
from support.until import until

from ncfast.registry.entry import body_of
from registry.hubs import Hub, cluster, run


def test_a_claim_is_seen_by_all(url):
    async def main(net):
        async with cluster(net, url) as (a, b, c):
            epoch = await a.claim("/site", 0, "ldap", "sql")
            assert a.routes() == [("/site", "hub-a", epoch)]
            await until(lambda: b.routes() == c.routes("sql") == [("/site", "hub-a", epoch)], "the others see it")
            entry = b.view.agent("/site")
            assert (entry.tenant, entry.agent_id, entry.instance, entry.window, entry.connectors) == (
                None,
                "site",
                "aa",
                4096,
                frozenset({"ldap", "sql"}),
            )
            assert await c.registry.get_owner("/site") == ("hub-a", epoch)
            assert "/site" in b.agents
            assert not b.fenced

    run(main)


def test_the_newest_claim_wins_and_the_old_owner_is_told(url):
    async def main(net):
        async with cluster(net, url) as (a, b, c):
            first = await a.claim("/site")
            second = await b.claim("/site", first)
            assert second > first
            await until(lambda: a.fenced, "the old owner is fenced")
            assert (a.fenced[0].owner, a.fenced[0].epoch) == ("hub-b", second)
            await a.registry.release("/site", first)
            await a.registry.add_connectors("/site", ["sql"], epoch=first)
            assert await c.registry.get_owner("/site") == ("hub-b", second)
            assert not b.fenced

    run(main)


def test_epochs_rise_for_each_agent_over_all_hubs(url):
    async def main(net):
        async with cluster(net, url) as hubs:
            last = {}
            for number in range(60):
                for key in ("/site", "acme/site", "globex/site"):
                    epoch = await hubs[net.rng.randrange(3)].claim(key, last.get(key, 0) if number % 3 else 0)
                    assert epoch > last.get(key, 0)
                    last[key] = epoch

    run(main)


def test_concurrent_claims_get_different_epochs_and_one_owner(url):
    async def main(net):
        async with cluster(net, url) as hubs:
            async with asyncio.TaskGroup() as group:
                claims = [group.create_task(hub.claim("/site")) for hub in hubs for _ in range(50)]
            epochs = [claim.result() for claim in claims]
            assert len(set(epochs)) == 150
            newest = max(epochs)
            for hub in hubs:
                await until(lambda hub=hub: [one[2] for one in hub.routes()] == [newest], "one owner, the newest")

    run(main)


def test_connectors_are_replaced_and_draining_agents_are_not_routed_to(url):
    async def main(net):
        async with cluster(net, url) as (a, b, _):
            epoch = await a.claim("/site", 0, "ldap")
            await a.registry.add_connectors("/site", ["sql", "smtp"], epoch=epoch)
            await until(lambda: b.routes("sql") and b.routes("smtp") and not b.routes("ldap"), "the new list")
            assert [entry.key for entry in await b.registry.list_agents("sql")] == ["/site"]
            await a.registry.add_connectors("/site", ["sql"], epoch=epoch, draining=True)
            await until(lambda: not b.routes("sql"), "a draining agent takes nothing new")
            assert b.view.agent("/site").draining

    run(main)


def test_release_takes_the_entry_and_leaves_the_epoch(url):
    async def main(net):
        async with cluster(net, url) as (a, b, _):
            epoch = await a.claim("/site")
            await until(lambda: b.routes(), "claimed")
            await a.registry.release("/site", epoch)
            assert not a.routes()
            await until(lambda: not b.routes(), "released")
            assert await b.registry.get_owner("/site") is None
            assert await b.claim("/site") == epoch + 1

    run(main)


def test_tenants_are_name_spaces(url):
    async def main(net):
        async with cluster(net, url) as (a, b, _):
            await a.claim("acme/site")
            await b.claim("globex/site")
            await until(lambda: a.view.agent("globex/site") and b.view.agent("acme/site"), "both known")
            assert [one[:2] for one in a.routes(tenant="acme")] == [("acme/site", "hub-a")]
            assert [one[:2] for one in a.routes(tenant="globex")] == [("globex/site", "hub-b")]
            assert a.routes() == []
            assert await a.registry.list_agents("ldap", "initech") == []

    run(main)


def test_a_draining_hub_is_routed_around(url):
    async def main(net):
        async with cluster(net, url) as (a, b, _):
            await a.claim("/site")
            await until(lambda: b.routes(), "claimed")
            await a.registry.set_draining()
            await until(lambda: not b.routes(), "nothing new for a hub that drains")
            assert b.view.replica("hub-a").draining
            assert b.replica_changes

    run(main)


def test_a_hub_that_leaves_takes_its_entries_along(url):
    async def main(net):
        async with cluster(net, url) as (a, b, c):
            for number in range(300):
                await a.claim(f"/site-{number}")
            await until(lambda: len(b.view.agents) == 300, "claimed")
            await a.registry.aclose()
            await until(lambda: not b.view.agents and set(c.view.replicas) == {"hub-b", "hub-c"}, "left")

    run(main)


def test_a_late_hub_sees_all(url):
    async def main(net):
        async with cluster(net, url) as (a, b, _):
            for number in range(1700):  # several pages
                await (a, b)[number % 2].claim(f"/site-{number}")
            late = Hub(net, url, "hub-d")
            await late.registry.start()
            try:
                await until(lambda: late.view.fresh, "the picture is complete")
                assert len(late.view.agents) == 1700 and len(late.routes()) == 1700
                assert set(late.view.replicas) == {"hub-a", "hub-b", "hub-c", "hub-d"}
            finally:
                await late.registry.aclose()

    run(main)


def test_a_hub_that_dies_is_gone_after_its_lease_and_swept(url):
    async def main(net):
        async with cluster(net, url, lease_sec=1) as (a, b, c):
            epoch = await a.claim("/site")
            await until(lambda: b.routes(), "claimed")
            a.registry._courier._task.cancel()  # as SIGKILL leaves it: nobody renews, nobody says goodbye
            a.registry._sweeper.stop()
            await until(lambda: not b.routes() and "hub-a" not in c.view.replicas, "the lease ends")
            assert b.registry.presences["hub-a"].left < 0
            for hub in (b, c):  # two sweepers at once, two strikes each
                hub.registry._sweeper.stop()
                hub.registry.send(hub.registry._sweeper.round())
                assert await hub.registry.get_owner("/site") == ("hub-a", epoch)
            for _ in range(2):  # first the presence, then the agent
                for hub in (b, c):
                    hub.registry.send(hub.registry._sweeper.round())
                await until(lambda: all("hub-a" not in hub.registry.presences for hub in (b, c)), "no presence is left")
            await until(lambda: all(hub.view.agent("/site") is None for hub in (b, c)), "no agent is left")
            assert await b.registry.get_owner("/site") is None

    run(main)


def test_of_two_hubs_with_one_name_the_newer_stays(url, capfd):
    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b", lease_sec=1) as (a, b):
            twin = Hub(net, url, "hub-a", lease_sec=1)
            await twin.registry.start()
            await until(lambda: a.registry.snapshot()["displaced"], "the older is told")
            await until(lambda: twin.healthy and b.healthy and not a.healthy, "it alone is unwell")
            await until(lambda: b.view.replica("hub-a").instance == twin.replica.instance, "the others see the newer")
            await asyncio.sleep(1)
            assert a.registry.snapshot()["displaced"] and not twin.registry.snapshot()["displaced"]
            await twin.registry.aclose()
            await until(lambda: a.healthy, "the older is alone again")

    run(main)


def test_nothing_is_asked_for_an_open(url, redis):
    async def main(net):
        async with cluster(net, url) as (a, b, c):
            await a.claim("/site")
            await until(lambda: b.routes() and c.routes(), "claimed")
            before = b.stats.registry_commands, redis.commands()
            for _ in range(10_000):
                assert b.view.fresh and b.view.routes(None, "ldap") and b.view.replica("hub-a")
            assert b.stats.registry_commands == before[0]
            assert redis.commands().get("evalsha") == before[1].get("evalsha")

    run(main)


@pytest.mark.parametrize("at_least", [-1, 2**52, 2**53 - 1, 2**53, 2**63])
def test_an_epoch_out_of_bounds_is_refused(url, at_least):
    async def main(net):
        async with cluster(net, url, "hub-a") as (a,):
            with pytest.raises(ValueError):
                await a.claim("/site", at_least)
            assert await a.claim("/site") < a.registry.claimable()

    run(main)


def test_what_was_granted_at_the_bound_is_below_it_a_moment_later(url):
    """On all hubs: the bound goes with the server's clock, and epochs do not."""

    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b") as (a, b):
            first = await a.claim("/site", a.registry.claimable())
            assert first <= a.registry.possible()
            await until(lambda: first <= min(a.registry.claimable(), b.registry.claimable()), "the clock has gone on")
            assert await b.claim("/site", first) == first + 1
            assert await a.claim("/site", 0) == first + 2
            await until(lambda: b.routes() == a.routes() == [("/site", "hub-a", first + 2)], "both know")

    run(main)


@pytest.mark.parametrize(
    "epoch", ["poison", "9007199254740991", "9007199254740992", "9" * 40, "3" * 16, "-7", "0x7", ""]
)
@pytest.mark.parametrize("held", [False, True])
def test_an_epoch_that_was_poisoned_in_redis_counts_as_absent(url, redis, epoch, held):
    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b") as (a, b):
            before = await a.claim("/site")
            if not held:
                await a.registry.release("/site", before)
            with redis.client() as client:
                client.hset("ncfast:{ncfast}:epochs", "/site", epoch)
            after = await b.claim("/site", before)
            assert before < after < b.registry.claimable()
            assert await a.claim("/site", after) == after + 1

    run(main)


@pytest.mark.parametrize("epoch", ["9007199254740991", "9" * 40, "3" * 16, "-7", "poison"])
def test_a_record_that_was_poisoned_in_redis_fences_nobody_and_is_written_again(url, redis, epoch):
    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b") as (a, b):
            held = await a.claim("/site")
            await until(lambda: b.routes() == [("/site", "hub-a", held)], "known")
            good = await a.registry.get_owner("/site")
            poison = f"{epoch}\nhub-b\n{b.replica.instance}\n".encode() + body_of(b.view.agent("/site"))
            with redis.client() as client:
                client.hset("ncfast:{ncfast}:agents", "/site", poison)
                version = client.hincrby("ncfast:{ncfast}:meta", "version", 1)
                client.zadd("ncfast:{ncfast}:changes", {"/site": version})
                generation = client.hget("ncfast:{ncfast}:meta", "generation").encode()
                client.publish("ncfast:{ncfast}:notices", b"agent\n%b\n%d\n/site\n%b" % (generation, version, poison))
                await until(lambda: client.hget("ncfast:{ncfast}:agents", "/site") != poison.decode(), "written again")
            await until(lambda: b.routes() == a.routes() == [("/site", "hub-a", held)], "known again")
            assert await b.registry.get_owner("/site") == good
            assert not a.fenced and not b.fenced
            assert await b.claim("/site", held) == held + 1

    run(main)
