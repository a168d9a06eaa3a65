"""Three hubs, a Redis and an agent with its standby, all by their defaults, on this machine.

The hubs of a measurement: the *owner* holds the agent's tunnel, the *standby* its second one, and at the *origin*
clients come in whose flows cross the mesh.
"""

from __future__ import annotations

import json
import re
import secrets
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.ports import free_port
from bench.process import Process
from bench.rig import ROOT, Address, output
from bench.service import Service, redis

T = TypeVar("T")

LOCAL, MESH = "local", "mesh"
"""Routes: through the owner alone, which is what the other is compared with; through the origin."""

REPLICAS = ("hub-a", "hub-b", "hub-c")
SETTLE_SEC = 60.0

HUB = """
listeners:
  - {{ name: bench, bind: '127.0.0.1:{listener}', connector: bench }}
edge: {{ bind: '127.0.0.1:{edge}' }}
admin: {{ bind: '127.0.0.1:{admin}' }}
auth:
  jwt: {{ key_file: '{key}' }}
logging: {{ format: json }}
drain: {{ delay_sec: 0, timeout_sec: 1 }}
ha:
  enabled: true
  mode: active
  replica_id: {name}
  redis_url: 'redis://127.0.0.1:{redis}/0'
  mesh:
    listen: '127.0.0.1:{mesh}'
    require_mtls: false
    secret_file: '{key}'
"""

AGENT = """
hubs: [{hubs}]
agent_id: bench
token_file: '{token}'
connectors:
  - {{ name: bench, target: '{host}:{port}' }}
logging: {{ format: json }}
drain: {{ timeout_sec: 1 }}
"""


@dataclass
class Hub:
    """One replica; it comes back at the same ports."""

    name: str
    ports: dict[str, int]
    config: Path
    process: Process | None = None

    @property
    def address(self) -> Address:
        """Where clients connect."""
        return "127.0.0.1", self.ports["listener"]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        log = self.config.with_suffix(".log")
        self.process = Process([sys.executable, "-m", "ncfast", "hub", "--config", str(self.config)], log, cwd=ROOT)
        self.process.wait_for_event("hub_ready")

    def kill(self) -> int:
        """SIGKILL; when it was sent, in nanoseconds. Returns when the process is gone."""
        assert self.process is not None
        start = time.perf_counter_ns()
        self.process.signal(signal.SIGKILL)
        self.process.wait()
        self.process = None
        return start

    def stop(self) -> None:
        """SIGTERM, so a drain; returns when the process is gone."""
        if self.process is not None:
            self.process.stop()
            self.process = None

    def turn(self, mode: str) -> None:
        """Another `ha.mode`, by SIGHUP; returns when the hub says so."""
        assert self.process is not None
        text = self.config.read_text()
        self.config.write_text(re.sub(r"^  mode: .*$", f"  mode: {mode}", text, flags=re.MULTILINE))
        self.process.signal(signal.SIGHUP)
        _until(lambda: self.get("/status")["mode"] == mode or None, f"{self.name} does not turn to {mode}")

    def get(self, path: str, port: str = "admin") -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=10) as answer:
            return json.load(answer)


@dataclass
class Cluster:
    hubs: dict[str, Hub]
    agent: Process
    registry: Service

    def turn(self, mode: str) -> None:
        """Every hub into this `ha.mode`."""
        for hub in self.hubs.values():
            hub.turn(mode)

    def holder(self) -> Hub:
        """The hub that owns the agent, whatever the mode."""
        return _until(self._owner, "the agent has not one owner")

    def _owner(self) -> Hub | None:
        hubs = [hub for hub in self.hubs.values() if any(entry["epoch"] for entry in hub.get("/status")["agents"])]
        return hubs[0] if len(hubs) == 1 else None

    def settled(self) -> tuple[Hub, Hub, Hub]:
        """Owner, standby and origin, once every hub is ready, linked to the others, and the agent has both tunnels."""
        return _until(self._roles, "the cluster does not settle")

    def _roles(self) -> tuple[Hub, Hub, Hub] | None:
        epochs = {}
        for hub in self.hubs.values():
            status = hub.get("/status")
            linked = [replica for replica in status["cluster"]["replicas"] if replica["linked"]]
            if status["ready"]["status"] != "ready" or len(linked) != len(REPLICAS) - 1:
                return None
            for entry in status["agents"]:
                epochs[hub.name] = entry["epoch"]
        owners = [name for name, epoch in epochs.items() if epoch]
        standbys = [name for name, epoch in epochs.items() if not epoch]
        if len(owners) != 1 or len(standbys) != 1:
            return None
        (origin,) = set(REPLICAS) - epochs.keys()
        routes = self.hubs[origin].get("/status")["cluster"]["agents"]
        if [entry["owner"] for entry in routes] != owners:
            return None
        return self.hubs[owners[0]], self.hubs[standbys[0]], self.hubs[origin]

    def takeovers(self) -> list[float]:
        """Milliseconds from the loss of the owner's tunnel to the new epoch, as the agent has logged them."""
        lines = self.agent.log.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event["outage_ms"] for event in events if event["event"] == "takeover"]


def _until(condition: Callable[[], T | None], complaint: str) -> T:
    deadline = time.monotonic() + SETTLE_SEC
    while (found := condition()) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{complaint} within {SETTLE_SEC:g} s")
        time.sleep(0.05)
    return found


@contextmanager
def cluster(service: Address, folder: Path) -> Iterator[Cluster]:
    """A cluster whose agent serves ``service``."""
    key = folder / "key"
    key.write_text(secrets.token_hex(32))
    token = folder / "token"
    token.write_text(
        output("token", "--key-file", str(key), "--agent-id", "bench", "--connector", "bench", "--ttl", "3600")
    )
    for secret in (key, token):
        secret.chmod(0o600)
    with ExitStack() as stack:
        registry = stack.enter_context(redis(folder))
        hubs = {}
        for name in REPLICAS:
            ports = {what: free_port() for what in ("listener", "edge", "admin", "mesh")}
            config = folder / f"{name}.yaml"
            config.write_text(HUB.format(name=name, key=key, redis=registry.address[1], **ports))
            hubs[name] = Hub(name, ports, config)
            stack.callback(hubs[name].stop)
        for hub in hubs.values():
            hub.start()
        urls = ", ".join(f"'ws://127.0.0.1:{hub.ports['edge']}/tunnel'" for hub in hubs.values())
        config = folder / "agent.yaml"
        config.write_text(AGENT.format(hubs=urls, token=token, host=service[0], port=service[1]))
        agent = Process(
            [sys.executable, "-m", "ncfast", "agent", "--config", str(config)], folder / "agent.log", cwd=ROOT
        )
        stack.callback(agent.stop)
        agent.wait_for_event("tunnel_up")
        yield Cluster(hubs, agent, registry)
