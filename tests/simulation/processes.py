"""Hubs and agents as processes: the real code on a simulated kernel, started, frozen, killed and ended like
programs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
import tempfile
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import jwt as pyjwt

import ncfast.agent.trust
import ncfast.hub.hub
import ncfast.hub.session
import ncfast.net.acceptor
import ncfast.net.channel
import ncfast.net.parcel
import ncfast.net.stream
import ncfast.serve.heir
import ncfast.serve.upgrade
from ncfast.agent.agent import Agent
from ncfast.agent.taking import Heritage as AgentHeritage
from ncfast.config.agent import AgentConfig
from ncfast.config.hub import HubConfig, Jwt
from ncfast.core.errors import NcfastError
from ncfast.core.features import MOVES_AGAIN
from ncfast.hub.hub import Hub
from ncfast.hub.listener import ClientListener
from ncfast.hub.taking import Heritage as HubHeritage
from ncfast.observe import log
from ncfast.observe.log.access import AccessLog
from ncfast.observe.log.limiter import EventLimiter
from ncfast.observe.log.recent import Recent
from ncfast.observe.readiness import State
from ncfast.observe.upgrading import UpgradeRefused
from ncfast.serve.heir import HANDOVER, Heir
from ncfast.serve.upgrade import Upgrading

from .descriptors import Calls, Descriptor
from .kernel import Kernel
from .loop import Loop, World
from .network import OrderedSet, SimNet
from .registry import Redis

WALL = 1_800_000_000.0  # unix seconds at the world's time 0
SECRET = b"simulated-secret-of-forty-bytes-or-so-it-is"
TOKEN_LIFE = 86_400  # seconds
LOADS = (0.02, 0.3)  # seconds that a process takes to load


class Life:
    """One process of the operating system. `owner` is the hub or agent that it runs, once it is made."""

    def __init__(self, service: Process, name: str, parent: Life | None = None) -> None:
        self.service = service
        self.parent = parent
        self.pid = service.kernel.next_number()
        self.loop = Loop(service.world, name)
        self.loop.life = self
        self.loop.on_exit = lambda: self.end(crashed=True, code=1)
        self.net = SimNet(self.loop, service.kernel, service.host, service.world.rng.getrandbits(60))
        self.owner: Any = None
        self.upgrading: Upgrading | None = None
        self.inherits: int | None = None  # the descriptor that its parent has left to it
        self.code: int | None = None  # with which it has ended
        self.thawed_at = 0.0
        self.handed_over_at = 0.0

    def thaw(self) -> None:
        if self.loop.frozen:
            self.service.world.note(f"{self.loop.name} thaws")
            self.thawed_at = self.service.world.now
            self.loop.thaw()

    @property
    def running(self) -> bool:
        return self.code is None

    def begin(self) -> None:
        if self.running:
            self.loop.create_task(self._live(), name="main")

    async def _live(self) -> None:
        code = 0
        try:
            await self.service._main(self)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            self.service.world.problem(f"{self.loop.name}: {exc}")
        except NcfastError as exc:  # of an heir
            self.service.world.note(f"{self.loop.name}: {exc}")
            code = 1
        except Exception as exc:
            self.loop.call_exception_handler({"message": "main", "exception": exc})
        self.end(crashed=False, code=code)

    def end(self, *, crashed: bool, silently: bool = False, code: int = 0) -> None:
        """The kernel closes what the process had open; or nobody is told, since its host is gone, too."""
        if not self.running:
            return
        self.code = code
        self.service.world.note(f"{self.loop.name} has ended: {code}")
        self.loop.kill()
        for dial in list(self.net.dials):
            dial.cancel()
        self.service.ends(self)
        for file in list(self.net.files.values()):
            if crashed:
                file.crash(silently)
            else:
                file.close()
        self.service.ended(self)


class Process:
    """A program on a host of its own, in one life after another; while it hands over, in two at once.

    `life` is the one that a supervisor knows: the predecessor until it has handed over, then its `heir`, of which it is
    a `former` one until it has ended.
    """

    def __init__(self, world: World, kernel: Kernel, name: str) -> None:
        self.world = world
        self.kernel = kernel
        self.name = name
        self.host = kernel.host(name)
        self.lives = 0  # that had nothing to do with the one before
        self.life: Life
        self.heir: Life | None = None
        self.former: list[Life] = []
        self.running = False
        self.on_exit: Callable[[], None] | None = None  # is told once that it is over
        self.on_end: Callable[[Life], None] = lambda life: None  # of each life, before what it had open is closed
        self.on_down: Callable[[], None] = lambda: None  # it has ended although nobody wanted it to
        self.on_heir: Callable[[Life], None] = lambda life: None  # it is started
        self.loads = LOADS
        self._number = 0

    @property
    def loop(self) -> Loop:
        return self.life.loop

    @property
    def net(self) -> SimNet:
        return self.life.net

    @property
    def owner(self) -> Any:
        """The hub or agent, once it is made."""
        return self.life.owner if self.lives else None

    @property
    def all(self) -> list[Life]:
        """The lives that are not over."""
        lives = (*self.former, self.life, *([self.heir] if self.heir is not None else [])) if self.lives else ()
        return [one for one in lives if one.running]

    @property
    def thawed_at(self) -> float:
        return max(one.thawed_at for one in self.all) if self.all else 0.0

    @property
    def signalled(self) -> Life:
        """Whom a supervisor's signal is for: as soon as it has handed over, its heir."""
        upgrading = self.life.upgrading
        return self.heir if self.heir and upgrading and upgrading.handed_over.is_set() else self.life

    @property
    def frozen(self) -> bool:
        return any(one.loop.frozen for one in self.all)

    def start(self) -> None:
        """Runs it, unless it runs."""
        if self.running:
            return
        self.lives += 1
        self.running = True
        if not self.host.up:
            self.host.up = True
            self.kernel.healed(self.host)
        self.world.note(f"{self.name} starts")
        self.life = Life(self, self._named())
        self.life.begin()

    def _named(self) -> str:
        self._number += 1
        return f"{self.name}.{self._number}"

    @property
    def flows(self) -> int:
        """That are open in it."""
        return sum(self._flows(life.owner) for life in self.all if life.owner is not None)

    def _flows(self, owner: Any) -> int:
        raise NotImplementedError

    def _main(self, life: Life) -> Coroutine[Any, Any, None]:
        raise NotImplementedError

    def ends(self, life: Life) -> None:
        """A life is over; what it had open is not closed yet."""
        self.on_end(life)

    def ended(self, life: Life) -> None:
        if life in self.former:
            self.former.remove(life)
        elif life is self.heir:
            self.heir = None
        elif life is self.life and self.heir is not None:  # it goes on alone
            self.lives += 1
            self.life, self.heir = self.heir, None
        else:
            self.running = False
            if self.on_exit is not None:
                self.on_exit()
            else:
                self.on_down()

    # handing over

    def upgrade(self) -> None:
        """As `ncfast upgrade` asks for it."""
        if self.running and self.life.upgrading is not None:
            self.world.note(f"{self.name} is to be upgraded")
            self.life.loop.call_soon(self._upgrade, self.life.upgrading)

    def _upgrade(self, upgrading: Upgrading) -> None:
        try:
            upgrading.begin()
        except UpgradeRefused as exc:
            self.world.note(f"{self.name} is not upgraded: {exc}")

    def spawn(self, parent: Life, descriptor: int) -> Life:
        """What a process starts; it takes some time to load."""
        child = self.heir = Life(self, self._named(), parent)
        child.inherits = self.kernel.descriptors[descriptor].copy(child.net.files).fileno()
        self.world.after(self.world.rng.uniform(*self.loads), child.begin)
        self.on_heir(child)
        return child

    def _promote(self, life: Life) -> None:
        """It has handed over, be it to a process that has died since."""
        if self.heir is not None:
            life.handed_over_at = self.world.now
            self.former.append(life)
            self.life, self.heir = self.heir, None

    async def _serve(
        self, life: Life, make: Callable[[Any], Any], heritage: Any, timeout: Callable[[], float]
    ) -> tuple[Any, Heir | None]:
        """Makes the hub or agent, as `ncfast.serve` does: alone, or as the heir of another process."""
        heir = Heir(life.net, life.inherits) if life.inherits is not None else None
        if heir is None:
            life.owner = make(None)
        else:
            with heir.refusing():
                life.owner = make(heritage.read(await heir.heritage()))
        life.upgrading = SimUpgrading(life.net, life.owner, timeout, heir, stay=False)
        return life.owner, heir

    def end(self) -> None:
        """Asks it to end in order, as SIGTERM does."""
        raise NotImplementedError

    def kill(self, *, silently: bool = False) -> None:
        """With all its lives."""
        if self.running:
            self.world.note(f"{self.name} {'loses power' if silently else 'is killed'}")
            on_down, self.on_down = self.on_down, lambda: None
            for life in (*([self.heir] if self.heir is not None else []), *self.former, self.life):
                life.end(crashed=True, silently=silently, code=-9)
            self.on_down = on_down

    def lose_power(self) -> None:
        """Its host goes down with it; it comes up again when the process starts."""
        if self.running:
            self.host.up = False
            self.kill(silently=True)

    def freeze(self) -> None:
        """One of its lives stands still."""
        if self.running and not self.frozen:
            life = self.world.rng.choice(self.all) if len(self.all) > 1 else self.life
            self.world.note(f"{life.loop.name} freezes")
            life.loop.freeze()

    def thaw(self) -> None:
        for life in self.all:
            life.thaw()


