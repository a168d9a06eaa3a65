"""What a user would pick instead, each as its manual has it started: a server that clients meet, a client behind it.

Everything is by default but for what a route needs: addresses, a token, no TLS where that can be had without. chisel
and ssh always encrypt.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12
from cryptography.x509 import load_pem_x509_certificate

from bench.ports import free_port
from bench.process import Process, running
from bench.rig import Address, Certificate, Route, certificate

READY_SEC = 60.0
LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp

RATHOLE_SERVER = """
[server]
bind_addr = "127.0.0.1:{tunnel}"
default_token = "bench"
{transport}
[server.services.bench]
bind_addr = "127.0.0.1:{public}"
"""
RATHOLE_CLIENT = """
[client]
remote_addr = "127.0.0.1:{tunnel}"
default_token = "bench"
{transport}
[client.services.bench]
local_addr = "{host}:{port}"
"""
RATHOLE_TLS = """
[{side}.transport]
type = "tls"
[{side}.transport.tls]
"""

FRPS = """
bindAddr = "127.0.0.1"
bindPort = {tunnel}
proxyBindAddr = "127.0.0.1"
auth.token = "bench"
{tls}
"""
FRPC = """
serverAddr = "127.0.0.1"
serverPort = {tunnel}
auth.token = "bench"
{tls}
[[proxies]]
name = "bench"
type = "tcp"
localIP = "{host}"
localPort = {port}
remotePort = {public}
"""

SSHD = """
Port {tunnel}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
"""


@dataclass(frozen=True)
class Ground:
    """What a peer's two command lines are made of."""

    folder: Path
    tunnel: int
    public: int
    service: Address
    tls: Certificate | None

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


Commands = Callable[[Ground], tuple[Sequence[str], Sequence[str]]]
"""Of the server and of the client."""


def rathole(ground: Ground) -> tuple[Sequence[str], Sequence[str]]:
    near = far = ""
    if ground.tls:
        store = ground.folder / "identity.p12"
        store.write_bytes(_pkcs12(ground.tls))
        near = RATHOLE_TLS.format(side="server") + f'pkcs12 = "{store}"\npkcs12_password = "bench"'
        far = RATHOLE_TLS.format(side="client") + f'trusted_root = "{ground.tls.ca}"\nhostname = "localhost"'
    ports = {"tunnel": ground.tunnel, "public": ground.public, "host": ground.service[0], "port": ground.service[1]}
    server = ground.file("server.toml", RATHOLE_SERVER.format(transport=near, **ports))
    client = ground.file("client.toml", RATHOLE_CLIENT.format(transport=far, **ports))
    return ["rathole", "--server", server], ["rathole", "--client", client]


def _pkcs12(files: Certificate) -> bytes:
    key = load_pem_private_key(Path(files.key).read_bytes(), None)
    chain = load_pem_x509_certificate(Path(files.chain).read_bytes())
    return pkcs12.serialize_key_and_certificates(b"bench", key, chain, None, BestAvailableEncryption(b"bench"))  # type: ignore[arg-type]


def chisel(ground: Ground) -> tuple[Sequence[str], Sequence[str]]:
    near, far, scheme = [], [], "http"
    if ground.tls:
        near = ["--tls-key", ground.tls.key, "--tls-cert", ground.tls.chain]
        far, scheme = ["--tls-ca", ground.tls.ca], "https"
    host, port = ground.service
    return (
        ["chisel", "server", "--host", "127.0.0.1", "--port", str(ground.tunnel), "--reverse", *near],
        [
            "chisel",
            "client",
            *far,
            f"{scheme}://127.0.0.1:{ground.tunnel}",
            f"R:127.0.0.1:{ground.public}:{host}:{port}",
        ],
    )


def frp(ground: Ground) -> tuple[Sequence[str], Sequence[str]]:
    near, far = "", "transport.tls.enable = false"  # the default is true
    if ground.tls:
        near = f'transport.tls.certFile = "{ground.tls.chain}"\ntransport.tls.keyFile = "{ground.tls.key}"'
        far = f'transport.tls.trustedCaFile = "{ground.tls.ca}"\ntransport.tls.serverName = "localhost"'
    host, port = ground.service
    server = ground.file("frps.toml", FRPS.format(tunnel=ground.tunnel, tls=near))
    client = ground.file(
        "frpc.toml", FRPC.format(tunnel=ground.tunnel, public=ground.public, host=host, port=port, tls=far)
    )
    return ["frps", "-c", server], ["frpc", "-c", client]


