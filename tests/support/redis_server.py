"""A redis-server that dies, freezes, and comes back empty at the same address."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.peer import Address
from support.places import Places
from support.process import Program, require
from support.until import PATIENCE, wait_until


class RedisServer:
    """Without persistence: what was in it is gone when it ends."""

    def __init__(self, directory: Path, places: Places, name: str = "redis") -> None:
        (self._server,) = require("redis-server")
        self.address: Address = (places.host(name), places.port(name))
        self._directory, self._name, self._prefix = directory, name, places.prefix(name)
        self.start()

    def start(self) -> None:
        """Run it, empty, until it answers."""
        host, port = self.address
        options = f"--bind {host} --port {port} --protected-mode no --appendonly no --save".split()
        argv = [*self._prefix, self._server, *options, "", "--dir", str(self._directory)]
        self.program = Program(self._name, argv, self._directory)
        wait_until(self.answers, lambda: f"{self._name} at {host}:{port}\n{self.program.tail()}")

    def client(self, patience: float = PATIENCE) -> redis.Redis:
        """A client of the test's own, that waits for an answer for `patience` seconds."""
        host, port = self.address
        once = Retry(NoBackoff(), 0)
        return redis.Redis(host=host, port=port, socket_timeout=patience, decode_responses=True, retry=once)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def commands(self) -> dict[str, int]:
        """How often each command was called so far."""
        with self.client() as client:
            stats: dict[str, Any] = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}

    def kill(self) -> None:
        self.program.kill()

    def freeze(self) -> None:
        """SIGSTOP: connections stay, the kernel takes what is sent, no answer comes."""
        self.program.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.program.signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.program.exit_code() is None:
            self.thaw()
        self.program.stop()
