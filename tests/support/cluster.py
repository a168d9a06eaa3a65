"""Several hubs, a Redis, agents with a standby, and what lies between them: a cluster as an operator runs it."""

from __future__ import annotations

import json
import secrets
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import trustme

from ncfast.auth import mint
from ncfast.mesh.certificates import read_secret
from support.fault_proxy import FaultProxy
from support.ncfast_process import ACCESS, FAST_HUB, Agent, Hub, merged
from support.nginx import Ingress
from support.peer import Address
from support.places import Loopback, Places
from support.redis_server import RedisServer
from support.transfer import Transfer
from support.until import wait_until

NAMES = ("hub-a", "hub-b", "hub-c")
AGENT = "site-1"
Security = Literal["secret", "tls", "unix", "ingress"]

# Timers short enough that a test sees them fire; every other key keeps its default.
FAST_CLUSTER: dict[str, Any] = {
    "ha": {
        "lease_sec": 3,
        "level": {"enabled": False},  # a test that wants it says so
        "mesh": {"ping_interval_sec": 0.5, "ping_timeout_sec": 2, "connect_backoff_max_sec": 1},
    },
    "flow": {"flow_grace_sec": 20},
}


@dataclass(frozen=True)
class Door:
    """One hub's listeners, for `support.bystander.Bystander`."""

    cluster: Cluster
    name: str

    def address(self, connector: str) -> Address:
        return self.cluster.address(self.name, connector)


