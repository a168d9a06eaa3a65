"""Locks in Redis: a word said at one hub is known at all, outlives Redis, and is over when its time is."""

from __future__ import annotations

import time

import pytest
import redis as redis_py
from support.until import until

from ncfast.registry import Locks
from ncfast.registry.locks import MOST, Lock, lock_body, read_lock
from ncfast.registry.redis.scripts import KeySpace
from registry.hubs import Hub, cluster, run

LOCKS = KeySpace("ncfast").prefix + "locks"


def lockable(hubs: list[Hub]) -> list[Hub]:
    """Each hub with a table, as `ncfast.hub` gives it one."""
    for hub in hubs:
        hub.locks = hub.registry.locks = Locks(time.time)
    return hubs


def say(hub: Hub, key: str = "/site", seconds: float = 600) -> Lock:
    lock = hub.locks.say(key, seconds, "why")
    hub.registry.spread(lock)
    return lock


def everywhere(hubs: list[Hub], key: str = "/site"):
    return lambda: all(key in hub.locks for hub in hubs)


def nowhere(hubs: list[Hub], key: str = "/site"):
    return lambda: not any(key in hub.locks for hub in hubs)


def test_a_lock_is_known_at_all_hubs_and_lifted_at_all(url):
    async def main(net):
        async with cluster(net, url, lease_sec=60) as hubs:
            a, b, _ = lockable(hubs)
            lock = say(a)
            await until(everywhere(hubs), "locked")
            assert b.locks.get("/site") == lock
            b.registry.spread(b.locks.lift("/site"))
            await until(nowhere(hubs), "lifted")

    run(main)


def test_a_lock_taken_while_redis_is_away_is_written_when_it_is_back(url, redis):
    async def main(net):
        async with cluster(net, url) as hubs:
            a, *_ = lockable(hubs)
            redis.stop()
            await until(lambda: not any(hub.healthy for hub in hubs), "away")
            say(a)
            assert "/site" in a.locks and nowhere(hubs[1:])()
            redis.start()
            await until(everywhere(hubs), "locked")

    run(main)


def test_redis_forgets_and_the_hubs_do_not(url, redis):
    async def main(net):
        async with cluster(net, url) as hubs:
            a, b, _ = lockable(hubs)
            say(a)
            say(a, "/lifted")
            await until(everywhere(hubs), "locked")
            a.registry.spread(a.locks.lift("/lifted"))
            await until(nowhere(hubs, "/lifted"), "lifted")
            with redis_py.Redis(host=redis.address[0], port=redis.address[1]) as client:
                client.delete(LOCKS)
                await until(lambda: client.hlen(LOCKS) == 2, "both words are there again")
            assert "/site" in b.locks and "/lifted" not in b.locks

    run(main)


def test_words_that_are_over_or_that_nobody_says_are_swept_out(url, redis):
    async def main(net):
        async with cluster(net, url) as hubs:
            lockable(hubs)
            now = int(time.time())
            words = {
                "/over": b"%d\n%b" % (now * 10**6, lock_body(Lock("", now - 1, 0))),
                "/ahead": b"%d\n%b" % (2**62, lock_body(Lock("", now + 60, 0))),
                "/rubbish": b"\xff",
                "no-agent": b"5\n" + lock_body(Lock("", now + 60, 0)),
            }
            with redis_py.Redis(host=redis.address[0], port=redis.address[1]) as client:
                client.hset(LOCKS, mapping=words)
                client.hset(LOCKS, "/site", b"5\n" + lock_body(Lock("", now + 600, 0)))
                await until(lambda: client.hkeys(LOCKS) == [b"/site"], "swept")
            await until(everywhere(hubs), "an honest word counts")
            assert all(len(hub.locks.words()) == 1 for hub in hubs)

    run(main)


def test_the_registry_cannot_fill_the_table_for_operators():
    locks = Locks(lambda: 1_800_000_000.0)
    for number in range(MOST + 10):
        locks.take(Lock(f"/{number}", 1_800_000_060, 1))
    assert len(locks.words()) == MOST
    locks.say("/site", 60)
    assert "/site" in locks


@pytest.mark.parametrize(
    "record",
    [b"", b"5", b"5\n", b"5\n[]", b"x\n{}", b'5\n{"until":1.5,"reason":"","lifted":false}', b'5\n{"until":1}'],
)
def test_a_record_that_is_none_reads_as_none(record):
    assert read_lock("/site", record) is None
