"""The Lua scripts, and the model that the simulation has in their place: the same replies, notices and data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis.crc import key_slot
from support.places import Loopback
from support.redis_server import RedisServer

from ncfast.core.epochs import LARGEST, claimable, possible
from ncfast.registry.entry import AgentEntry, body_of
from ncfast.registry.redis.backend import Call
from ncfast.registry.redis.scripts import (
    ASSERT,
    BEAT,
    CLAIM,
    FORGET_LOCK,
    KEYS,
    LEAVE,
    LOCK,
    LOCKS,
    MARGIN,
    OWNER,
    PRUNE_AGENT,
    PRUNE_REPLICA,
    RELEASE,
    SCRIPTS,
    SHA,
    TIDY,
    KeySpace,
    Script,
)
from registry.model import Data

SPACE = KeySpace("test")
CLOCK = "test:now"  # where the scripts under test find the time
NOW = 1_700_000_000_000  # ms
BODY = body_of(AgentEntry("/x", "", 0, "aa", frozenset({"ldap"}), 4096)).decode()
OF_TIME = re.compile(r"  local time = redis.call\('TIME'\)\n  return .*\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    one = RedisServer(tmp_path_factory.mktemp("redis"), Loopback())
    yield one
    one.stop()


class Real:
    """Runs a call as the backend does, with the clock pinned."""

    def __init__(self, client: redis_py.Redis) -> None:
        self.client = client
        self.notices: list[bytes] = []
        self._heard = client.pubsub(ignore_subscribe_messages=True)
        self._heard.subscribe(SPACE.channel)
        while self._heard.get_message(timeout=0.05):
            pass

    def run(self, call: Call, now: int, token: str) -> Any:
        self.client.set(CLOCK, now)
        assert call.script is not None
        text, count = OF_TIME.subn(f"  return 1000 * redis.call('GET', '{CLOCK}')\n", call.script.text)
        assert count == 1
        keys = [*SPACE.keys, *([SPACE.claim(call.request)] if call.request else [])]
        reply = self.client.eval(text, len(keys), *keys, SPACE.channel, token, *call.arguments)
        self.client.ping()
        while (message := self._heard.get_message()) is not None:
            self.notices.append(message["data"])
        return reply

    def close(self) -> None:
        self._heard.close()


def image(client: redis_py.Redis) -> dict[str, Any]:
    """All that is stored, but for claims, whose lives are Redis's own."""
    found: dict[str, Any] = {}
    for name, key in zip(KEYS, SPACE.keys, strict=True):
        if name in ("changes", "leases", "gone", "idle"):
            found[name] = {member: int(score) for member, score in client.zrange(key, 0, -1, withscores=True)}
        else:
            found[name] = client.hgetall(key)
    return found


def image_of(data: Data) -> dict[str, Any]:
    meta = ({b"generation": data.generation} if data.generation else {}) | (
        {b"version": b"%d" % data.version} if data.version else {}
    )
    return {
        "agents": data.agents,
        "epochs": {key: b"%d" % epoch for key, epoch in data.epochs.items()},
        "changes": data.changes,
        "meta": meta,
        "replicas": data.replicas,
        "leases": data.leases,
        "gone": data.gone,
        "idle": data.idle,
        "locks": data.locks,
    }


def comparable(call: Call, reply: Any) -> Any:
    """Redis gives the fields of a hash in no order."""
    if call.script is BEAT:
        hubs = sorted(zip(reply[6][::3], reply[6][1::3], reply[6][2::3], strict=True))
        return [*reply[:6], hubs, reply[7]]
    if call.script is LOCKS:
        return sorted(zip(reply[::2], reply[1::2], strict=True))
    return reply


keys = st.sampled_from(["/a", "/b", "acme/a"])
owners = st.sampled_from(["hub-1", "hub-2"])
processes = st.sampled_from(["p1", "p2", "p3"])
epochs = st.one_of(st.integers(0, 40), st.sampled_from([10**12, 1_800_000_000_000_000, claimable(NOW / 1000)]))
poison = st.sampled_from([possible(NOW / 1000) + 10**12, LARGEST + 1, 2**53 - 1, 2**53])  # above what is possible
bodies = st.sampled_from([BODY, BODY.replace("ldap", "sql")])