class Cluster:
    """Hubs in active mode with one listener for each connector, and one agent that may go to each of them.

    ``proxied`` names what a fault proxy for each hub stands in front of: ``mesh`` (what peers dial; of two hubs
    the smaller name's dial is the one that stays), ``tunnel`` (what agents dial), ``redis`` (what the hub dials).
    ``security`` is how the mesh is: plain TCP with a shared secret, mutual TLS, Unix sockets, or WebSockets through an
    nginx that ends the mutual TLS, with a secret.
    """

    def __init__(
        self,
        directory: Path,
        connectors: Mapping[str, Address],
        *,
        names: Iterable[str] = NAMES,
        proxied: Iterable[str] = (),
        security: Security = "secret",
        places: Places | None = None,
        hub: Mapping[str, Any] | None = None,
        agent: Mapping[str, Any] | None = None,
        listener: Mapping[str, Any] | None = None,
        agents: bool = True,
        make_hub: type[Hub] = Hub,
        make_agent: type[Agent] = Agent,
    ) -> None:
        self._hub_type, self._agent_type = make_hub, make_agent
        self.names = tuple(names)
        self.connectors = dict(connectors)
        self.directory = directory
        self.places = places or Loopback()
        self.hubs: dict[str, Hub] = {}
        self.agents: list[Agent] = []
        self.proxies: dict[tuple[str, str], FaultProxy] = {}  # by what and whose
        self.away: set[str] = set()  # hubs that are dead or frozen now
        self._marks: dict[str, int] = {}
        self._agent_overrides = dict(agent or {})
        self._listener = dict(listener or {})
        self._proxied = frozenset(proxied)
        self._security = security
        self.redis: RedisServer | None = None
        self.ingress: Ingress | None = None
        self.key_file = self._secret("jwt.key")
        try:
            self._prepare()
            for name in self.names:
                self.hubs[name] = self._make_hub(name, hub or {})
            if agents:
                self.add_agent(AGENT)
            self.mark()
        except BaseException:
            self.close()
            raise

    # making

    def _prepare(self) -> None:
        self.redis = RedisServer(self.directory, self.places)
        self._mesh_listen = {name: (self.places.host(name), self.places.port(name)) for name in self.names}
        self._edges = {name: (self.places.host(name), self.places.port(name)) for name in self.names}
        for name in self.names:
            self._stand_before("mesh", name, self._mesh_listen[name])
            self._stand_before("tunnel", name, self._edges[name])
            self._stand_before("redis", name, self.redis.address)
        if self._security in ("secret", "ingress"):
            self._secret("mesh.secret")
        if self._security in ("tls", "ingress"):
            self.authority = trustme.CA()
            self.trust(self.authority)
            for name in self.names:
                self.certify(name, self.authority)
        if self._security == "ingress":
            pem = self.directory / "ingress.pem"
            issued = self.authority.issue_cert(*(host for host, _ in self._mesh_listen.values()))
            issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
            servers = {self._mesh_listen[name]: self._edges[name] for name in self.names}
            self.ingress = Ingress(self.directory, servers, pem=pem, ca=self.directory / "mesh-ca.pem")

    def trust(self, *authorities: trustme.CA) -> None:
        """Write the CA bundle of the mesh."""
        pem = b"".join(authority.cert_pem.bytes() for authority in authorities)
        (self.directory / "mesh-ca.pem").write_bytes(pem)

    def certify(
        self, name: str, authority: trustme.CA, names: str | None = None, not_after: datetime | None = None
    ) -> None:
        """Write the hub's key and certificate; its alternative name is the hub's (DNS), or ``names``."""
        issued = authority.issue_cert(names or name, not_after=not_after)
        path = self.directory / f"{name}.pem"
        fresh = path.with_suffix(".new")
        fresh.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        fresh.rename(path)

    @property
    def mesh_secret(self) -> bytes:
        """As the hubs read it from the file."""
        return read_secret(self.directory / "mesh.secret")

    def _secret(self, name: str) -> Path:
        path = self.directory / name
        path.write_text(secrets.token_hex(32))
        path.chmod(0o600)
        return path

    def _stand_before(self, what: str, name: str, upstream: Address) -> None:
        if what in self._proxied:
            self.proxies[what, name] = FaultProxy(self.directory, upstream, f"{what}-proxy-{name}")

    def _way(self, what: str, name: str, direct: Address) -> str:
        """``host:port`` of the proxy, or of the thing itself."""
        proxy = self.proxies.get((what, name))
        host, port = proxy.address if proxy else direct
        return f"{host}:{port}"

    def _mesh_url(self, name: str) -> str:
        """Where the hub's peers find it."""
        if self._security == "unix":
            return f"unix://{self.directory}/{name}.sock"
        way = self._way("mesh", name, self._mesh_listen[name])
        return {"tls": f"tls://{way}", "ingress": f"wss://{way}/mesh"}.get(self._security, f"tcp://{way}")

    def tunnel_url(self, name: str) -> str:
        """Where agents dial the hub."""
        return f"ws://{self._way('tunnel', name, self._edges[name])}/tunnel"

    def _make_hub(self, name: str, overrides: Mapping[str, Any]) -> Hub:
        host = self.places.host(name)
        url = {peer: self._mesh_url(peer) for peer in self.names}
        mesh: dict[str, Any] = {
            "advertise": url[name],
            "peers": [url[peer] for peer in self.names if peer != name],
            "require_mtls": self._security in ("tls", "ingress"),
        }
        if self._security == "unix":
            mesh["listen_unix"] = str(self.directory / f"{name}.sock")
        elif self._security == "ingress":
            mesh["trusted_proxies"] = ["127.0.0.1/32"]
        else:
            mesh["listen"] = "%s:%d" % self._mesh_listen[name]
        if mesh["require_mtls"]:
            pem = str(self.directory / f"{name}.pem")
            mesh["tls"] = {"ca_bundle": str(self.directory / "mesh-ca.pem"), "cert_file": pem, "key_file": pem}
        if self._security in ("secret", "ingress"):
            mesh["secret_file"] = str(self.directory / "mesh.secret")
        base = {
            "edge": {"bind": "%s:%d" % self._edges[name]},
            "admin": {"bind": f"{host}:{self.places.port(name)}"},
            "auth": {"jwt": {"key_file": str(self.key_file)}},
            "listeners": [
                {
                    "name": connector,
                    "bind": f"{host}:{self.places.port(name)}",
                    "connector": connector,
                    **self._listener,
                }
                for connector in self.connectors
            ],
            "ha": {
                "enabled": True,
                "mode": "active",
                "replica_id": name,
                "redis_url": f"redis://{self._way('redis', name, self.redis.address)}/0",
                "mesh": mesh,
            },
        }
        config = merged(merged(merged(FAST_HUB, FAST_CLUSTER), base), overrides)
        return self._hub_type(self.directory, config, name=name, prefix=self.places.prefix(name))

    def add_agent(
        self,
        agent_id: str,
        *,
        first: str | None = None,
        connectors: Mapping[str, Address] | None = None,
        scope: Iterable[str] | None = None,
        tenant: str | None = None,
        name: str = "",
        prefix: Sequence[str] = (),
    ) -> Agent:
        """One more agent; ``first`` is the hub that it tries before the others, ``scope`` what its token allows,
        ``prefix`` words before its command."""
        order = sorted(self.names, key=lambda name: (name != first, name))
        targets = self.connectors if connectors is None else connectors
        allowed = list(targets if scope is None else scope)
        agent = self._agent_type(
            self.directory,
            hubs=[self.tunnel_url(name) for name in order],
            agent_id=agent_id,
            token=mint(self.key_file.read_bytes(), agent_id, connectors=allowed, tenant=tenant),
            connectors={name: f"{host}:{port}" for name, (host, port) in targets.items()},
            overrides={"allow_plaintext": True, **self._agent_overrides},  # namespaces are no loopback
            name=name or f"agent-{agent_id}",
            prefix=prefix,
        )
        self.agents.append(agent)
        return agent

    # looking

    @property
    def live(self) -> dict[str, Hub]:
        """Hubs that answer."""
        return {name: hub for name, hub in self.hubs.items() if name not in self.away}

    @property
    def agent(self) -> Agent:
        """The first agent."""
        return self.agents[0]

    def address(self, name: str, connector: str = "peer") -> Address:
        """Where clients of a hub connect."""
        return self.hubs[name].listener(connector)

    def sessions(self, agent_id: str = AGENT) -> dict[str, dict[str, Any]]:
        """What each live hub that holds a tunnel of the agent says of it; a standby has epoch 0."""
        return {
            name: entry
            for name, hub in self.live.items()
            for entry in hub.status()["agents"]
            if entry["agent_id"] == agent_id
        }

    def owner(self, agent_id: str = AGENT) -> str | None:
        """The one live hub that holds the agent under an epoch; None while there is none, or more than one."""
        owners = [name for name, entry in self.sessions(agent_id).items() if entry["epoch"]]
        return owners[0] if len(owners) == 1 else None

    def grants(self, agent: Agent | None = None) -> int:
        """How often the agent was granted an epoch so far."""
        return len(self.epochs(agent))

    def wait_grant(self, after: int, agent: Agent | None = None) -> int:
        """Until the agent was granted an epoch more often than ``after`` times; that epoch."""
        return wait_until(lambda: self.epochs(agent)[after:], f"a grant after {after}")[0]

    def mark(self) -> None:
        """From here on `line_of` looks."""
        self._marks = {name: hub.log.mark() for name, hub in self.hubs.items()}

    def line_of(self, name: str, transfer: Transfer) -> dict[str, Any]:
        """What the origin has logged at the end of a transfer that was complete."""
        return self.hubs[name].log.wait(ACCESS, after=self._marks[name], listener="peer", bytes_out=transfer.size)

    def links(self, name: str) -> dict[str, dict[str, Any]]:
        """The hub's table of mesh links, by peer."""
        return {row["peer"]: row for row in self.hubs[name].status()["cluster"]["mesh"]}

    def linked(self, one: str, other: str) -> bool:
        """Whether a link to the other hub stands, as the one sees it."""
        return self.links(one).get(other, {}).get("state") == "up"

    def replicas(self, name: str) -> dict[str, dict[str, Any]]:
        """The live hubs as one of them knows them."""
        return {row["replica_id"]: row for row in self.hubs[name].status()["cluster"]["replicas"]}

    def routes(self, name: str) -> list[dict[str, Any]]:
        """The cluster's agents as one hub knows them."""
        return self.hubs[name].status()["cluster"]["agents"]

    def mesh_address(self, name: str) -> Address:
        """Where peers of the hub connect."""
        return self._mesh_listen[name]

    def mesh_proxy(self, one: str, other: str) -> FaultProxy:
        """What the link between two hubs goes through: the smaller name has dialled the larger."""
        return self.proxies["mesh", max(one, other)]

    def door(self, name: str) -> Door:
        """The hub as a bystander meets it."""
        return Door(self, name)

    def wait_owner(self, *, other_than: str = "", agent_id: str = AGENT) -> str:
        """Until one live hub, and not ``other_than``, owns the agent."""
        return wait_until(
            lambda: (owner := self.owner(agent_id)) != other_than and owner,
            f"an owner of {agent_id}, other than {other_than or 'nobody'}",
        )

    def readiness(self, name: str) -> tuple[int, dict[str, Any]]:
        """Status and body of the hub's /readyz, at the admin edge: that of agents may have TLS."""
        code, body = self.hubs[name].get("/readyz", admin=True)
        return code, json.loads(body)

    def wait_ready(self, *names: str) -> None:
        """Until the hubs (by default those that are live) say that nothing is missing."""
        for name in names or self.live:
            wait_until(lambda name=name: self.readiness(name) == (200, {"status": "ready"}), f"{name} ready")

    def wait_degraded(self, name: str, *reasons: str) -> None:
        """Until the hub says degraded for exactly these reasons; it must be 200 all the time."""

        def degraded() -> bool:
            code, body = self.readiness(name)
            assert code == 200, f"{name}: /readyz {code} {body} while it serves"
            return body == {"status": "degraded", "reasons": list(reasons)}

        wait_until(degraded, lambda: f"{name} degraded: {reasons}, /readyz says {self.readiness(name)}")

    def wait_settled(self) -> tuple[str, str, str]:
        """Until all hubs are ready and every agent has owner and standby; the first agent's owner, standby, and a
        third."""
        assert not self.away, f"not back yet: {self.away}"
        self.wait_ready()

        def placed(agent_id: str) -> tuple[str, str] | None:
            found = self.sessions(agent_id)
            owners = [name for name, entry in found.items() if entry["epoch"]]
            standbys = [name for name, entry in found.items() if not entry["epoch"]]
            return (owners[0], standbys[0]) if len(owners) == len(standbys) == 1 else None

        for agent in reversed(self.agents):
            owner, standby = wait_until(
                lambda agent_id=agent.agent_id: placed(agent_id), f"owner and standby of {agent.agent_id}"
            )
        third = next(name for name in self.names if name not in (owner, standby))
        return owner, standby, third

    def epochs(self, agent: Agent | None = None) -> list[int]:
        """The epochs that the agent's present and earlier processes were granted, in order."""
        events = (agent or self.agent).log.events()
        return [event["epoch"] for event in events if event["event"] == "tunnel_up" and event.get("epoch")]

    # faults

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self.away.add(name)
        self.hubs[name].program.kill()

    def stop(self, name: str) -> int:
        """SIGTERM, so a drain; the exit code."""
        self.away.add(name)
        return self.hubs[name].program.stop()

    def start(self, name: str) -> None:
        """Back, at the same addresses."""
        self.hubs[name].start()
        self.away.discard(name)

    def freeze(self, name: str) -> None:
        """SIGSTOP: no FIN, no reset, the kernel still acknowledges."""
        self.away.add(name)
        self.hubs[name].program.signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self.hubs[name].program.signal(signal.SIGCONT)
        self.away.discard(name)

    # the end

    def check_between(self) -> None:
        """What must hold whenever no client is there: conservation, rising epochs, nothing relayed, clean logs."""
        for name, hub in self.live.items():
            hub.check_conservation()
            wait_until(lambda hub=hub: not hub.status()["flows"]["relayed"], f"{name} relaying nothing")
        for agent in self.agents:
            self.check_epochs(agent)
            agent.check_log()
        for hub in self.hubs.values():
            hub.check_log()

    def check(self) -> None:
        """What must hold after every test; then orderly exits with code 0."""
        self.check_between()
        for agent in self.agents:
            assert agent.stop() == 0, agent.program.tail()
            agent.check_log()
        for name, hub in self.hubs.items():
            if name not in self.away:
                assert hub.stop() == 0, hub.program.tail()
            hub.check_log()

    def check_epochs(self, agent: Agent | None = None) -> None:
        """Each epoch that the agent was granted is above the one before."""
        epochs = self.epochs(agent)
        assert all(before < after for before, after in zip(epochs, epochs[1:], strict=False)), epochs

    def logs(self) -> str:
        """The ends of all logs, without the flows that ended well, for a failure report."""
        programs = [a.program for a in self.agents] + [h.program for h in self.hubs.values()]
        return "\n".join(_tail(program.err_path) for program in programs)

    def close(self) -> None:
        """End every process that is left."""
        for hub in self.hubs.values():
            if hub.program.exit_code() is None:
                hub.program.signal(signal.SIGCONT)  # a frozen one takes no SIGTERM
        for part in [
            *self.agents,
            *self.hubs.values(),
            *self.proxies.values(),
            *filter(None, [self.ingress, self.redis]),
        ]:
            part.stop()
        self.places.close()


def _tail(path: Path, lines: int = 50) -> str:
    told = [line[:600] for line in path.read_text(errors="replace").splitlines() if '"reason":"closed"' not in line]
    return "\n".join([f"--- {path.name}", *told[-lines:]])
