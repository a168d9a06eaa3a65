"""The registry in Redis: claims and leases by scripts, a cached view kept by notices and beats, and what to do while
Redis is away.

What this hub *holds* (its agents, with their epochs) is the truth about it; Redis and the view are copies. Whatever the
registry says of our agents is compared with it (`_reconcile`): an entry that is missing is asserted again, one that we
do not hold is released, and one of a higher epoch fences us. That is why a registry that lost its data, or was away, is
right again after a beat. While Redis is away a claim is granted from memory (`ncfast.registry.redis.seen`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ncfast.config.ha import Ha
from ncfast.net.seam import Net
from ncfast.observe import log
from ncfast.observe.stats import Stats
from ncfast.registry.base import DistributedRegistry, inherited
from ncfast.registry.entry import AgentEntry, Replica, body_of, read_agent, read_replica, replica_body
from ncfast.registry.locks import Lock
from ncfast.registry.redis.backend import Backend, BackendError, Call
from ncfast.registry.redis.courier import Courier, ignore
from ncfast.registry.redis.locks import LockExchange
from ncfast.registry.redis.mirror import HINT_DELAY, Mirror
from ncfast.registry.redis.notices import Notices
from ncfast.registry.redis.scripts import ASSERT, BEAT, CLAIM, CLAIM_TTL_MS, LEAVE, MARGIN, OWNER, PAGE, RELEASE
from ncfast.registry.redis.seen import SeenEpochs
from ncfast.registry.redis.sweeper import RegistrySweeper
from ncfast.registry.view import View

_log = log.get("registry")

BEAT_LONGEST = 5.0  # seconds between two beats, whatever the lease
BEAT_DEAF = 0.5  # seconds between two beats while no notices come
STALE_AFTER = 300.0  # seconds without a beat, after which what has changed since is not enough: all is read
ASSERT_SLICE = 100  # agents asserted in one turn of the loop
LEAVE_TIME = 1.0  # seconds for leaving in order
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Presence:
    """A replica's lease as the last beat told it, by the server's clock in ms."""

    replica: Replica
    ends: int
    left: int


class RedisRegistry(DistributedRegistry):
    """Behind `backend` is one Redis; see the package's other modules for the parts."""

    def __init__(
        self,
        config: Ha,
        replica: Replica,
        net: Net,
        stats: Stats,
        backend: Backend,
        wall_clock: Callable[[], float],
    ) -> None:
        super().__init__(replica, net, View(net.clock, config.lease_sec), wall_clock)
        self.presences: dict[str, Presence] = {}
        self._lease = config.lease_sec
        self._timeout = config.redis_timeout_sec
        self._stats = stats
        self._backend = backend
        self._courier = Courier(backend, net, stats, config.redis_timeout_sec, self)
        self._sweeper = RegistrySweeper(self, net, config.lease_sec)
        self._exchange = LockExchange(self._send)
        self._mirror = Mirror(self, self.view, net, config.lease_sec)
        self._notices = Notices(backend, net, stats, self._notice, self._hearing)
        self._seen = SeenEpochs(replica.instance, self.view, self.possible)
        self._held: dict[str, AgentEntry] = {}
        self._claiming: Counter[str] = Counter()  # by key: claims on their way
        self._displaced = False  # another process has taken our replica_id
        self._closed = False
        self._quiet = False  # a successor of our name says what we would
        self._beats = True
        self._started = asyncio.Event()
        self._born = 0
        self._server_clock: tuple[int, float] | None = None  # its ms, at our time
        self._beat_at = 0.0

    # life

    async def start(self) -> None:
        self._courier.start()
        self._notices.start()
        self._sweeper.start()
        try:
            async with asyncio.timeout(2 * self._timeout * self._backend.patience):
                await self._started.wait()
        except TimeoutError:
            pass

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._sweeper.stop()
        if not self._quiet:
            self._leave()
        await self._courier.stop(LEAVE_TIME)
        await self._notices.stop()
        await self._backend.aclose()
        self.view.doubt()

    def _leave(self) -> None:
        held, self._held = self._held, {}
        try:
            for entry in held.values():
                self._courier.submit(self._entry_call(RELEASE, entry)).add_done_callback(ignore)
            self._courier.submit(Call(LEAVE, (self.replica.replica_id, self.replica.instance))).add_done_callback(
                ignore
            )
        except BackendError:
            pass

    # two processes of one name

    def heritage(self) -> dict[str, Any]:
        return {**super().heritage(), "born": self._born}

    def held(self) -> list[AgentEntry]:
        return list(self._held.values())

    def holds(self, key: str) -> bool:
        return key in self._held

    def adopt(self, heritage: dict[str, Any]) -> list[AgentEntry]:
        entries = inherited(heritage)
        self._born = int(heritage.get("born", 0))
        for entry in entries:
            self._held[entry.key] = entry
            self._seen.see(entry.key, entry.epoch)
            self._put(entry)
        return entries

    def quiet(self, on: bool, *, beats: bool = True) -> None:
        self._quiet, self._beats = on, beats or not on
        if on:
            return
        self.beat_soon()
        ours = [entry.key for entry in self.view.agents.values() if self._ours(entry) or entry.key in self._held]
        for key in {**dict.fromkeys(self._held), **dict.fromkeys(ours)}:
            self._reconcile(key)
        self.assert_again(list(self._held))  # Redis may have lost what the view still has

    # claims

    async def claim_ownership(
        self,
        agent_id: str,
        replica_id: str,
        *,
        at_least: int = 0,
        instance: str = "",
        connectors: Iterable[str] = (),
        window: int = 0,
    ) -> int:
        if not 0 <= at_least <= self.claimable():
            raise ValueError("no registry has granted such an epoch")
        key = agent_id
        entry = AgentEntry(key, replica_id, 0, instance, frozenset(connectors), window, False, self.replica.instance)
        at_least = max(at_least, self._seen.of(key))
        call = Call(
            CLAIM,
            (key, replica_id, self.replica.instance, str(at_least), body_of(entry), str(CLAIM_TTL_MS), str(MARGIN)),
            self.net.entropy(8).hex(),
        )
        version = 0
        self._claiming[key] += 1
        try:
            try:
                reply = await self._courier.ask(call)
                epoch = int(reply[0])
                if not at_least < epoch <= self.possible():
                    raise ValueError("Redis is not to be believed")
                version = int(reply[1])
                self._stats.claims["redis"] += 1
            except (BackendError, ValueError, IndexError, TypeError):
                epoch = self._leap(key, at_least)
                self._stats.claims["memory"] += 1
        except asyncio.CancelledError:
            self._claim_ended(key)
            raise
        held = self._held.get(key)
        if held is None or held.epoch < epoch:
            self._held[key] = entry = replace(entry, epoch=epoch)
            self._seen.see(key, epoch)
            known = self.view.agent(key)
            if self._mirror.is_news(key, version):
                self._put(entry)
                self._mirror.put_ahead(key, version)
            elif version == 0 and (known is None or known.epoch < epoch):
                self._put(entry)
        self._claim_ended(key)
        if version and reply[2] != self._mirror.generation:
            self.beat_soon()
        return epoch

    def _claim_ended(self, key: str) -> None:
        self._claiming[key] -= 1
        if not self._claiming[key]:
            del self._claiming[key]
            if self.view.agent(key) is not None:
                self._reconcile(key)

    def _leap(self, key: str, at_least: int) -> int:
        """An epoch without Redis."""
        return self._seen.leap(key, at_least, 0 if self._server_clock is None else int(self.clock() * 1_000_000))

    def clock(self) -> float:
        """The server's, as the last beat told it: one for all hubs, whatever their own clocks say."""
        if self._server_clock is None:
            return super().clock()
        at, when = self._server_clock
        return at / 1000 + self.net.clock() - when

    async def add_connectors(
        self, agent_id: str, connectors: Iterable[str], *, epoch: int, draining: bool = False
    ) -> None:
        held = self._held.get(agent_id)
        if held is None or held.epoch != epoch:
            return
        entry = self._held[agent_id] = replace(held, connectors=frozenset(connectors), draining=draining)
        if self._quiet:
            return
        try:
            reply = await self._courier.ask(self._assert_call(entry))
        except BackendError:  # asserted again when Redis is back
            self._put(entry)
        else:
            self._asserted(entry, reply)

    async def release(self, agent_id: str, epoch: int) -> None:
        held = self._held.get(agent_id)
        if held is None or held.epoch != epoch:
            return
        del self._held[agent_id]
        if self.view.agent(agent_id) == held:
            self.view.drop(agent_id)
            self._tell_agent(agent_id)
        if self._quiet:
            return
        try:
            await self._courier.ask(self._entry_call(RELEASE, held))
        except BackendError:  # released when Redis is back, as an entry that we do not hold
            pass

    async def set_draining(self) -> None:
        self.replica = replace(self.replica, draining=True)
        try:
            self.beaten(await self._courier.ask(self.beat(False)), False)
        except (BackendError, ValueError, TypeError, IndexError):  # the next beat says it
            pass

    def spread(self, lock: Lock) -> None:
        self._exchange.write(lock)  # if it is lost, the next beat's look finds that it is missing

    async def get_owner(self, agent_id: str) -> tuple[str, int] | None:
        known = self.view.agent(agent_id)
        try:
            record = await self._courier.ask(Call(OWNER, (agent_id,)))
            entry = self._read(agent_id, record)
        except BackendError:
            entry = known
        if entry != known:  # notices are hints: what was missed is read now
            self.beat_soon()
        return (entry.owner, entry.epoch) if entry is not None else None

    def is_healthy(self) -> bool:
        return self._courier.breaker.closed and self.view.fresh and not self._displaced

    def snapshot(self) -> dict[str, Any]:
        return {
            "kind": "redis",
            "server": self._backend.server,
            "healthy": self.is_healthy(),
            "fresh": self.view.fresh,
            "breaker": self._courier.breaker.state.value,
            "view_age_sec": round(self.view.age, 3),
            "agents": len(self.view.agents),
            "replicas": len(self.view.replicas),
            "held": len(self._held),
            "displaced": self._displaced,
            "notices": self._notices.hearing,
            "commands": self._stats.registry_commands,
            "errors": sum(self._stats.registry_errors.values()),
        }

    # what we hold against what the registry says

    def _entry_call(self, script: Any, entry: AgentEntry, *more: str | bytes) -> Call:
        return Call(script, (entry.key, entry.owner, entry.owner_instance, str(entry.epoch), *more))

    def _assert_call(self, entry: AgentEntry) -> Call:
        return self._entry_call(ASSERT, entry, body_of(entry), str(MARGIN))

    def _ours(self, entry: AgentEntry) -> bool:
        return entry.owner_instance == self.replica.instance

    def _reconcile(self, key: str) -> None:
        """Compares the view's entry with what we hold. Not while a claim for the agent is on its way: it may be that
        entry."""
        if key in self._claiming or self._closed or self._quiet:
            return
        entry, held = self.view.agent(key), self._held.get(key)
        if held is None:
            if entry is not None and self._ours(entry):
                self._send(self._entry_call(RELEASE, entry))
        elif entry is None or entry.epoch < held.epoch:
            self._assert(held)
        elif entry.epoch > held.epoch or not self._ours(entry):
            self._fence(held, entry)
            if self._ours(entry):  # a claim that we had given up was carried out late
                self._send(self._entry_call(RELEASE, entry))

    def _assert(self, entry: AgentEntry) -> None:
        if self._quiet:
            return

        def answered(done: asyncio.Future[Any]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._asserted(entry, done.result())

        future = self._send(self._assert_call(entry))
        if future is not None:
            future.add_done_callback(answered)

    def assert_again(self, keys: list[str]) -> None:
        """It may be thousands of agents: a few in each turn of the loop."""
        for key in keys[:ASSERT_SLICE]:
            held, known = self._held.get(key), self.view.agent(key)
            if held is not None and key not in self._claiming and (known is None or known.epoch <= held.epoch):
                self._assert(held)
        if len(keys) > ASSERT_SLICE:
            self.net.call_soon(self.assert_again, keys[ASSERT_SLICE:])

    def _asserted(self, entry: AgentEntry, reply: Any) -> None:
        """The reply to an ASSERT."""
        held = self._held.get(entry.key)
        if self._quiet or held is None or held.epoch != entry.epoch or not isinstance(reply, list) or len(reply) != 3:
            return
        if reply[0] == 1:
            version = int(reply[1])
            if held == entry and self._mirror.is_news(entry.key, version):
                self._put(entry)
                self._mirror.put_ahead(entry.key, version)
        elif entry.key not in self._claiming:
            newer = self._read(entry.key, reply[2]) or AgentEntry(entry.key, "", int(reply[1]))
            if newer.epoch <= self.possible():
                self._seen.see(entry.key, newer.epoch)
                self._fence(held, newer)

    def _fence(self, held: AgentEntry, newer: AgentEntry) -> None:
        del self._held[held.key]
        self._tell_fenced(newer)

    def _send(self, call: Call) -> asyncio.Future[Any] | None:
        """For calls that are made again if they fail."""
        try:
            future = self._courier.submit(call)
        except BackendError:
            return None
        future.add_done_callback(ignore)
        return future

    def send(self, calls: Iterable[Call]) -> None:
        """The sweeper's."""
        for call in calls:
            self._send(call)

    # beats: what the courier asks

    def until_beat(self) -> float:
        return self._beat_at - self.net.clock() if self._beats else FOREVER

    def beat_soon(self, delay: float = 0.0) -> None:
        """In `delay` seconds at most."""
        self._beat_at = min(self._beat_at, self.net.clock() + delay)
        self._courier.kick()

    def beat(self, anew: bool) -> Call:
        """On a new connection all is read: it may be another server, with another past."""
        everything = anew or self.view.age > STALE_AFTER
        self._beat_at = self.net.clock() + (
            min(self._lease / 3, BEAT_LONGEST) if self._notices.hearing else min(self._lease / 3, BEAT_DEAF)
        )
        return Call(
            BEAT,
            (
                self.replica.replica_id,
                self.replica.instance,
                str(self._born),
                replica_body(self.replica),
                str(int(self._lease * 1000)),
                b"" if everything else self._mirror.generation,
                "0" if everything else str(self._mirror.version),
                str(PAGE),
            ),
        )

    def beaten(self, reply: Any, anew: bool) -> None:
        state, now, born, generation, whole, version, hubs, news = reply
        self._born = int(born)
        self._server_clock = (int(now), self.net.clock())
        self._place(state)
        if anew:
            self._mirror.begin_anew()
            self.view.hold_leases()
        self._mirror.take(generation, bool(whole), news)
        self._count_replicas(hubs, int(now))
        if self._mirror.paging:
            self._beat_at = self.net.clock()
            self._courier.kick()
            return
        self._mirror.finish(int(version))
        self.view.confirm()
        self._exchange.look(self.locks)
        self._started.set()

    def _place(self, state: int) -> None:
        """Whether this process still is the replica that it says it is."""
        if state == 0 and not self._displaced:
            self._displaced = True
            _log.error(
                "replica_displaced",
                replica=self.replica.replica_id,
                detail="another process uses this replica_id; give each hub its own",
            )
        elif state != 0 and self._displaced:
            self._displaced = False
            _log.info("replica_restored", replica=self.replica.replica_id)

    def _count_replicas(self, hubs: list[bytes], now: int) -> None:
        self.presences = {}
        for i in range(0, len(hubs), 3):
            replica = read_replica(hubs[i].decode(errors="replace"), hubs[i + 1])
            if replica is not None:
                ends = int(hubs[i + 2])
                self.presences[replica.replica_id] = Presence(replica, ends, ends - now)
        leases = [(one.replica, one.ends, one.left) for one in self.presences.values()]
        if self.view.set_replicas(leases, self._mirror.waits):
            self._tell_replicas()

    def away(self, reason: str) -> None:
        if self.view.fresh or not self._started.is_set():
            _log.warning("registry_lost", reason=reason, server=self._backend.server)
        self.view.doubt()
        self._started.set()  # nobody waits for it any longer

    def back(self) -> None:
        _log.info(
            "registry_back",
            server=self._backend.server,
            duration_sec=round(self.net.clock() - self._courier.breaker.opened_at, 3),
        )

    # notices

    def _hearing(self, on: bool) -> None:
        """What came before a subscription is read at once; when one is lost the server is asked whether it is there."""
        self.beat_soon(0.0 if on else BEAT_DEAF)

    def _notice(self, notice: bytes) -> None:
        kind, _, rest = notice.partition(b"\n")
        if kind == b"agent":
            self._mirror.notice(*rest.split(b"\n", 3))
        elif kind == b"replicas":
            self.beat_soon(HINT_DELAY * self.net.rng.random())
        elif kind == b"locks":
            self._exchange.look(self.locks)

    # the view

    def apply(self, key: str, record: bytes) -> None:
        """The registry's entry of an agent, or that there is none."""
        entry = self._read(key, record)
        if entry is not None:
            self._seen.see(key, entry.epoch)
            self._put(entry)
        elif self.view.drop(key) is not None:
            self._tell_agent(key)
        self._reconcile(key)

    def _read(self, key: str, record: bytes) -> AgentEntry | None:
        """A record of the registry; None if there is none, or none that it can have granted."""
        entry = read_agent(key, record) if record else None
        return entry if entry is not None and entry.epoch <= self.possible() else None

    def _put(self, entry: AgentEntry) -> None:
        self._mirror.confirm(entry.key)
        if self.view.put(entry):
            self._tell_agent(entry.key)
