"""What hubs do while Redis is away, frozen, empty, slow, or deaf, and how soon all is well again."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fault_proxy import FaultProxy
from support.redis_server import RedisServer
from support.until import PATIENCE, until

from ncfast.registry.redis.scripts import MARGIN
from registry.hubs import Hub, cluster, run

RESTARTS = int(os.environ.get("RESTARTS", "25"))
CALLERS = int(os.environ.get("CALLERS", "10000"))


@pytest.fixture
def proxy(tmp_path: Path, redis: RedisServer) -> Iterator[FaultProxy]:
    one = FaultProxy(tmp_path, redis.address)
    yield one
    one.stop()


@pytest.fixture
def through(proxy: FaultProxy) -> str:
    return f"redis://{proxy.address[0]}:{proxy.address[1]}"


def freeze(redis: RedisServer) -> None:
    redis.freeze()
    stat = Path(f"/proc/{redis.program.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)


async def outside(work, *arguments):
    """Blocking work of the test's own, off the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def all_healthy(hubs: list[Hub]):
    return lambda: all(hub.healthy and hub.view.fresh for hub in hubs)


def sockets() -> int:
    """Without those of what is garbage: what a test before left would be missed in the middle of the next."""
    gc.collect()
    return sum(
        os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        for name in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{name}")
    )


def test_frozen_redis(url, redis):
    async def main(net):
        async with cluster(net, url) as hubs:
            a, b, c = hubs
            first = await a.claim("/site")
            await until(lambda: b.routes() and c.routes(), "claimed")
            for _ in range(3):
                freeze(redis)
                await until(lambda: not any(hub.healthy or hub.view.fresh for hub in hubs), "unhealthy")
                asked = b.stats.registry_commands
                second = await b.claim("/site", first)
                assert second > first and b.stats.registry_commands == asked  # the breaker is open: nobody waits
                redis.thaw()
                await until(all_healthy(hubs), "healthy")
                await until(
                    lambda second=second: [one.routes() for one in hubs] == [[("/site", "hub-b", second)]] * 3,
                    "asserted",
                )
                first = await a.claim("/site")
                assert first > second
                await until(lambda: b.fenced, "the old owner is told")
                b.fenced.clear()
            assert not c.fenced

    run(main)


def test_a_claim_into_a_freeze_is_answered_soon(url, redis):
    async def main(net):
        async with cluster(net, url) as hubs:
            a, b, c = hubs
            freeze(redis)
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
                claims = [group.create_task(hub.claim(f"/site-{i}", i)) for i in range(50) for hub in hubs]
            epochs = [claim.result() for claim in claims]
            for i in range(50):  # three hubs cut off from each other, and no epoch twice
                assert len(set(epochs[3 * i : 3 * i + 3])) == 3
            redis.thaw()
            await until(all_healthy(hubs), "healthy")
            await until(lambda: all(len(hub.routes()) == 50 for hub in hubs), "each agent has one owner")
            newest = {f"/site-{i}": max(epochs[3 * i : 3 * i + 3]) for i in range(50)}
            await until(
                lambda: all({key: hub.view.agent(key).epoch for key in newest} == newest for hub in hubs), "the newest"
            )
            await until(lambda: len(a.fenced) + len(b.fenced) + len(c.fenced) == 100, "the others are fenced")

    run(main)


@pytest.mark.parametrize("how", ["frozen", "restarted empty"])
def test_the_last_view_stands_while_redis_comes_and_goes(url, redis, how):
    """In no moment an agent, or the hub that holds it, is missing: those who route by the view find it all the time."""

    async def main(net):
        async with cluster(net, url, lease_sec=60) as hubs:
            epochs = [await hub.claim(f"/site-{name}") for name, hub in zip("abc", hubs, strict=True)]
            whole = [(f"/site-{name}", f"hub-{name}", epoch) for name, epoch in zip("abc", epochs, strict=True)]
            await until(lambda: all(hub.routes() == whole for hub in hubs), "claimed")
            wrong = []

            def watch(hub: Hub) -> None:
                def look(*_: object) -> None:
                    if hub.routes() != whole:
                        wrong.append((hub.replica.replica_id, hub.routes()))

                hub.registry.on_agents = hub.registry.on_replicas = look

            for hub in hubs:
                watch(hub)
            for _ in range(5):
                if how == "frozen":
                    freeze(redis)
                else:
                    redis.kill()
                await until(lambda: not any(hub.healthy for hub in hubs), "unhealthy")
                assert [hub.routes() for hub in hubs] == [whole] * 3
                if how == "frozen":
                    redis.thaw()
                else:
                    await outside(redis.start)
                await until(all_healthy(hubs), "healthy")
            assert not wrong and [hub.routes() for hub in hubs] == [whole] * 3

    run(main)


