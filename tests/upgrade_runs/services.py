"""The services behind the agent, which are the same for all cases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from soak.services import postgres, postgres_programs
from support.peer import Address, Peer
from support.process import require
from support.services import slapd
from support.ssh import Ssh, sshd


@dataclass(frozen=True)
class Services:
    """`addresses` are by connector."""

    peer: Peer
    ssh: Ssh
    addresses: dict[str, Address]


@contextmanager
def services(directory: Path) -> Iterator[Services]:
    """All of them, started."""
    require("rsync", "ldapsearch", "pgbench", "psql")
    home = postgres_programs()
    if home is None:
        require("postgres", "initdb")
    assert home is not None

    def place(name: str) -> Path:
        made = directory / name
        made.mkdir()
        return made

    with ExitStack() as running:
        peer = Peer(place("peer"))
        running.callback(peer.stop)
        ssh = running.enter_context(sshd(place("ssh")))
        addresses = {
            "peer": peer.address,
            "ldap": running.enter_context(slapd(place("ldap"))),
            "postgres": running.enter_context(postgres(home)),
            "ssh": ssh.address,
        }
        yield Services(peer, ssh, addresses)
