"""OpenSSH's server on the loopback interface, for whoever runs the tests, and clients that know it by its key."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers import separate_privileges
from support.peer import Address
from support.process import Program, require
from support.services import on_free_port, run

ALIAS = "service"  # what clients know the host's key by, whichever way they come

CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/client.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
LoginGraceTime 0
"""


@dataclass(frozen=True)
class Ssh:
    """A server that runs."""

    address: Address
    directory: Path

    def command(self, address: Address, *words: str) -> list[str]:
        """`ssh` to the server by way of an address."""
        (path,) = require("ssh")
        host, port = address
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": f"{self.directory}/known_hosts",
            "HostKeyAlias": ALIAS,
            "LogLevel": "ERROR",
        }
        chosen = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        identity = ["-F", "none", "-i", f"{self.directory}/client", "-l", getpass.getuser()]
        return [path, *identity, *chosen, "-p", str(port), host, *words]


@contextmanager
def sshd(directory: Path) -> Iterator[Ssh]:
    """The server, with a key of its own and one of its client's."""
    server, generator = require("sshd", "ssh-keygen")
    require("ssh")
    for name in ("host", "client"):
        run([generator, "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)])
    (directory / "known_hosts").write_text(f"{ALIAS} {(directory / 'host.pub').read_text()}")
    separate_privileges()

    def start(port: int) -> Program:
        config = directory / "sshd_config"
        config.write_text(CONFIG.format(directory=directory, port=port))
        return Program("sshd", [server, "-D", "-e", "-f", str(config)], directory)

    with on_free_port(start) as address:
        yield Ssh(address, directory)