class Machine(RuleBasedStateMachine):
    """Calls in any order, against both."""

    client: redis_py.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.now = NOW
        self.said: list[bytes] = []
        self.model = Data(lambda: self.now, self.said.append)
        self.real = Real(self.client)
        self.requests: list[Call] = []
        self.granted: dict[str, int] = {}
        self.tokens = 0
        self.seen = ("", 0)

    def teardown(self) -> None:
        self.real.close()

    def call(self, script: Script, *arguments: Any, request: str = "") -> Any:
        call = Call(script, tuple(map(str, arguments)), request)
        self.tokens += 1
        token = f"g{self.tokens}"
        real = self.real.run(call, self.now, token)
        model = self.model.run(call, token.encode())
        assert comparable(call, real) == comparable(call, model)
        assert self.real.notices == self.said
        return real

    @rule(key=keys, owner=owners, process=processes, at_least=epochs, body=bodies)
    def claim(self, key, owner, process, at_least, body):
        request = f"r{len(self.requests)}"
        arguments = (key, owner, process, at_least, body, 60_000, MARGIN)
        forgotten = key.encode() not in self.model.epochs
        epoch = int(self.call(CLAIM, *arguments, request=request)[0])
        assert epoch > at_least
        if not forgotten:
            assert epoch > self.granted.get(key, 0)
        self.granted[key] = epoch
        self.requests.append(Call(CLAIM, arguments, request))

    @rule(key=keys, owner=owners, process=processes, epoch=poison, where=st.sampled_from(["epochs", "agents"]))
    def poisoned(self, key, owner, process, epoch, where):
        if where == "epochs":
            self.client.hset(SPACE.keys[1], key, epoch)
            self.model.epochs[key.encode()] = epoch
            self.granted.pop(key, None)
        else:
            record = f"{epoch}\n{owner}\n{process}\n{BODY}"
            self.client.hset(SPACE.keys[0], key, record)
            self.model.agents[key.encode()] = record.encode()

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def retried_claim(self, data):
        call = data.draw(st.sampled_from(self.requests))
        if call.request in self.model.claims and self.model.claims[call.request][2] > self.now:
            before = self.model.epochs.get(call.arguments[0].encode())
            self.call(CLAIM, *call.arguments, request=call.request)
            assert self.model.epochs.get(call.arguments[0].encode()) == before

    @rule(key=keys, owner=owners, process=processes, body=bodies, data=st.data())
    def asserts(self, key, owner, process, body, data):
        known = self.model.epochs.get(key.encode(), 5)
        epoch = max(0, data.draw(st.sampled_from([known, known - 1, known + 3, known - MARGIN])))
        if epoch > possible(NOW / 1000):
            self.granted.pop(key, None)
        self.call(ASSERT, key, owner, process, epoch, body, MARGIN)

    @rule(
        key=keys,
        owner=owners,
        process=processes,
        script=st.sampled_from([RELEASE, PRUNE_AGENT]),
        off=st.sampled_from([0, 0, 0, 1]),
    )
    def goes(self, key, owner, process, script, off):
        current = self.model.agents.get(key.encode())
        if current and not off:  # mostly what is there
            epoch, owner, process = (one.decode() for one in current.split(b"\n")[:3])
            self.call(script, key, owner, process, epoch)
        else:
            self.call(script, key, owner, process, self.model.epochs.get(key.encode(), 1) - off)

    @rule(key=keys)
    def asks(self, key):
        self.call(OWNER, key)

    @rule(
        owner=owners,
        process=processes,
        born=st.sampled_from([0, 0, 1_700_000_000_000, 1_700_000_001_000]),
        body=st.sampled_from(['{"draining":false}', '{"draining":true}']),
        lease=st.sampled_from([1000, 5000]),
        page=st.sampled_from([1, 2, 500]),
        anew=st.booleans(),
    )
    def beats(self, owner, process, born, body, lease, page, anew):
        generation, version = ("", 0) if anew else self.seen
        reply = self.call(BEAT, owner, process, born, body, lease, generation, version, page)
        news = reply[7]
        self.seen = (reply[3].decode(), int(news[-2]) if len(news) == 3 * page else int(reply[5]))

    @rule(owner=owners, process=processes)
    def leaves(self, owner, process):
        self.call(LEAVE, owner, process)

    @rule(owner=owners, process=processes, right=st.booleans())
    def replica_pruned(self, owner, process, right):
        ends = self.model.leases.get(owner.encode(), 0)
        self.call(PRUNE_REPLICA, owner, process, ends if right else ends + 1)

    @rule(
        tell=st.sampled_from([0, 1000, 3_600_000]),
        remember=st.sampled_from([500, 604_800_000]),
        page=st.sampled_from([1, 500]),
    )
    def tidies(self, tell, remember, page):
        self.call(TIDY, tell, remember, page)

    @rule(key=keys, stamp=st.sampled_from([1, 9, 10, 11, 2**53, 2**63]), body=st.sampled_from(["{}", "{1}"]))
    def locks(self, key, stamp, body):
        self.call(LOCK, key, stamp, body)

    @rule(key=keys, right=st.booleans())
    def lock_forgotten(self, key, right):
        self.call(LOCKS)
        word = self.model.locks.get(key.encode(), b"9\n{}").decode()
        self.call(FORGET_LOCK, key, word if right else word + " ")

    @rule(by=st.sampled_from([1, 999, 1001, 6000, 61_000]))
    def time_passes(self, by):
        self.now += by

    @rule()
    def redis_comes_back_empty(self):
        self.client.flushall()
        self.model.clear()
        self.granted.clear()  # what is known then is what hubs and agents bring

    @invariant()
    def both_hold_the_same(self):
        assert image(self.client) == image_of(self.model)


