"""Redis with users, with TLS, on a Unix socket, as a cluster, watched by Sentinels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from support.places import Loopback
from support.process import Program, require
from support.until import PATIENCE, wait_until

Place = tuple[str, int]


class Server:
    """One redis-server (or, with `sentinel`, a Sentinel) with a configuration of the test's own."""

    def __init__(
        self, directory: Path, places: Loopback, name: str, config: str, *, sentinel: bool = False, **client: Any
    ) -> None:
        (self._program,) = require("redis-server")
        self.name, self.directory = name, directory
        self.place: Place = (places.host(name), places.port(name))
        self._sentinel = sentinel
        self._client = client
        self.file = directory / f"{name}.conf"
        config = config.replace("{host}", self.place[0]).replace("{port}", str(self.place[1]))
        port = "" if "tls-port" in config or "unixsocket" in config else f"port {self.place[1]}\n"
        self.file.write_text(
            f'bind {self.place[0]}\nprotected-mode no\nsave ""\nappendonly no\n{port}dir {directory}\n{config}\n'
        )
        self.start()

    def start(self) -> None:
        argv = [self._program, str(self.file), *(["--sentinel"] if self._sentinel else [])]
        self.program = Program(self.name, argv, self.directory)
        wait_until(self.answers, lambda: f"{self.name} answers\n{self.program.tail()}")

    def client(self) -> redis.Redis:
        options = {"host": self.place[0], "port": self.place[1], **self._client}
        if "unix_socket_path" in options:
            del options["host"], options["port"]
        return redis.Redis(socket_timeout=PATIENCE, decode_responses=True, **options)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def stop(self) -> None:
        self.program.stop()


@contextlib.contextmanager
def servers() -> Iterator[list[Server]]:
    """Those put into the list end with the test."""
    running: list[Server] = []
    try:
        yield running
    finally:
        for one in running:
            one.stop()