def test_redis_killed_and_restarted_empty(url, redis):
    async def main(net):
        async with cluster(net, url) as hubs:
            a, b, c = hubs
            epochs = {}
            for number in range(20):
                epochs[f"/site-{number}"] = await hubs[number % 3].claim(f"/site-{number}")
            await until(lambda: all(len(hub.routes()) == 20 for hub in hubs), "claimed")
            before = sockets()
            for number in range(RESTARTS):
                redis.kill()
                if number % 5 == 0:
                    await until(lambda: not any(hub.healthy for hub in hubs), "unhealthy")
                    key = f"/site-{number % 20}"
                    epoch = await hubs[number % 3].claim(key, 0)
                    assert epoch > epochs[key]
                    epochs[key] = epoch
                await outside(redis.start)
                await until(all_healthy(hubs), f"healthy after restart {number}")
                expected = sorted(epochs.items())
                await until(
                    lambda expected=expected: all(
                        [(one[0], one[2]) for one in hub.routes()] == expected for hub in hubs
                    ),
                    "held agents are asserted with their epochs",
                )
                key = f"/site-{(number * 7) % 20}"
                epoch = await hubs[(number + 1) % 3].claim(key, 0)
                assert epoch > epochs[key], "epochs rise although Redis forgot them"
                epochs[key] = epoch
                assert all(set(hub.view.replicas) == {"hub-a", "hub-b", "hub-c"} for hub in hubs)
            await until(lambda: sockets() == before, "no socket is left over")

    run(main)


def test_routes_survive_the_restart_of_redis_without_a_gap(url, redis):
    """Data that was lost is put back by its owners; what the others route by stays for so long."""

    async def main(net):
        async with cluster(net, url) as (a, b, _):
            await a.claim("/site")
            await until(lambda: b.routes(), "claimed")
            redis.kill()
            await outside(redis.start)
            missing = 0
            await until(lambda: b.view.fresh, "fresh again")
            for _ in range(300):
                missing += not b.routes()
                await asyncio.sleep(0.005)
            assert not missing

    run(main)


def test_flushall_without_a_lost_connection(url, redis):
    async def main(net):
        async with cluster(net, url, lease_sec=1, redis_timeout_sec=10) as hubs:
            a, b, c = hubs
            last = 0
            for number in range(12):
                epoch = await hubs[number % 3].claim("/site", last if number % 2 else 0)
                assert epoch > last
                last = epoch
                with redis.client() as client:
                    client.flushall()
                    client.script_flush()
                await asyncio.sleep(0.02)  # each loss leaves a margin of a millisecond above the clock
            await until(lambda: all(hub.routes() == [("/site", "hub-c", last)] for hub in hubs), "asserted")
            assert all(entry.epoch < last for entry in c.fenced)
            assert not any(hub.stats.registry_errors for hub in hubs)

    run(main)


def test_script_flush_between_calls(url, redis):
    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b", redis_timeout_sec=10) as (a, b):
            with redis.client() as client:
                last = 0
                for number in range(200):
                    client.script_flush()
                    epoch = await (a, b)[number % 2].claim("/site")
                    assert epoch == last + 1 or not last
                    last = epoch
            assert not a.stats.registry_errors and a.stats.claims == {"redis": 100}

    run(main)


def test_missed_notices_are_read_within_seconds(url, redis):
    """Subscribers are cut again and again under 1,000 changes."""

    async def main(net):
        async with cluster(net, url) as hubs:
            a, b, c = hubs
            with redis.client() as client:
                for number in range(1000):
                    if number % 50 == 0:
                        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                    await hubs[number % 3].claim(f"/site-{number % 100}")
                truth = {f"/site-{number % 100}": f"hub-{'abc'[number % 3]}" for number in range(1000)}
                await until(
                    lambda: all({one[0]: one[1] for one in hub.routes()} == truth for hub in hubs),
                    "all see the truth",
                )
            await until(lambda: all(hub.registry.snapshot()["notices"] for hub in hubs), "subscribed again")

    run(main)


