"""The routes that are compared: each carries TCP from an address of this machine to one service."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trustme

from bench.process import Process, running

ROOT = Path(__file__).resolve().parent.parent
Address = tuple[str, int]

# TCP mode sets TCP_NODELAY on both sides of itself. The timeouts are the hub's: an hour of idleness.
# Splicing and logging stay off, as in the package's own default.
HAPROXY = """
global
    nbthread 1
    maxconn 8000
defaults
    mode tcp
    option clitcpka
    option srvtcpka
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend in
    bind fd@{fd}
    default_backend out
backend out
    server next {host}:{port}
"""

HUB = """
listeners:
  - {{ name: bench, bind: '127.0.0.1:0', connector: bench }}
edge: {{ bind: '127.0.0.1:0'{edge_tls} }}
admin: {{ bind: '127.0.0.1:0' }}
auth:
  jwt: {{ key_file: '{key}' }}
logging: {{ format: json }}
drain: {{ delay_sec: 0, timeout_sec: 1 }}
"""

AGENT = """
hubs: ['{scheme}://{edge}/tunnel']
agent_id: bench
token_file: '{token}'
connectors:
  - {{ name: bench, target: '{host}:{port}' }}
logging: {{ format: json }}
drain: {{ timeout_sec: 1 }}
{agent_tls}
"""


@dataclass(frozen=True)
class Route:
    """A way to the service: connect to ``address``. ``pids`` are its processes, the client's side first."""

    name: str
    address: Address
    pids: dict[str, int] = field(default_factory=dict)


@contextmanager
def direct(name: str, service: Address, folder: Path) -> Iterator[Route]:
    """No proxy at all: what the tools themselves and the kernel cost."""
    yield Route(name, service)


@contextmanager
def haproxy(name: str, service: Address, folder: Path) -> Iterator[Route]:
    """Two chained HAProxy processes of one thread each."""
    with ExitStack() as stack:
        far, address = stack.enter_context(_one_haproxy(folder / f"{name}-far", service))
        near, address = stack.enter_context(_one_haproxy(folder / f"{name}-near", address))
        yield Route(name, address, {"near": near.pid, "far": far.pid})


@contextmanager
def _one_haproxy(base: Path, onward: Address) -> Iterator[tuple[Process, Address]]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        config = base.with_suffix(".cfg")
        config.write_text(HAPROXY.format(fd=listener.fileno(), host=onward[0], port=onward[1]))
        # The kernel queues connections for the inherited socket already: nothing to wait for.
        with running(
            ["haproxy", "-db", "-f", str(config)], base.with_suffix(".log"), pass_fds=[listener.fileno()]
        ) as process:
            yield process, listener.getsockname()


@contextmanager
def ncfast(name: str, service: Address, folder: Path, tls: bool = False, tree: Path = ROOT) -> Iterator[Route]:
    """A hub and an agent of the built ``tree``, as an operator runs them; the tunnel in TLS or not."""

    def file(suffix: str, text: str = "") -> Path:
        path = folder / f"{name}-{suffix}"
        path.write_text(text)
        path.chmod(0o600)
        return path

    host, port = service
    with ExitStack() as stack:

        def run(*arguments: str, log: str) -> Process:
            return stack.enter_context(
                running([sys.executable, "-m", "ncfast", *arguments], folder / f"{name}-{log}.log", cwd=tree)
            )

        key = file("key", secrets.token_hex(32))
        token = file(
            "token",
            output("token", "--key-file", str(key), "--agent-id", "bench", "--connector", "bench", "--ttl", "3600"),
        )
        edge_tls, agent_tls = _tls(folder / name) if tls else ("", "")
        hub_file = file("hub.yaml", HUB.format(key=key, edge_tls=edge_tls))
        hub = run("hub", "--config", str(hub_file), log="hub")
        ready = hub.wait_for_event("hub_ready")
        agent_file = file(
            "agent.yaml",
            AGENT.format(
                scheme="wss" if tls else "ws",
                edge=ready["edge"],
                token=token,
                host=host,
                port=port,
                agent_tls=agent_tls,
            ),
        )
        agent = run("agent", "--config", str(agent_file), log="agent")
        agent.wait_for_event("tunnel_up")
        host, _, port = ready["listeners"]["bench"].rpartition(":")
        yield Route(name, (host, int(port)), {"near": hub.pid, "far": agent.pid})


def _tls(base: Path) -> tuple[str, str]:
    """What the hub's edge and the agent add to their files for TLS, with a CA of this run."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(f"{base}-ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(f"{base}-edge.pem")
    return (
        f", tls: {{ cert_file: '{base}-edge.pem', key_file: '{base}-edge.pem' }}",
        f"tls: {{ ca_file: '{base}-ca.pem' }}",
    )


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


Maker = Callable[[str, Address, Path], AbstractContextManager[Route]]
ROUTES: dict[str, Maker] = {
    "direct": direct,
    "haproxy": haproxy,
    "ncfast": ncfast,
    "ncfast-tls": partial(ncfast, tls=True),
}
REFERENCE = "haproxy"


def add_before(tree: Path, names: Sequence[str]) -> list[str]:
    """Makes routes of the earlier state in ``tree``; ``names``, with each in front of what it is compared with."""
    built = tree.resolve()
    if not list(built.glob("ncfast/_frames.*.so")):
        raise SystemExit(f"{tree} is no built tree: there, run make build, or setup.py build_ext --inplace")
    ROUTES["before"] = partial(ncfast, tree=built)
    ROUTES["before-tls"] = partial(ncfast, tree=built, tls=True)
    compared = {"ncfast": "before", "ncfast-tls": "before-tls"}
    return [each for name in names for each in ([compared[name], name] if name in compared else [name])]


@contextmanager
def routes(names: Sequence[str], service: Address, folder: Path) -> Iterator[list[Route]]:
    """All routes of ``names`` to one service, standing at the same time."""
    with ExitStack() as stack:
        yield [stack.enter_context(ROUTES[name](name, service, folder)) for name in names]
