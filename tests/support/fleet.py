"""Some dozens of agents of a cluster, in one process of their own."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Self

from ncfast.auth import mint
from support.cluster import Cluster
from support.eventlog import EventLog
from support.ncfast_process import FAST_AGENT
from support.process import support_program


class Fleet:
    """`count` agents that know all hubs, in the order of their names; each serves the connectors of `cluster`."""

    def __init__(self, cluster: Cluster, count: int, *, pace: float = 200.0) -> None:
        self.cluster = cluster
        self.names = [f"fleet-{number:04}" for number in range(count)]
        path = cluster.directory / "fleet.json"
        path.write_text(json.dumps({"pace": pace, "agents": [self._config(name) for name in self.names]}))
        self.program = support_program("fleet_program", cluster.directory, "fleet", str(path))
        self.log = EventLog(self.program.err_path, self.program.exit_code)
        assert self.program.answer() == count

    def _config(self, name: str) -> dict[str, Any]:
        cluster = self.cluster
        token = cluster.directory / f"{name}.jwt"
        token.write_text(mint(cluster.key_file.read_bytes(), name, connectors=list(cluster.connectors)))
        connectors = [{"name": one, "target": f"{host}:{port}"} for one, (host, port) in cluster.connectors.items()]
        return {
            **FAST_AGENT,
            "hubs": [cluster.tunnel_url(hub) for hub in cluster.names],
            "allow_plaintext": True,
            "agent_id": name,
            "token_file": str(token),
            "connectors": connectors,
            "http_proxy": "off",
        }

    def owned(self) -> Counter[str]:
        """How many each live hub owns, as it says itself."""
        return Counter({name: sum(1 for one in self._known(name) if one["epoch"]) for name in self.cluster.live})

    def standing(self) -> Counter[str]:
        """How many stand by at each live hub."""
        return Counter({name: sum(1 for one in self._known(name) if not one["epoch"]) for name in self.cluster.live})

    def _known(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.cluster.hubs[name].status()["agents"] if one["agent_id"].startswith("fleet-")]

    def settled(self) -> bool:
        """Whether each has one owner and one standby."""
        return self.owned().total() == self.standing().total() == len(self.names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        code = self.program.stop()
        assert error[0] is not None or code == 0, self.program.tail()