class OrderedListener(ClientListener):
    """Walks its clients without a flow as they have come."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.waiting = OrderedSet()  # type: ignore[assignment]
        self.heading = OrderedSet()  # type: ignore[assignment]


class HubProcess(Process):
    def __init__(self, world: World, kernel: Kernel, name: str, config: HubConfig, jwt: Jwt, redis: Redis) -> None:
        super().__init__(world, kernel, name)
        self.config = config
        self.redis = redis
        self.jwt = jwt
        self.clock_offset = 0.0  # seconds by which its wall clock is wrong
        self.counts: Counter[str] = Counter()  # of lives that are over

    @property
    def hub(self) -> Hub | None:
        hub: Hub | None = self.owner
        return hub

    @property
    def hubs(self) -> list[Hub]:
        """Of all its lives."""
        return [life.owner for life in self.all if life.owner is not None]

    def ends(self, life: Life) -> None:
        self.counts += self._counted(life.owner)
        self.redis.gone(life.net)
        super().ends(life)

    def harvest(self) -> Counter[str]:
        """What its lives have counted: whether the seeds reach what they are there for."""
        return sum((self._counted(hub) for hub in self.hubs), self.counts)

    @staticmethod
    def _counted(hub: Hub | None) -> Counter[str]:
        if hub is None:
            return Counter()
        stats, context = hub.stats, hub.ground.context
        return Counter(
            {
                "resumed": stats.flows_resumed,
                "failovers": stats.failovers,
                "retried": stats.flows_retried,
                "relays": stats.relays_opened,
                "relays resumed": stats.relays_resumed,
                "gaps": context.gaps,
                "duplicates": context.duplicates,
                "epochs refused": stats.epochs_refused,
                "claims in memory": stats.claims["memory"],
                "opened local": stats.flows_by_path["local"],
                "opened mesh": stats.flows_by_path["mesh"],
                "clients passed": stats.flows_passed,
            }
        )

    async def _main(self, life: Life) -> None:
        config, jwt = self.config, self.jwt

        def make(heritage: Any) -> Hub:
            wall = lambda: WALL + self.world.now + self.clock_offset  # noqa: E731
            return Hub(config, jwt, life.net, wall, self.redis.make, heritage)

        hub, heir = await self._serve(life, make, HubHeritage, lambda: config.upgrade.timeout_sec)
        upgrading = hub.upgrades = life.upgrading
        upgrading.refusal = lambda: "the hub is about to end" if hub.drain_requested.is_set() else ""
        upgrading.reloads = lambda: self._begin_reload(life)
        if heir is None:
            await hub.start()
        else:
            with heir.refusing():
                await hub.start()
            heir.on_stop = lambda at_once: hub.request_drain(at_once=at_once)
            heir.on_reload = upgrading.reloads
            heir.take_over(hub)
        if await upgrading.until(hub.drain_requested):
            self._promote(life)
            await upgrading.part()
            await hub.linger()
            await hub.stop()
        else:
            await hub.drain()

    def reload(self, mode: str) -> None:
        """Writes another mode of the cluster into its file, and has it read, as SIGHUP does."""
        self.world.note(f"{self.name} is to be {mode}")
        self.config = self.config.model_copy(update={"ha": self.config.ha.model_copy(update={"mode": mode})})
        if self.running and self.hub is not None:
            self.loop.call_soon(self._begin_reload, self.life)

    def _begin_reload(self, life: Life) -> None:
        life.net.spawn(self._reload(life), "reload")

    async def _reload(self, life: Life) -> None:
        hub: Hub = life.owner
        while hub.readiness.state is State.STARTING:
            await asyncio.sleep(0.1)
        assert life.upgrading is not None
        if hub.readiness.state is State.SERVING and not await life.upgrading.reload():
            try:
                await hub.reload(self.config, self.jwt)
            except OSError as exc:
                if hub.readiness.state is State.SERVING:  # one that drains takes none
                    self.world.problem(f"{life.loop.name} refuses its file: {exc}")

    def _flows(self, owner: Hub) -> int:
        return len(owner.flows) + len(owner.relays.by_cid)

    def end(self) -> None:
        self.world.note(f"{self.name} is to drain")
        if self.signalled.owner is not None:
            self.signalled.loop.call_soon(self.signalled.owner.request_drain)
        else:
            self.kill()  # the signal came before it had a handler


class AgentProcess(Process):
    def __init__(self, world: World, kernel: Kernel, name: str, config: AgentConfig) -> None:
        super().__init__(world, kernel, name)
        self.config = config

    @property
    def agent(self) -> Agent | None:
        agent: Agent | None = self.owner
        return agent

    async def _main(self, life: Life) -> None:
        def make(heritage: Any) -> Agent:
            return Agent(self.config, life.net, lambda: WALL + self.world.now, heritage)

        agent, heir = await self._serve(life, make, AgentHeritage, lambda: self.config.upgrade.timeout_sec)
        assert life.upgrading is not None
        life.upgrading.refusal = lambda: "the agent is about to end" if agent.ground.stopping.is_set() else ""
        agent.start()
        if heir is not None:
            heir.on_stop = lambda at_once: agent.stop()
            heir.take_over(agent)
        if await life.upgrading.until(agent.ground.stopping):
            self._promote(life)
            await life.upgrading.part()
            await agent.linger()
        else:
            await agent.drain()

    def _flows(self, owner: Agent) -> int:
        return len(owner.flows)

    def end(self) -> None:
        self.world.note(f"{self.name} is to stop")
        if self.signalled.owner is not None:
            self.signalled.loop.call_soon(self.signalled.owner.stop)
        else:
            self.kill()


class SimUpgrading(Upgrading):
    """Of a process that may be killed: then nothing is done any more when its coroutines are thrown away."""

    async def _fail(self, reason: str) -> None:
        if not self._net.loop.dead:  # type: ignore[attr-defined]
            await super()._fail(reason)


class Child:
    """What `subprocess.Popen` is to a process that is to be upgraded."""

    def __init__(self, command: list[str], *, pass_fds: list[int], env: dict[str, str]) -> None:
        assert env[HANDOVER] == str(pass_fds[0])
        parent = running()
        self.life = parent.service.spawn(parent, pass_fds[0])
        self.pid = self.life.pid

    @property
    def returncode(self) -> int | None:
        return self.life.code

    def poll(self) -> int | None:
        return self.life.code

    def kill(self) -> None:
        self.life.end(crashed=True, code=-9)


def running() -> Life:
    """The process whose turn it is."""
    life: Life = asyncio.get_running_loop().life  # type: ignore[attr-defined]
    return life


def parent() -> int:
    """getppid"""
    before = running().parent
    return before.pid if before is not None and before.running else 1


def leave(code: int) -> None:
    """_exit"""
    running().end(crashed=True, code=code)
    raise SystemExit(code)


class Files:
    """The key and tokens that hubs and agents read, in a directory of this process."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ncfast-simulation-")
        self.path = Path(self._directory.name)
        self.key = self.path / "jwt.key"
        self.key.write_bytes(SECRET)
        self.mesh_secret = self.path / "mesh.secret"
        self.mesh_secret.write_bytes(SECRET[::-1])
        self._tokens: dict[tuple[str, str | None, tuple[str, ...]], Path] = {}

    def token(self, agent_id: str, tenant: str | None, connectors: tuple[str, ...]) -> Path:
        """A token that is good for half a day before and after the beginning of the world, whatever clocks do."""
        key = agent_id, tenant, connectors
        path = self._tokens.get(key)
        if path is None:
            claims: dict[str, Any] = {
                "sub": agent_id,
                "aud": "nowconnect",
                "iat": int(WALL) - TOKEN_LIFE // 2,
                "exp": int(WALL) + TOKEN_LIFE // 2,
                "connectors": list(connectors),
            }
            if tenant is not None:
                claims["tenant"] = tenant
            path = self.path / f"{tenant}-{agent_id}-{'-'.join(connectors)}.jwt"
            path.write_text(pyjwt.encode(claims, SECRET, algorithm="HS256"))
            self._tokens[key] = path
        return path


