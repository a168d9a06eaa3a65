"""Hosts that look names up: each has an /etc/hosts and an /etc/resolv.conf of its own, and one of them runs dnsmasq."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.namespaces import Namespaces
from support.process import Program, require
from support.until import wait_until

ETC = Path("/etc/netns")  # `ip netns exec` puts what is there for a namespace over /etc, ip-netns(8)
NETWORK = "fd00:4e43::"  # of each host alone: nobody else is in it


class Resolving(Namespaces):
    """As `Namespaces`."""

    def prefix(self, name: str) -> list[str]:
        self.host(name)
        return [self._ip, "netns", "exec", self._name(name)]

    def names(self, name: str, known: Mapping[str, list[str]], server: str) -> None:
        """Has the host know names from its /etc/hosts, and ask the DNS `server` for all others."""
        self.host(name)
        etc = ETC / self._name(name)
        try:
            etc.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            pytest.skip(f"{ETC} cannot be written to: {error}")
        known = {"localhost": ["127.0.0.1"], **known}
        lines = [f"{address} {host}\n" for host, addresses in known.items() for address in addresses]
        (etc / "hosts").write_text("".join(lines))
        (etc / "resolv.conf").write_text(f"nameserver {server}\n")
        (etc / "nsswitch.conf").write_text("hosts: files dns\n")

    def silent(self, name: str) -> str:
        """An IPv6 address that swallows what this host sends there, as a broken route does: it has a neighbour's
        hardware address, which no neighbour has. The resolver puts it before any of IPv4 (RFC 6724)."""
        self.host(name)
        inside = [self._ip, "-n", self._name(name)]
        end = f"{self.tag}e{self._hosts[name]}"
        try:
            self._run(*inside, "addr", "add", f"{NETWORK}1/64", "dev", end, "nodad")
            neighbour = ("lladdr", "02:00:00:00:00:99", "dev", end, "nud", "permanent")
            self._run(*inside, "neigh", "add", f"{NETWORK}9", *neighbour)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no IPv6 here: {error.stderr.strip()}")
        return f"{NETWORK}9"

    def close(self) -> None:
        for space in self._spaces:
            shutil.rmtree(ETC / space, ignore_errors=True)
        super().close()

    def _name(self, name: str) -> str:
        return f"{self.tag}-{name}"


class Dnsmasq:
    """A DNS server on the host ``dns`` that knows these names and asks nobody."""

    def __init__(self, directory: Path, places: Resolving, known: Mapping[str, str]) -> None:
        (program,) = require("dnsmasq")
        self.address = places.host("dns")
        records = [f"--host-record={name},{address}" for name, address in known.items()]
        flags = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"]
        flags += [f"--listen-address={self.address}", "--user=root", "--pid-file", "--log-facility=-", "--log-queries"]
        self.program = Program("dnsmasq", [*places.prefix("dns"), program, *flags, *records], directory)
        wait_until(
            lambda: "started" in self.program.err_path.read_text() or self.program.exit_code() is not None,
            "dnsmasq serves",
        )
        assert self.program.exit_code() is None, self.program.tail()

    def stop(self) -> None:
        self.program.stop()
