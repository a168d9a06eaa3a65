"""The scripts of `ncfast.registry.scripts` in Python: what the simulation has in Redis's place. `test_scripts.py`
proves that both say the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ncfast.core.epochs import possible
from ncfast.registry.redis.backend import Backend, BackendError, Call

if TYPE_CHECKING:
    from ncfast.net.seam import Net

Bytes = str | bytes


def raw(value: Bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


class Data:
    """What one Redis holds; `clock` is its wall clock in ms, `publish` gets each notice."""

    def __init__(self, clock: Callable[[], float], publish: Callable[[bytes], None] = lambda notice: None) -> None:
        self._clock = clock
        self.publish = publish
        self.clear()

    def clock(self) -> int:
        return int(self._clock())

    def clear(self) -> None:
        """FLUSHALL."""
        self.agents: dict[bytes, bytes] = {}
        self.epochs: dict[bytes, int] = {}
        self.changes: dict[bytes, int] = {}
        self.generation = b""
        self.version = 0
        self.replicas: dict[bytes, bytes] = {}
        self.leases: dict[bytes, int] = {}
        self.gone: dict[bytes, int] = {}
        self.idle: dict[bytes, int] = {}
        self.locks: dict[bytes, bytes] = {}
        self.claims: dict[str, tuple[int, int, int]] = {}  # by request: epoch, version, when it is forgotten

    def run(self, call: Call, token: bytes) -> Any:
        """The reply to a call; `token` is what a new generation is called."""
        if call.script is None:
            return b"PONG"
        self._token = token
        arguments = [raw(argument) for argument in call.arguments]
        method = getattr(self, f"_{call.script.name}")
        return method(call.request, *arguments) if call.script.name == "claim" else method(*arguments)

    # the prelude

    def _generation(self) -> bytes:
        self.generation = self.generation or self._token
        return self.generation

    def _remember(self, key: bytes, epoch: bytes, margin: bytes) -> int:
        self.epochs[key] = max(int(epoch) + int(margin), int(self._clock() * 1000))
        return self.epochs[key]

    def _sound(self, epoch: bytes | int | None) -> int | None:
        return int(epoch) if epoch is not None and int(epoch) <= possible(self._clock() / 1000) else None

    def _change(self, key: bytes, record: bytes) -> bytes:
        self.version += 1
        self.changes[key] = self.version
        version = b"%d" % self.version
        self.publish(b"\n".join((b"agent", self._generation(), version, key, record)))
        return version

    def _put(self, key: bytes, record: bytes) -> bytes:
        self.agents[key] = record
        self.gone.pop(key, None)
        self.idle.pop(key, None)
        return self._change(key, record)

    def _drop(self, key: bytes) -> None:
        del self.agents[key]
        self.gone[key] = self.clock()
        self._change(key, b"")

    def _hubs_changed(self) -> None:
        self.publish(b"replicas\n" + self._generation())

    def _owns(self, key: bytes, owner: bytes, process: bytes, epoch: bytes) -> bool:
        return key in self.agents and self.agents[key].split(b"\n", 3)[:3] == [epoch, owner, process]

    def _process(self, replica: bytes) -> bytes | None:
        return self.replicas[replica].split(b"\n", 1)[0] if replica in self.replicas else None

    # the scripts

    def _claim(
        self,
        request: str,
        key: bytes,
        owner: bytes,
        process: bytes,
        at_least: bytes,
        body: bytes,
        ttl: bytes,
        margin: bytes,
    ) -> Any:
        now = self.clock()
        self.claims = {name: claim for name, claim in self.claims.items() if claim[2] > now}
        if request in self.claims:
            epoch, version, _ = self.claims[request]
            return [b"%d" % epoch, b"%d" % version, self._generation()]
        stored = self._sound(self.epochs.get(key))
        floor = int(self._clock() * 1000) if stored is None else stored
        if int(at_least) > floor:
            floor = self._remember(key, at_least, margin)
        epoch = self.epochs[key] = floor + 1
        said = self._put(key, b"\n".join((b"%d" % epoch, owner, process, body)))
        self.claims[request] = (epoch, int(said), now + int(ttl))
        return [b"%d" % epoch, said, self._generation()]

    def _assert(self, key: bytes, owner: bytes, process: bytes, epoch: bytes, body: bytes, margin: bytes) -> Any:
        stored, current = self._sound(self.epochs.get(key)), self.agents.get(key)
        record = b"\n".join((epoch, owner, process, body))
        if current == record:
            return [1, b"0", self._generation()]
        if current is not None and self._sound(current.partition(b"\n")[0]) is not None:
            its_epoch, *its_owner = current.split(b"\n", 3)[:3]
            if int(its_epoch) > int(epoch) or (its_epoch == epoch and its_owner != [owner, process]):
                return [0, its_epoch, current]
        elif stored is not None and stored > int(epoch):
            return [0, b"%d" % stored, b""]
        if stored is None or int(epoch) > stored:
            self._remember(key, epoch, margin)
        return [1, self._put(key, record), self._generation()]

    def _release(self, key: bytes, owner: bytes, process: bytes, epoch: bytes) -> Any:
        if not self._owns(key, owner, process, epoch):
            return 0
        self._drop(key)
        return 1

    def _prune_agent(self, key: bytes, owner: bytes, process: bytes, epoch: bytes) -> Any:
        return 0 if self._process(owner) == process else self._release(key, owner, process, epoch)

    def _owner(self, key: bytes) -> Any:
        return self.agents.get(key, b"")

    def _beat(
        self,
        replica: bytes,
        process: bytes,
        born: bytes,
        body: bytes,
        lease: bytes,
        known: bytes,
        since: bytes,
        page: bytes,
    ) -> Any:
        now, birth = self.clock(), int(born)
        current = self.replicas.get(replica)
        expired = now > self.leases.get(replica, 0)
        its_process, its_birth = (current.split(b"\n", 2)[0], int(current.split(b"\n", 2)[1])) if current else (None, 0)
        state = 1
        if its_process != process:
            displaced = (
                its_process is not None and birth and not expired and (its_birth, its_process) > (birth, process)
            )
            state = 0 if displaced else 2
        birth = birth or max(now, its_birth + 1)
        if state:
            record = b"\n".join((process, b"%d" % birth, body))
            self.replicas[replica] = record
            self.leases[replica] = now + int(lease)
            if expired or current != record:
                self._hubs_changed()
        generation = self._generation()
        whole = known != generation or int(since) > self.version
        start = 0 if whole else int(since)
        hubs: list[bytes] = []
        for name, record in self.replicas.items():
            hubs += [name, record, b"%d" % self.leases.get(name, 0)]
        news: list[bytes] = []
        for version, key in sorted((version, key) for key, version in self.changes.items() if version > start)[
            : int(page)
        ]:
            news += [key, b"%d" % version, self.agents.get(key, b"")]
        return [state, b"%d" % now, b"%d" % birth, generation, int(whole), b"%d" % self.version, hubs, news]

    def _leave(self, replica: bytes, process: bytes) -> Any:
        if self._process(replica) != process:
            return 0
        del self.replicas[replica]
        self.leases.pop(replica, None)
        self._hubs_changed()
        return 1

    def _prune_replica(self, replica: bytes, process: bytes, lease: bytes) -> Any:
        ends = self.leases.get(replica, 0)
        if self._process(replica) != process or ends != int(lease) or self.clock() <= ends:
            return 0
        return self._leave(replica, process)

    def _tidy(self, tell: bytes, remember: bytes, page: bytes) -> Any:
        now = self.clock()
        old = sorted((at, key) for key, at in self.gone.items() if at <= now - int(tell))[: int(page)]
        for _, key in old:
            del self.gone[key]
            self.changes.pop(key, None)
            self.idle[key] = now
        forgotten = sorted((at, key) for key, at in self.idle.items() if at <= now - int(remember))[: int(page)]
        for _, key in forgotten:
            del self.idle[key]
            del self.epochs[key]
        return [len(old), len(forgotten)]

    def _lock(self, key: bytes, stamp: bytes, body: bytes) -> Any:
        current = self.locks.get(key)
        its_stamp = current.split(b"\n", 1)[0] if current is not None else b""
        if its_stamp.isdigit() and int(stamp) <= int(its_stamp):
            return 0
        self.locks[key] = stamp + b"\n" + body
        self.publish(b"locks\n" + self._generation())
        return 1

    def _locks(self) -> Any:
        return [part for word in self.locks.items() for part in word]

    def _forget_lock(self, key: bytes, record: bytes) -> Any:
        if self.locks.get(key) != record:
            return 0
        del self.locks[key]
        return 1


class Server:
    """A Redis that hubs reach by `ModelBackend`: it may be down, frozen, or restart empty. Everything happens on the
    caller's loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.data = Data(clock, self._publish)
        self.down = False
        self.frozen = False
        self.calls = 0  # scripts carried out so far
        self.backends: list[ModelBackend] = []
        self._waiting: list[Callable[[], None]] = []  # what came while it was frozen

    def _publish(self, notice: bytes) -> None:
        for backend in self.backends:
            backend.hear(notice)

    def kill(self) -> None:
        """Connections break; nothing is left of the data."""
        self.down = True
        self.frozen = False
        self._waiting.clear()
        self.data.clear()
        for backend in self.backends:
            backend.cut()

    def restart(self) -> None:
        self.down = False

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        """What came meanwhile is carried out, also what nobody waits for any more."""
        self.frozen = False
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            work()

    def take(self, work: Callable[[], None]) -> None:
        """Carries work out, now or when thawed."""
        if self.frozen:
            self._waiting.append(work)
        elif not self.down:
            work()


