"""Hosts in network namespaces, whose network breaks as networks do: silently, between two, one way, or by a pulled
plug.

    this process ── veth ──┐
    hub-a ──────── veth ───┤ router ├─── veth ── redis
    hub-b ──────── veth ───┘        └─── veth ── hub-c

Needs iproute2 and the right to make namespaces; without them `Namespaces` skips the test and says why.
"""

from __future__ import annotations

import itertools
import os
import secrets
import subprocess

import pytest

from support.process import require
from support.until import PATIENCE

FIRST_PORT = 4000  # of any host's own: nothing else runs there
RANGE = "198.18"  # RFC 2544: for tests between networks, routed nowhere else


class Namespaces:
    """Places (`support.places.Places`) that a router of its own connects. Raises pytest's Skipped where not
    permitted."""

    def __init__(self) -> None:
        self._ip, self._enter = require("ip", "nsenter")
        self.tag = f"nf{os.getpid() % 100_000}{secrets.token_hex(2)}"
        self._net = f"{RANGE}.{secrets.randbelow(256)}"
        self._hosts: dict[str, int] = {}
        self._ports = itertools.count(FIRST_PORT)
        self._spaces: list[str] = []
        self._blackholes: set[tuple[str, str]] = set()
        try:
            self._router = self._space("router")
            self._run(*self._inside(self._router), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            self._wire("here", None)
            self._run(self._ip, "route", "add", f"{self._net}.0/24", "via", f"{self._net}.1")
        except (subprocess.CalledProcessError, OSError) as error:
            self.close()
            said = getattr(error, "stderr", "") or str(error)
            pytest.skip(f"network namespaces are not permitted here: {said.strip()}")

    def host(self, name: str) -> str:
        """The host's address; it is made when first asked for."""
        if name not in self._hosts:
            self._wire(name, self._space(name))
        return f"{self._net}.{4 * self._hosts[name] + 2}"

    def port(self, name: str) -> int:
        self.host(name)
        return next(self._ports)

    def prefix(self, name: str) -> list[str]:
        self.host(name)
        return self._inside(f"{self.tag}-{name}")

    @property
    def router(self) -> str:
        """The router's address, as this process reaches it."""
        return f"{self._net}.{4 * self._hosts['here'] + 1}"

    def at_router(self, *argv: str) -> None:
        """Runs a command there."""
        self._run(*self._inside(self._router), *argv)

    # faults

    def partition(self, one: str, other: str, *, both_ways: bool = True) -> None:
        """The router swallows what ``one`` sends to ``other``, and the way back as well; nobody is told."""
        for pair in [(one, other), (other, one)][: 2 if both_ways else 1]:
            if pair not in self._blackholes:
                self._blackhole("add", pair)
                self._blackholes.add(pair)

    def unplug(self, name: str) -> None:
        """The host's veth pair goes down."""
        self._ip_at_router("link", "set", self._plug(name), "down")

    def heal(self) -> None:
        """Every plug back in, no partition left."""
        while self._blackholes:
            self._blackhole("del", self._blackholes.pop())
        for name in self._hosts:
            self._ip_at_router("link", "set", self._plug(name), "up")

    def close(self) -> None:
        """The namespaces go, and with them every veth pair and route."""
        subprocess.run([self._ip, "link", "del", f"{self.tag}e0"], capture_output=True)  # or it would go a little later
        for space in reversed(self._spaces):
            subprocess.run([self._ip, "netns", "del", space], capture_output=True)
        self._spaces.clear()

    # parts

    def _space(self, name: str) -> str:
        space = f"{self.tag}-{name}"
        self._run(self._ip, "netns", "add", space)
        self._spaces.append(space)
        self._run(self._ip, "-n", space, "link", "set", "lo", "up")
        return space

    def _wire(self, name: str, space: str | None) -> None:
        """A veth pair from ``space`` (None: where this process is) to the router, as a network of four addresses."""
        number = self._hosts[name] = len(self._hosts)
        plug, end = self._plug(name), f"{self.tag}e{number}"
        self._run(self._ip, "link", "add", end, "type", "veth", "peer", "name", plug, "netns", self._router)
        if space is not None:
            self._run(self._ip, "link", "set", end, "netns", space)
        inside = [self._ip] if space is None else [self._ip, "-n", space]
        router, own = f"{self._net}.{4 * number + 1}", f"{self._net}.{4 * number + 2}"
        self._ip_at_router("addr", "add", f"{router}/30", "dev", plug)
        self._ip_at_router("link", "set", plug, "up")
        self._run(*inside, "addr", "add", f"{own}/30", "dev", end)
        self._run(*inside, "link", "set", end, "up")
        if space is not None:
            self._run(*inside, "route", "add", "default", "via", router)

    def _plug(self, name: str) -> str:
        return f"p{self._hosts[name]}"

    def _blackhole(self, what: str, pair: tuple[str, str]) -> None:
        source, target = map(self.host, pair)
        self._ip_at_router("rule", what, "from", source, "to", target, "blackhole")

    def _ip_at_router(self, *arguments: str) -> None:
        self._run(self._ip, "-n", self._router, *arguments)

    def _inside(self, space: str) -> list[str]:
        return [self._enter, f"--net=/run/netns/{space}"]

    def _run(self, *argv: str) -> None:
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=PATIENCE)
