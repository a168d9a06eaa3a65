"""What mode `active` would decide for each client, while the mode is `shadow`. Only looks.

Two questions are counted. Does `active` do otherwise than what is done (`shadow_decisions`)? And by whom would the
clients of each connector be served: by an agent here, across the mesh, or by nobody (`shadow_clients`)?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ncfast.hub.client import ClientInfo
from ncfast.hub.ground import Ground
from ncfast.hub.sessions import Sessions
from ncfast.registry import DistributedRegistry

SERVED = {"local": "here", "mesh": "mesh", "none": "nobody"}  # by decision


class Shadow:
    """Of one hub. `guided`: whether clients may go by what the view says; `reachable`: whether there is a way to
    another hub's agent for the client."""

    def __init__(
        self,
        ground: Ground,
        sessions: Sessions,
        registry: DistributedRegistry,
        guided: Callable[[], bool],
        reachable: Callable[[ClientInfo], bool],
    ) -> None:
        self._ground = ground
        self._sessions = sessions
        self._registry = registry
        self._guided = guided
        self._reachable = reachable
        # connector -> when the cluster knew our agents otherwise than we do, for the last time
        self._misknown: dict[str, float] = {}

    def decide(self, info: ClientInfo) -> None:
        """Counts a client that has come."""
        ground, view = self._ground, self._registry.view
        local = self._sessions.serving(*info.key)
        known = {entry.key: entry for entry in view.routes(*info.key)} if self._guided() else {}
        if local:  # the same, if the cluster knows our agents as we do
            decision = "local"
            agrees = all(
                one.key in known and known[one.key].owner == ground.replica_id and known[one.key].epoch == one.epoch
                for one in local
            )
            if not agrees:
                self._misknown[info.connector] = ground.clock()
        else:
            decision = "mesh" if self._reachable(info) else "none"
            agrees = decision == "none"
        ground.stats.shadow_decisions[decision, "yes" if agrees else "no"] += 1
        ground.stats.shadow_clients[info.connector, SERVED[decision]] += 1

    def rows(self, connectors: set[str]) -> list[dict[str, Any]]:
        """For each of the connectors its clients so far by whom active would have served them, and the seconds since
        the cluster last knew our agents otherwise than we do, or None."""
        clients, now = self._ground.stats.shadow_clients, self._ground.clock()
        return [
            {
                "connector": connector,
                **{served: clients[connector, served] for served in SERVED.values()},
                "misknown_sec": None if connector not in self._misknown else round(now - self._misknown[connector], 1),
            }
            for connector in sorted(connectors)
        ]
