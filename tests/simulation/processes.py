"""Hubs and agents as processes: the real code on a simulated kernel, started, frozen, killed and ended like
programs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import tempfile
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import jwt as pyjwt

import ncfast.agent.trust
import ncfast.net.stream
from ncfast.agent.agent import Agent
from ncfast.config.agent import AgentConfig
from ncfast.config.hub import HubConfig, Jwt
from ncfast.hub.hub import Hub
from ncfast.observe import log
from ncfast.observe.readiness import State

from .kernel import Kernel
from .loop import Loop, World
from .network import SimNet
from .registry import Redis

WALL = 1_800_000_000.0  # unix seconds at the world's time 0
SECRET = b"simulated-secret-of-forty-bytes-or-so-it-is"
TOKEN_LIFE = 86_400  # seconds


class Process:
    """A program on a host of its own, in one life after another."""

    def __init__(self, world: World, kernel: Kernel, name: str) -> None:
        self.world = world
        self.kernel = kernel
        self.name = name
        self.host = kernel.host(name)
        self.lives = 0
        self.loop: Loop
        self.net: SimNet
        self.running = False
        self.thawed_at = 0.0
        self.on_exit: Callable[[], None] | None = None  # is told once that this life is over

    def start(self) -> None:
        """Runs it, unless it runs."""
        if self.running:
            return
        self.lives += 1
        self.running = True
        if not self.host.up:
            self.host.up = True
            self.kernel.healed(self.host)
        self._forget()
        self.world.note(f"{self.name} starts")
        self.loop = Loop(self.world, f"{self.name}.{self.lives}")
        self.net = SimNet(self.loop, self.kernel, self.host, self.world.rng.getrandbits(60))
        self.loop.create_task(self._live(), name="main")

    async def _live(self) -> None:
        try:
            await self._main()
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            self.world.problem(f"{self.name}: {exc}")
        except Exception as exc:
            self.loop.call_exception_handler({"message": "main", "exception": exc})
        self.world.note(f"{self.name} exits")
        self._gone(crashed=False)

    @property
    def flows(self) -> int:
        """That its present life has open."""
        raise NotImplementedError

    def _main(self) -> Coroutine[Any, Any, None]:
        raise NotImplementedError

    def _forget(self) -> None:
        """The life before is over."""

    def _gone(self, *, crashed: bool, silently: bool = False) -> None:
        """The kernel closes what the process had open; or nobody is told, since its host is gone, too."""
        self.running = False
        self.loop.kill()
        for listener in list(self.host.listeners.values()):
            listener.close()
        for dial in list(self.host.dials):
            dial.cancel()
        for sock in list(self.host.sockets):
            if silently:
                sock.vanish()
            elif crashed:
                sock.crash()
            else:
                sock.notify = lambda: None
                sock.close()
        if self.on_exit is not None:
            self.on_exit()

    def end(self) -> None:
        """Asks it to end in order, as SIGTERM does."""
        raise NotImplementedError

    def kill(self) -> None:
        if self.running:
            self.world.note(f"{self.name} is killed")
            self._gone(crashed=True)

    def lose_power(self) -> None:
        """Its host goes down with it; it comes up again when the process starts."""
        if self.running:
            self.world.note(f"{self.name} loses power")
            self.host.up = False
            self._gone(crashed=True, silently=True)

    def freeze(self) -> None:
        if self.running and not self.loop.frozen:
            self.world.note(f"{self.name} freezes")
            self.loop.freeze()

    def thaw(self) -> None:
        if self.running and self.loop.frozen:
            self.world.note(f"{self.name} thaws")
            self.thawed_at = self.world.now
            self.loop.thaw()


class HubProcess(Process):
    def __init__(self, world: World, kernel: Kernel, name: str, config: HubConfig, jwt: Jwt, redis: Redis) -> None:
        super().__init__(world, kernel, name)
        self.config = config
        self.redis = redis
        self.jwt = jwt
        self.hub: Hub | None = None
        self.clock_offset = 0.0  # seconds by which its wall clock is wrong
        self.counts: Counter[str] = Counter()  # of lives that are over

    def _forget(self) -> None:
        self.hub = None

    def _gone(self, *, crashed: bool, silently: bool = False) -> None:
        self.counts += self.harvest()
        self.redis.gone(self.net)
        super()._gone(crashed=crashed, silently=silently)

    def harvest(self) -> Counter[str]:
        """What this life has counted: whether the seeds reach what they are there for."""
        if self.hub is None:
            return Counter()
        stats, context = self.hub.stats, self.hub.ground.context
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
            }
        )

    async def _main(self) -> None:
        self.hub = Hub(
            self.config, self.jwt, self.net, lambda: WALL + self.world.now + self.clock_offset, self.redis.make
        )
        await self.hub.start()
        await self.hub.drain_requested.wait()
        await self.hub.drain()

    def reload(self, mode: str) -> None:
        """Writes another mode of the cluster into its file, and has it read, as SIGHUP does."""
        self.world.note(f"{self.name} is to be {mode}")
        self.config = self.config.model_copy(update={"ha": self.config.ha.model_copy(update={"mode": mode})})
        if self.running and self.hub is not None:
            self.loop.call_soon(lambda hub: self.loop.create_task(self._reload(hub), name="reload"), self.hub)

    async def _reload(self, hub: Hub) -> None:
        while hub.readiness.state is State.STARTING:
            await asyncio.sleep(0.1)
        if hub.readiness.state is State.SERVING:
            await hub.reload(self.config, self.jwt)

    @property
    def flows(self) -> int:
        return len(self.hub.flows) + len(self.hub.relays.by_cid) if self.hub is not None else 0

    def end(self) -> None:
        self.world.note(f"{self.name} is to drain")
        if self.hub is not None:
            self.loop.call_soon(self.hub.request_drain)
        else:
            self.kill()  # the signal came before it had a handler


class AgentProcess(Process):
    def __init__(self, world: World, kernel: Kernel, name: str, config: AgentConfig) -> None:
        super().__init__(world, kernel, name)
        self.config = config
        self.agent: Agent | None = None

    def _forget(self) -> None:
        self.agent = None

    async def _main(self) -> None:
        self.agent = Agent(self.config, self.net, lambda: WALL + self.world.now)
        await self.agent.run()

    @property
    def flows(self) -> int:
        return len(self.agent.flows) if self.agent is not None else 0

    def end(self) -> None:
        self.world.note(f"{self.name} is to stop")
        if self.agent is not None:
            self.loop.call_soon(self.agent.stop)
        else:
            self.kill()


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


@contextlib.contextmanager
def simulated(world: World, kernel: Kernel, on_log: Callable[[str, str, dict[str, Any]], None]) -> Iterator[None]:
    """Puts the simulated kernel behind the few calls that do not go through `Net`, and the log into the trace;
    `on_log(process, event, fields)` sees each line."""

    def ioctl(fd: int, request: int, argument: bytes) -> bytes:
        sock = kernel.descriptors.get(fd)
        if sock is None:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return sock.out.unacknowledged.to_bytes(4, "little")

    def readv(fd: int, buffers: list[memoryview]) -> int:
        sock = kernel.descriptors.get(fd)
        data = sock.receive(len(buffers[0])) if sock is not None else b""
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

    patches: list[tuple[Any, str, Any]] = [
        (ncfast.net.stream, "fcntl", types.SimpleNamespace(ioctl=ioctl)),
        (ncfast.net.stream, "os", types.SimpleNamespace(readv=readv)),
        (ncfast.agent.trust, "client_context", lambda tls: None),  # reads the system's authorities each time
        (log.Logger, "_emit", emit),
        (log, "setup", lambda *settings: None),  # is the whole process's
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