def test_the_model_is_what_redis_does(server):
    with redis_py.Redis(host=server.address[0], port=server.address[1]) as client:
        Machine.client = client
        run_state_machine_as_test(Machine, settings=settings(max_examples=100, stateful_step_count=40))


def test_the_machine_would_notice(server, monkeypatch):
    """A model that forgets to compare epochs is found out; mostly at once, and in 100 examples not always."""
    monkeypatch.setattr(Data, "_owns", lambda self, key, owner, process, epoch: key in self.agents)
    with redis_py.Redis(host=server.address[0], port=server.address[1]) as client:
        Machine.client = client
        with pytest.raises(AssertionError):
            run_state_machine_as_test(
                Machine,
                settings=settings(max_examples=3000, stateful_step_count=40, database=None, phases=[Phase.generate]),
            )


def eval_(client: redis_py.Redis, script: Script, *arguments: Any, request: str = "") -> Any:
    names = [*SPACE.keys, *([SPACE.claim(request)] if request else [])]
    return client.eval(script.text, len(names), *names, SPACE.channel, "token", *arguments)


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis_py.Redis]:
    with redis_py.Redis(host=server.address[0], port=server.address[1]) as one:
        one.flushall()
        yield one


def claim(client: redis_py.Redis, key: str, owner: str, at_least: int, request: str) -> int:
    return int(eval_(client, CLAIM, key, owner, "p", at_least, BODY, 60_000, MARGIN, request=request)[0])


def test_an_unknown_agent_starts_at_the_servers_clock(client):
    seconds, _ = client.time()
    assert abs(claim(client, "/a", "hub", 0, "r1") - 1_000_000 * seconds) < 5_000_000


def test_after_a_loss_epochs_go_on_above_even_if_nobody_remembers(client):
    """10,000 claims in a row, with the data lost between them time and again."""
    last = 0
    for number in range(10_000):
        if number % 40 == 39:
            client.flushall()
            epoch = claim(client, "/a", "hub", last, f"r{number}")  # the agent remembers
        else:
            epoch = claim(client, "/a", "hub", 0, f"r{number}")
        assert epoch > last
        last = epoch


def test_a_retried_claim_is_granted_the_same(client):
    first = claim(client, "/a", "hub-1", 7, "r1")
    assert claim(client, "/a", "hub-1", 7, "r1") == first
    second = claim(client, "/a", "hub-2", 0, "r2")
    assert second == first + 1
    assert claim(client, "/a", "hub-1", 7, "r1") == first  # and takes nothing back
    assert client.hget(SPACE.keys[0], "/a").startswith(b"%d\nhub-2\n" % second)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from(["claim", "release", "prune"]), st.integers(0, 2), st.integers(0, 9)), max_size=30
    )
)
def test_no_late_release_takes_the_next_owners_entry(server, steps):
    """Interleavings of claims and late releases: the entry is the newest claim's, or none if that was released."""
    with redis_py.Redis(host=server.address[0], port=server.address[1]) as client:
        client.flushall()
        granted: list[tuple[int, int]] = []
        live: tuple[int, int] | None = None
        for number, (step, hub, which) in enumerate(steps):
            if step == "claim":
                live = (hub, claim(client, "/a", f"hub-{hub}", 0, f"r{number}"))
                granted.append(live)
            elif granted:
                owner, epoch = granted[which % len(granted)]
                gone = eval_(client, RELEASE if step == "release" else PRUNE_AGENT, "/a", f"hub-{owner}", "p", epoch)
                assert gone == ((owner, epoch) == live)
                if gone:
                    live = None
        record = client.hget(SPACE.keys[0], "/a")
        assert (record is None) == (live is None)
        assert live is None or record.startswith(f"{live[1]}\nhub-{live[0]}\n".encode())


def test_all_keys_of_a_script_lie_in_one_slot():
    assert len({key_slot(key.encode()) for key in (*SPACE.keys, SPACE.claim("0123"))}) == 1
    assert key_slot(SPACE.keys[0].encode()) != key_slot(KeySpace("other").keys[0].encode())


def test_names_of_scripts_are_their_hashes(client):
    for script in SCRIPTS:
        assert client.script_load(script.text) == SHA[script.name]