class ModelBackend(Backend):
    """A hub's connections to a `Server`. `delay()` gives the seconds that a message takes, one way; `reachable` is the
    network's state between the two, and while it is False messages are lost without a sign."""

    def __init__(self, server: Server, net: Net, delay: Callable[[], float] = lambda: 0.0002) -> None:
        self._redis = server
        self.net = net
        self.delay = delay
        self.reachable = True
        self._notices: Callable[[bytes], None] | None = None
        self._listening: asyncio.Future[None] | None = None
        self._pending: asyncio.Future[Any] | None = None
        self._last = {"there": 0.0, "back": 0.0, "notice": 0.0}  # messages of a connection keep their order
        server.backends.append(self)

    # calls

    async def open(self) -> None:
        await self._exchange(lambda: None)
        self.connected = True

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        if not self.connected:
            raise BackendError("lost")

        def work() -> list[Any]:
            self._redis.calls += len(calls)
            return [self._redis.data.run(call, self.net.entropy(8).hex().encode()) for call in calls]

        return await self._exchange(work)

    async def _exchange(self, work: Callable[[], Any]) -> Any:
        """There and back. Carried out even if the caller has gone, as a server reads what it was sent."""
        answered: asyncio.Future[Any] = self.net.loop.create_future()
        self._pending = answered

        def arrive() -> None:
            if self._redis.down:
                self._later("back", fail)
            else:
                self._redis.take(lambda: self._later("back", answer, work()))

        def answer(replies: Any) -> None:
            if not answered.done():
                answered.set_result(replies)

        def fail() -> None:
            if not answered.done():
                answered.set_exception(BackendError("refused"))

        self._later("there", arrive)
        try:
            return await answered
        finally:
            self._pending = None

    def _later(self, way: str, callback: Callable[..., None], *arguments: Any) -> None:
        if self.reachable:
            when = max(self.net.clock() + self.delay(), self._last[way])
            self._last[way] = when
            self.net.call_later(when - self.net.clock(), callback, *arguments)

    def close(self) -> None:
        self.connected = False

    def cut(self) -> None:
        """The server's end of both connections has gone."""
        if self.connected and self._pending is not None:
            self._later("back", self._fail, self._pending)
        self.connected = False
        if self._listening is not None:
            self._later("notice", self._fail, self._listening)

    def _fail(self, future: asyncio.Future[Any]) -> None:
        if not future.done():
            future.set_exception(BackendError("lost"))

    # notices

    async def listen(self, on_up: Callable[[], None], on_notice: Callable[[bytes], None]) -> None:
        listening = self.net.loop.create_future()

        def arrive() -> None:
            if self._redis.down:
                self._later("notice", self._fail, listening)
            else:
                self._redis.take(subscribed)

        def subscribed() -> None:
            self._notices = on_notice
            self._later("notice", on_up)

        self._listening = listening
        self._later("there", arrive)
        try:
            while True:  # a silent peer is noticed by a ping
                try:
                    async with asyncio.timeout(5.0):
                        await asyncio.shield(listening)
                except TimeoutError:
                    if not self.reachable or self._redis.frozen or self._redis.down:
                        raise BackendError("timeout") from None
        finally:
            listening.cancel()
            self._listening = self._notices = None

    def hear(self, notice: bytes) -> None:
        """The server publishes."""
        if self._notices is not None:
            self._later("notice", self._deliver, self._notices, notice)

    def _deliver(self, listener: Callable[[bytes], None], notice: bytes) -> None:
        if self._notices is listener:
            listener(notice)

    async def aclose(self) -> None:
        self.close()
        if self in self._redis.backends:
            self._redis.backends.remove(self)