def wstunnel(ground: Ground) -> tuple[Sequence[str], Sequence[str]]:
    near, scheme = [], "ws"
    if ground.tls:
        near = ["--tls-certificate", ground.tls.chain, "--tls-private-key", ground.tls.key]
        scheme = "wss"
    url = f"{scheme}://127.0.0.1:{ground.tunnel}"
    host, port = ground.service
    return (
        ["wstunnel", "server", *near, url],
        ["wstunnel", "client", "-R", f"tcp://127.0.0.1:{ground.public}:{host}:{port}", url],
    )


def separate_privileges() -> None:
    """Makes the folder without which root's sshd does not start: Debian's unit makes it, and the package does not."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


def ssh(ground: Ground) -> tuple[Sequence[str], Sequence[str]]:
    separate_privileges()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ground.folder / key], check=True)
    config = ground.file("sshd_config", SSHD.format(tunnel=ground.tunnel, folder=ground.folder))
    options = {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "ExitOnForwardFailure": "yes",
    }
    return (
        [shutil.which("sshd") or "sshd", "-D", "-e", "-f", config],  # it insists on its whole path
        [
            *("ssh", "-F", "none", "-N", "-i", str(ground.folder / "user"), "-p", str(ground.tunnel)),
            *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
            *("-R", f"127.0.0.1:{ground.public}:{ground.service[0]}:{ground.service[1]}"),
            f"{getpass.getuser()}@127.0.0.1",
        ],
    )


@dataclass(frozen=True)
class Peer:
    commands: Commands
    programs: tuple[str, ...]
    version: tuple[str, ...]
    tls: bool = True  # whether it has a way with TLS beside a way without

    @property
    def here(self) -> bool:
        return all(map(shutil.which, self.programs))


PEERS = {
    "rathole": Peer(rathole, ("rathole",), ("rathole", "--version")),
    "chisel": Peer(chisel, ("chisel",), ("chisel", "--version")),
    "frp": Peer(frp, ("frps", "frpc"), ("frps", "--version")),
    "wstunnel": Peer(wstunnel, ("wstunnel",), ("wstunnel", "--version")),
    "ssh": Peer(ssh, ("sshd", "ssh", "ssh-keygen"), ("ssh", "-V"), tls=False),
}


@contextmanager
def peer(name: str, service: Address, folder: Path, made: Peer, tls: bool = False) -> Iterator[Route]:
    """Both programs of ``made``, once clients can connect. They are started once more, at other ports, when one of them
    ends: a stranger may have taken a port."""
    with ExitStack() as stack:
        try:
            way = _started(stack, name, service, folder, made, tls)
        except RuntimeError:
            stack.close()
            way = _started(stack, name, service, folder, made, tls)
        yield way


def _started(stack: ExitStack, name: str, service: Address, folder: Path, made: Peer, tls: bool) -> Route:
    place = Path(mkdtemp(prefix=f"{name}-", dir=folder))
    ground = Ground(place, free_port(), free_port(), service, certificate(place / "tls") if tls else None)
    server_argv, client_argv = made.commands(ground)
    started = time.monotonic()
    server = stack.enter_context(running(server_argv, place / "server.log"))
    _until_listening(server, ground.tunnel)
    client = stack.enter_context(running(client_argv, place / "client.log"))
    _until_listening(client, ground.public)
    return Route(name, ("127.0.0.1", ground.public), {"near": _session(server.pid), "far": client.pid}, started)


def _until_listening(process: Process, port: int) -> None:
    process.wait_until(lambda _: _listens(port) or None, READY_SEC)


def _listens(port: int) -> bool:
    """By the kernel's table, so that no server sees a connection that says nothing."""
    with open("/proc/net/tcp") as table:
        next(table)
        for line in table:
            _, local, _, state, *_ = line.split()
            if state != LISTEN:
                return False  # those that listen come first; the others may be tens of thousands
            if int(local.rpartition(":")[2], 16) == port:
                return True
    return False


def _session(pid: int) -> int:
    """The process that carries the bytes: ``pid`` itself, or the last of its line where it forks one a connection."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[-1])
    return pid
