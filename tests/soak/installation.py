"""What is soaked: three hubs with Redis and proxies between them, three agents, and the services behind these."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from support import services
from support.cluster import NAMES, Cluster
from support.ncfast_process import Agent, Hub
from support.peer import Address, Peer
from support.script import pattern, pattern_sha256
from support.successor import OperatedAgent, OperatedHub, StayingProgram

from ncfast.auth.mint import mint

from .services import nginx_files, postgres, postgres_programs

MIB = 1 << 20
FILE_SIZE = 16 * MIB
FILE_SEED = 9
TOKEN_SEC = 300  # that a token is good for; whoever renews them is earlier
DRAIN_SEC = 5  # that running flows are given; the default, 30 s, would be most of a short soak

# The timers that operators get, instead of those that tests make shorter.
PLAIN: dict[str, Any] = {"tunnel": None, "drain": {"timeout_sec": DRAIN_SEC}}
PLAIN_HUB: dict[str, Any] = {
    **PLAIN,
    "flow": None,
    "ha": {
        "lease_sec": None,
        "mesh": {"ping_interval_sec": None, "ping_timeout_sec": None, "connect_backoff_max_sec": None},
    },
}
PLAIN_AGENT: dict[str, Any] = {**PLAIN, "reconnect": None}


class SoakedHub(OperatedHub):
    """May be upgraded."""

    runs = StayingProgram


class SoakedAgent(OperatedAgent):
    """May be upgraded."""

    runs = StayingProgram


class Installation:
    """``veterans`` are the hub and the agent that no fault restarts, once the first rolling restart is over: what they
    use is looked at for as long as the soak lasts."""

    veterans = ("hub-c", "site-2")

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.closed: set[str] = set()  # hubs that a balancer would not send clients to
        self._ending = ExitStack()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        place = self._place
        self.peer = Peer(place("peer"))
        self._ending.callback(self.peer.stop)
        files = place("files") / "files"
        files.mkdir()
        with (files / "file").open("wb") as file:
            for offset in range(0, FILE_SIZE, 1 << 18):
                file.write(pattern(FILE_SEED, offset, 1 << 18))
        self.file_sha256 = pattern_sha256(FILE_SEED, FILE_SIZE)
        shared: dict[str, Address] = {
            "peer": self.peer.address,
            "ldap": self._ending.enter_context(services.slapd(place("ldap"))),
            "redis": self._ending.enter_context(services.redis_server(place("redis"))),
            "iperf3": self._ending.enter_context(services.iperf3_server(place("iperf3"))),
            "http": self._ending.enter_context(nginx_files(place("files"))),
        }
        if home := postgres_programs():
            shared["postgres"] = self._ending.enter_context(postgres(home))
        alone = {"solo": self.peer.address}
        self.cluster = Cluster(
            place("cluster"),
            {**shared, **alone},
            proxied=("mesh", "tunnel"),
            hub=PLAIN_HUB,
            agent=PLAIN_AGENT,
            agents=False,
            make_hub=SoakedHub,
            make_agent=SoakedAgent,
        )
        self._ending.callback(self.cluster.close)
        self._ending.callback(self._kill)
        for agent_id, first, targets in (
            ("site-1", "hub-a", shared),
            ("site-2", "hub-b", shared),
            ("site-3", "hub-c", alone),
        ):
            self.cluster.add_agent(agent_id, first=first, connectors=targets)
        self.cluster.wait_settled()

    def _place(self, name: str) -> Path:
        place = self.directory / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    @property
    def connectors(self) -> frozenset[str]:
        return frozenset(self.cluster.connectors)

    def served_by(self, agent_id: str) -> frozenset[str]:
        """The connectors of an agent."""
        return frozenset(entry["name"] for entry in self.agent(agent_id).config["connectors"])

    def served_by_it_alone(self, agent_id: str) -> frozenset[str]:
        """Those of them that no other agent serves."""
        others = [self.served_by(one.agent_id) for one in self.cluster.agents if one.agent_id != agent_id]
        return self.served_by(agent_id).difference(*others)

    def agent(self, agent_id: str) -> Agent:
        return next(agent for agent in self.cluster.agents if agent.agent_id == agent_id)

    def renew_tokens(self) -> None:
        """Give every agent a token of its own that lasts for another while, as whoever issues them does."""
        for agent in self.cluster.agents:
            names = self.served_by(agent.agent_id)
            fresh = agent.token_file.with_suffix(".new")
            fresh.write_text(mint(self.cluster.key_file.read_bytes(), agent.agent_id, names, ttl=TOKEN_SEC))
            fresh.chmod(0o600)
            fresh.replace(agent.token_file)

    def open_hubs(self) -> list[str]:
        """Hubs that clients are sent to."""
        return [name for name in NAMES if name not in self.closed]

    def processes(self) -> dict[str, Hub | Agent]:
        """All that is ours and may run."""
        return {**self.cluster.hubs, **{agent.agent_id: agent for agent in self.cluster.agents}}

    def log_paths(self) -> dict[str, Path]:
        return {name: one.log.path for name, one in self.processes().items()}

    def _kill(self) -> None:
        """Whoever still runs has been broken off, maybe while it stood still: there is nobody left to drain for."""
        for one in self.processes().values():
            one.program.kill()

    def close(self) -> None:
        """End every process that is left."""
        self._ending.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