NAMELESS = {"AF_INET": None, "AF_INET6": None}  # a simulated host has no address that `ipaddress` reads


@contextlib.contextmanager
def simulated(
    world: World, kernel: Kernel, on_log: Callable[[str, str, dict[str, Any]], None], moves_again: bool = True
) -> Iterator[None]:
    """Puts the simulated kernel behind the few calls that do not go through `Net`, and the log into the trace;
    `on_log(process, event, fields)` sees each line. Without `moves_again` no hub knows that its agents can do that."""

    def ioctl(fd: int, request: int, argument: bytes) -> bytes:
        one = kernel.descriptors.get(fd)
        if one is None:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return one.sock.out.unacknowledged.to_bytes(4, "little")

    def readv(fd: int, buffers: list[memoryview]) -> int:
        one = kernel.descriptors.get(fd)
        data = one.sock.receive(len(buffers[0])) if one is not None else b""
        if data is None:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        buffers[0][: len(data)] = data
        return len(data)

    def emit(logger: Any, level: str, event: str, fields: dict[str, Any]) -> None:
        where = world.current.name.partition(".")[0] if world.current is not None else "?"
        if isinstance(fields.get("error"), BaseException) or event == "task_failed":
            world.problem(f"{where}: logs {event}: {fields.get('error')!r} {fields.get('trace')}")
        elif level != "debug":
            world.note(f"{where} {event} " + " ".join(f"{key}={value}" for key, value in fields.items()))
            on_log(where, event, fields)

    def told(level: str, event: str, fields: dict[str, Any], held_back: int) -> bytes:
        emit(None, level, event, fields)
        return b""

    days = itertools.count(step=86400.0)  # no line is held back
    nowhere = types.SimpleNamespace(put=lambda line, at_once: None)
    limiter = EventLimiter(days.__next__)
    lines = types.SimpleNamespace(threshold=0, limiter=limiter, render=told, also=None, recent=Recent(), writer=nowhere)
    calls = Calls(kernel)

    def of_number(family: int, kind: int, proto: int, number: int) -> Any:
        """socket.socket"""
        return calls.of(number)

    patches: list[tuple[Any, str, Any]] = [
        (ncfast.hub.hub, "ClientListener", OrderedListener),
        (ncfast.net.acceptor, "accept", calls.accept),
        (ncfast.net.acceptor, "Accepted", calls.of),
        (ncfast.net.acceptor, "socket", types.SimpleNamespace(socket=of_number, AF_UNIX=socket.AF_UNIX, **NAMELESS)),
        (ncfast.net.channel, "os", calls),
        (ncfast.net.parcel, "Accepted", calls.of),
        (ncfast.net.parcel, "socket", types.SimpleNamespace(socket=Descriptor)),
        (ncfast.serve.upgrade, "subprocess", types.SimpleNamespace(Popen=Child)),
        (ncfast.serve.heir, "os", types.SimpleNamespace(getpid=lambda: running().pid, getppid=parent, _exit=leave)),
        (ncfast.net.stream, "fcntl", types.SimpleNamespace(ioctl=ioctl)),
        (ncfast.net.stream, "os", types.SimpleNamespace(readv=readv)),
        (ncfast.hub.session, "MOVES_AGAIN", MOVES_AGAIN if moves_again else "unknown"),
        (ncfast.agent.trust, "client_context", lambda tls: None),  # reads the system's authorities each time
        (log.Logger, "_emit", emit),
        (log, "access", lambda *names: AccessLog(lines, told, str, "access", *names)),
        (log, "setup", lambda *settings, **more: None),  # is the whole process's
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
