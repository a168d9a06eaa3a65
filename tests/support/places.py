"""Where the parts of a test's cluster run: the loopback interface, or network namespaces (`support.namespaces`)."""

from __future__ import annotations

import secrets
from typing import Protocol

from bench.ports import free_port


class Places(Protocol):
    """Gives each part of a cluster, by its name, a place to run."""

    def host(self, name: str) -> str:
        """The part's own IP address."""

    def port(self, name: str) -> int:
        """Another port that is free there, and stays so."""

    def prefix(self, name: str) -> list[str]:
        """Words before a command that run it there."""

    def close(self) -> None:
        """Take the places away; what ran there has ended."""


class Loopback:
    """An address of 127.0.0.0/8 for each part: nobody else takes the ports of one that is down for a while."""

    def __init__(self) -> None:
        self._net = f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(255)}"
        self._hosts: dict[str, str] = {}

    def host(self, name: str) -> str:
        return self._hosts.setdefault(name, f"{self._net}.{len(self._hosts) + 1}")

    def port(self, name: str) -> int:
        return free_port(self.host(name))

    def prefix(self, name: str) -> list[str]:
        return []

    def close(self) -> None:
        pass
