"""What a route is, and the two that are always compared: chained HAProxy processes, and hub and agent."""

from __future__ import annotations

import compileall
import resource
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from bench.ports import free_port
from bench.process import Process, running

ROOT = Path(__file__).resolve().parent.parent
Address = tuple[str, int]

# TCP mode sets TCP_NODELAY on both sides of itself. The timeouts are the hub's: an hour of idleness.
# Splicing and logging stay off, as in the package's own default.
HAPROXY = """
global
    nbthread 1
    maxconn {flows}
defaults
    mode tcp
    option clitcpka
    option srvtcpka
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend in
    bind fd@{fd}{bind_tls}
    default_backend out
backend out
    server next {host}:{port}{server_tls}
"""

HUB = """
listeners:
  - {{ name: bench, bind: '127.0.0.1:0', connector: bench }}
edge: {{ bind: '127.0.0.1:{edge}', handshakes_per_source_per_sec: 0{edge_tls} }}
admin: {{ bind: '127.0.0.1:0' }}
auth:
  jwt: {{ key_file: '{key}' }}
logging: {{ format: json }}
drain: {{ delay_sec: 0, timeout_sec: 1 }}
"""

AGENT = """
hubs: ['{url}']
agent_id: bench
token_file: '{token}'
connectors:
  - {{ name: bench, target: '{host}:{port}' }}
logging: {{ format: json }}
drain: {{ timeout_sec: 1 }}
{agent_tls}
"""


# Under a tool that makes a process fifty times slower no clock of the product's must run out.
PATIENT = """
flow: { open_timeout_sec: 300, stall_sec: 0 }
tunnel: { ping_interval_sec: 60, ping_timeout_sec: 900 }
"""
PATIENT_AGENT = "reconnect: { connect_timeout_sec: 300 }\n"


@dataclass(frozen=True)
class HubAt:
    """Where further agents of a route's hub get in, and the key that their tokens are signed with."""

    url: str
    key: str


@dataclass(frozen=True)
class Route:
    """A way to the service: connect to ``address``. ``pids`` are its processes, the client's side first; ``started``
    is when the first of them was, by time.monotonic()."""

    name: str
    address: Address
    pids: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    hub: HubAt | None = None


@contextmanager
def direct(name: str, service: Address, folder: Path) -> Iterator[Route]:
    """No proxy at all: what the tools themselves and the kernel cost."""
    yield Route(name, service)


@contextmanager
def haproxy(name: str, service: Address, folder: Path, tls: bool = False, hops: int = 2) -> Iterator[Route]:
    """Chained HAProxy processes of one thread each; in TLS or not between them."""
    onward, pids, started = service, {}, time.monotonic()
    certified = certificate(folder / name) if tls else None
    with ExitStack() as stack:
        for hop in reversed(range(hops)):  # the service's side first
            role = {0: "near", hops - 1: "far"}.get(hop, f"middle {hop}")
            process, onward = stack.enter_context(
                _one_haproxy(
                    folder / f"{name}-{hop}",
                    onward,
                    f" ssl crt {certified.pem}" if certified and hop else "",
                    f" ssl verify required ca-file {certified.ca}" if certified and hop < hops - 1 else "",
                )
            )
            pids[role] = process.pid
        yield Route(name, onward, dict(reversed(pids.items())), started)


@contextmanager
def _one_haproxy(base: Path, onward: Address, bind_tls: str, server_tls: str) -> Iterator[tuple[Process, Address]]:
    flows = (
        resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100
    ) // 2  # two descriptors each; beyond, it does not start
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        address = listener.getsockname()
        config = base.with_suffix(".cfg")
        host, port = onward
        config.write_text(
            HAPROXY.format(
                fd=listener.fileno(),
                host=host,
                port=port,
                bind_tls=bind_tls,
                server_tls=server_tls,
                flows=min(flows, 50_000),
            )
        )
        # The kernel queues connections for the inherited socket already: nothing to wait for.
        argv, log = ["haproxy", "-db", "-f", str(config)], base.with_suffix(".log")
        process = stack.enter_context(running(argv, log, pass_fds=[listener.fileno()]))
        listener.close()  # if HAProxy ends, clients are refused and do not wait
        yield process, address


@contextmanager
def ncfast(
    name: str,
    service: Address,
    folder: Path,
    tls: bool = False,
    tree: Path = ROOT,
    under: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Route]:
    """A hub and an agent of the built ``tree``, as an operator runs them; the tunnel in TLS or not. Both are started at
    once, and the agent tries until the hub is there. ``under`` has words to put before the command line of ``hub`` and
    ``agent``, of a tool that may slow them down."""

    def file(suffix: str, text: str = "") -> Path:
        path = folder / f"{name}-{suffix}"
        path.write_text(text)
        path.chmod(0o600)
        return path

    host, port = service
    before = under or {}
    patience = PATIENT if under else ""
    with ExitStack() as stack:

        def run(*arguments: str, log: str) -> Process:
            return stack.enter_context(
                running(
                    [*before.get(log, ()), sys.executable, "-m", "ncfast", *arguments],
                    folder / f"{name}-{log}.log",
                    cwd=tree,
                )
            )

        key = file("key", secrets.token_hex(32))
        token = file(
            "token",
            output("token", "--key-file", str(key), "--agent-id", "bench", "--connector", "bench", "--ttl", "3600"),
        )
        edge_tls = agent_tls = ""
        if tls:
            files = certificate(folder / name)
            edge_tls = f", tls: {{ cert_file: '{files.pem}', key_file: '{files.pem}' }}"
            agent_tls = f"tls: {{ ca_file: '{files.ca}' }}"
        edge = free_port()
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{edge}/tunnel"
        hub_file = file("hub.yaml", HUB.format(key=key, edge=edge, edge_tls=edge_tls) + patience)
        agent_file = file(
            "agent.yaml",
            AGENT.format(
                url=url,
                token=token,
                host=host,
                port=port,
                agent_tls=agent_tls,
            )
            + (patience + PATIENT_AGENT if under else ""),
        )
        compileall.compile_dir(tree / "ncfast", quiet=1)  # as an installation has it
        started = time.monotonic()
        hub = run("hub", "--config", str(hub_file), log="hub")
        agent = run("agent", "--config", str(agent_file), log="agent")
        ready = hub.wait_for_event("hub_ready")
        agent.wait_for_event("tunnel_up")
        host, _, port = ready["listeners"]["bench"].rpartition(":")
        yield Route(name, (host, int(port)), {"near": hub.pid, "far": agent.pid}, started, HubAt(url, key.read_text()))


@dataclass(frozen=True)
class Certificate:
    """Of 127.0.0.1 and localhost, by a CA of this run. ``pem`` is key and chain in one file."""

    ca: str
    pem: str
    key: str
    chain: str


def certificate(base: Path) -> Certificate:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = Certificate(*(f"{base}-{part}.pem" for part in ("ca", "both", "key", "chain")))
    authority.cert_pem.write_to_path(files.ca)
    issued.private_key_and_cert_chain_pem.write_to_path(files.pem)
    issued.private_key_pem.write_to_path(files.key)
    Path(files.chain).write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return files


def output(*arguments: str) -> str:
    """Standard output of one ``ncfast`` command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "ncfast", *arguments],
        cwd=ROOT,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        timeout=30,
    ).stdout