def test_cancelled_callers_never_mix_up_replies(through, proxy):
    """30 % of callers are cancelled while 50 ms lie between us and Redis; each reply is its caller's own, and no claim
    that nobody waits for any more stays in the registry."""

    async def main(net):
        async with cluster(net, through, "hub-a", "hub-b", redis_timeout_sec=10, lease_sec=300) as (a, b):
            await outside(lambda: proxy.shape("both", delay=0.025))
            count, wrong, cancelled = CALLERS, 0, 0
            ahead = int(time.time() * 1e6) + 10**12  # of whatever Redis would begin with, and nothing to be disbelieved

            async def ask(number):
                nonlocal wrong
                key = f"t{number % 50}/site-{number}"
                at_least = number * 10_000 + ahead
                epoch = await a.claim(key, at_least)
                wrong += epoch != at_least + MARGIN + 1
                owner = await a.registry.get_owner(key)
                wrong += owner != ("hub-a", epoch)
                await a.registry.release(key, epoch)

            waiting = set()
            for number in range(count):
                task = net.spawn(ask(number), "ask")
                waiting.add(task)
                if net.rng.random() < 0.3:
                    net.call_later(net.rng.random() * 0.15, task.cancel)
                if len(waiting) >= 2000:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    cancelled += sum(one.cancelled() for one in done)
            done, _ = await asyncio.wait(waiting)
            cancelled += sum(one.cancelled() for one in done)
            assert not wrong
            assert cancelled > 0.1 * count
            assert not a.stats.registry_errors and not b.stats.registry_errors
            assert a.stats.claims["memory"] == 0
            for key, entry in list(a.registry._held.items()):  # held by callers cancelled after the claim, as by a hub
                await a.registry.release(key, entry.epoch)
            await until(lambda: not a.registry._claiming and not a.registry._courier._queue, "nothing waits")
            await until(lambda: not a.view.agents and not b.view.agents, "no claim is left that nobody wants")
            await outside(lambda: proxy.shape("both"))

    run(main)


def test_slow_redis(through, proxy):
    """Five seconds of latency: as if it were down, and nobody waits longer than two timeouts."""

    async def main(net):
        async with cluster(net, through, "hub-a", "hub-b") as hubs:
            await outside(lambda: proxy.shape("both", delay=2.5))
            await until(lambda: not any(hub.healthy for hub in hubs), "unhealthy")
            await hubs[0].claim("/site")
            assert hubs[0].stats.claims == {"memory": 1}, "answered without Redis"
            await outside(lambda: proxy.shape("both"))
            await until(all_healthy(hubs), "healthy")  # what was on its way comes late and is of no interest

    run(main)


def test_one_hub_is_cut_off(url, through, proxy):
    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b", lease_sec=1) as (a, b):
            cut = Hub(net, through, "hub-x", lease_sec=1)
            await cut.registry.start()
            try:
                epoch = await cut.claim("/site")
                await cut.claim("/other")
                await until(lambda: len(a.routes()) == 2, "claimed")
                await outside(lambda: proxy.fault("silence"))
                await outside(lambda: proxy.fault("down"))
                await until(lambda: not cut.healthy, "unhealthy")
                await until(lambda: not a.routes() and "hub-x" not in b.view.replicas, "its lease ends")
                newer = await b.claim("/site", epoch)  # the agent has moved on
                for _ in range(3):
                    a.registry.send(a.registry._sweeper.round())
                    await asyncio.sleep(0.6)
                assert a.view.agent("/other") is None
                assert not cut.fenced
                await outside(proxy.up)
                await until(lambda: cut.fenced, "it learns that it is not the owner any more")
                assert cut.fenced[0].epoch == newer
                await until(
                    lambda: [one[0] for one in b.routes()] == ["/other", "/site"], "what it still holds is back"
                )
                await until(lambda: a.healthy and b.healthy and cut.healthy, "all three are well")
            finally:
                await cut.registry.aclose()

    run(main)


def test_a_start_without_redis_does_not_wait(url, redis):
    async def main(net):
        redis.kill()
        hub = Hub(net, url, "hub-a")
        async with asyncio.timeout(PATIENCE):
            await hub.registry.start()
        assert not hub.healthy and not hub.view.fresh
        epoch = await hub.claim("/site", 41)
        assert epoch > 41 and hub.view.agent("/site").epoch == epoch
        await outside(redis.start)
        await until(lambda: hub.healthy, "healthy")
        await until(lambda: hub.routes(), "asserted")
        assert await hub.registry.get_owner("/site") == ("hub-a", epoch)
        freeze(redis)
        async with asyncio.timeout(PATIENCE):
            await hub.registry.aclose()  # nobody answers: it goes nevertheless
        redis.thaw()

    run(main)


def test_a_process_that_was_frozen_learns_what_it_lost(url):
    """SIGSTOP of a hub longer than its lease: simulated by a loop that stands still."""

    async def main(net):
        async with cluster(net, url, "hub-a", "hub-b", lease_sec=1) as (a, b):
            await b.claim("/site")
            await until(lambda: a.routes(), "claimed")
            time.sleep(1.5)
            assert not a.view.fresh and not a.healthy
            await until(all_healthy([a, b]), "healthy")
            await until(lambda: a.routes(), "routes are back")

    run(main)
