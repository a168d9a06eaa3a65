"""Where the faults are played: three hubs with Redis, mutual TLS, one agent, and two Prometheus servers.

A window of ten minutes is one of fifty seconds here: the shipped rules with every duration divided by `BY`, those of
the objectives, whose windows are hours and days, by `OBJECTIVES_BY`. Thresholds are what they are.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from support.cluster import Cluster
from support.ncfast_process import Agent, Hub, merged
from support.peer import Address, Peer, is_refused, order_line
from support.prometheus import LOOKBACK, SCRAPED, Prometheus, milliseconds, scaled
from support.until import PATIENCE, wait_until

BY = 12
OBJECTIVES_BY = 60
HOLD_SEC = 5  # that a client is held for, until it is refused
SOONEST = 3.0  # seconds between two scrapes: a busy machine answers within
MIB = 1 << 20

# A link outlives a hub that is frozen, as it may where the operator has chosen so: then a stale owner is heard.
HUB: dict[str, Any] = {
    "ha": {"cluster": "east", "mesh": {"ping_timeout_sec": 60}},
    "flow": {"flow_grace_sec": 60, "stall_sec": 60},
}


class Stage:
    """Leaving the context ends every process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.beside = ExitStack()  # left when a fault's alerts are over
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with self._running:
            made = self.directory / "cluster"
            made.mkdir()
            self.peer = Peer(self.directory)
            self._running.callback(self.peer.stop)
            self.cluster = Cluster(
                made,
                {"peer": self.peer.address},
                proxied=("mesh", "tunnel", "redis"),
                security="tls",
                hub=HUB,
                listener={"hold_sec": HOLD_SEC},
            )
            self._running.callback(self.cluster.close)
            self.prometheus = self._prometheus("alerts", BY)
            self.objectives = self._prometheus("objectives", OBJECTIVES_BY)
            self.settle()
            self._running = self._running.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._running.close()

    def _prometheus(self, name: str, by: float) -> Prometheus:
        directory = self.directory / name
        directory.mkdir()
        program = Prometheus(
            directory,
            self.cluster.places,
            {name: hub.admin for name, hub in self.cluster.hubs.items()},
            rules=lambda path: scaled(path, by),
            every=milliseconds(max(SCRAPED / by, SOONEST)),
            lookback=milliseconds(LOOKBACK / by),
        )
        self._running.callback(program.stop)
        program.wait(f"count(nowconnect_uptime_seconds) == {len(self.cluster.names)}")
        return program

    def settle(self) -> tuple[str, str, str]:
        """All hubs ready, the agent with its standby: owner, standby, third."""
        return self.cluster.wait_settled()

    def watcher(self, alert: str) -> Prometheus:
        """Who evaluates the alert's rule in windows that are short enough."""
        from monitoring.alerts import OBJECTIVES

        return self.objectives if alert in {one.name for one in OBJECTIVES} else self.prometheus

    # clients

    def address(self, name: str, listener: str = "peer") -> Address:
        return self.cluster.address(name, listener)

    def talk(self, name: str) -> socket.socket:
        """A client of the hub whose flow is open, and echoes."""
        sock = socket.create_connection(self.address(name), timeout=PATIENCE)
        sock.sendall(order_line(self.peer.next_seed(), [["echo"], ["fin"]]) + b"?")
        assert sock.recv(1) == b"?"
        return sock

    def pull(self, name: str, size: int, *, read: bool = True) -> socket.socket:
        """A client whose flow is sent so many bytes; without `read` it takes none of them."""
        sock = socket.socket()
        if not read:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE)
        sock.connect(self.address(name))
        sock.sendall(order_line(self.peer.next_seed(), [["send", size], ["fin"]]))
        if read:
            assert sock.recv(1)
        return sock

    def visit(self, name: str) -> None:
        """A short flow, from beginning to end."""
        with self.talk(name) as sock:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass

    def refused(self, name: str, listener: str = "peer") -> None:
        """A client whom the hub refuses."""
        assert is_refused(self.address(name, listener))

    def run_on(self, action: Callable[[], object]) -> None:
        """The action again and again, until the fault's alerts are over."""
        self.beside.enter_context(self.again(action, pause=0.05))

    @contextmanager
    def again(self, action: Callable[[], object], pause: float = 0.2) -> Iterator[None]:
        """The action beside what follows, again and again, with a pause in seconds."""
        over = threading.Event()
        failed: list[BaseException] = []

        def run() -> None:
            try:
                while not over.is_set():
                    action()
                    over.wait(pause)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if failed:
            raise failed[0]

    # hubs, agents

    @contextmanager
    def reloaded(self, name: str, change: Mapping[str, Any]) -> Iterator[Hub]:
        """The hub with another configuration, by SIGHUP both ways."""
        hub = self.cluster.hubs[name]
        assert hub.reload(merged(hub.config, change))
        yield hub
        assert hub.reload(hub.config)

    @contextmanager
    def restarted(
        self,
        name: str,
        change: Mapping[str, Any] | None = None,
        *,
        max_files: int | None = None,
        env: Sequence[str] = (),
    ) -> Iterator[Hub]:
        """The hub as another process, with another configuration, limit of descriptors or environment; afterwards as
        it was."""
        hub = self.cluster.hubs[name]
        before = (hub.config, hub.max_files, hub.prefix)
        self.cluster.stop(name)
        hub.config = merged(hub.config, change or {})
        hub.max_files = max_files
        hub.prefix = [*hub.prefix, *(["env", *env] if env else [])]
        hub.write_config(hub.config)
        self.cluster.start(name)
        yield hub
        self.cluster.stop(name)
        hub.config, hub.max_files, hub.prefix = before
        hub.write_config(hub.config)
        self.cluster.start(name)

    @contextmanager
    def site(self, agent_id: str, token: str, **more: Any) -> Iterator[Agent]:
        """One more agent, for a while; its log is `agent.log` of the runbooks. `more` is of `Agent`."""
        cluster = self.cluster
        agent = Agent(
            cluster.directory,
            hubs=[cluster.tunnel_url(name) for name in cluster.names],
            agent_id=agent_id,
            token=token,
            connectors={"peer": "%s:%d" % self.peer.address},
            overrides={"allow_plaintext": True},
            name=f"agent-{agent_id}-{len(cluster.agents)}",
            **more,
        )
        cluster.agents.append(agent)
        try:
            yield agent
        finally:
            cluster.agents.remove(agent)
            agent.stop()

    def wait_reasons(self, name: str, *reasons: str) -> None:
        """Until the hub says degraded, for these reasons among others."""
        wait_until(
            lambda: set(reasons) <= set(json.loads(self.cluster.hubs[name].get("/readyz")[1]).get("reasons", ())),
            f"{name} degraded: {reasons}",
        )
