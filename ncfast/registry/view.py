"""The cached picture of the cluster: what opens are routed by. No I/O, and no await.

A replica lives as long as its lease is renewed. Whether it is, each hub sees by its own clock: the lease in the
registry has changed within `lease` seconds. So neither a step of the server's clock nor a wrong one here makes live
hubs vanish. Only of a replica seen for the first time the server's clock decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from ncfast.registry.entry import AgentEntry, Replica

RouteKey = tuple[str | None, str]  # tenant, connector
FOREVER = float("inf")


class View:
    """Agents and live replicas. `clock` is monotonic, `lease` in seconds."""

    def __init__(self, clock: Callable[[], float], lease: float) -> None:
        self._clock = clock
        self._lease = lease
        self._agents: dict[str, AgentEntry] = {}
        self._replicas: dict[str, Replica] = {}
        self._leases: dict[str, tuple[str, int, float]] = {}  # process, lease's end, when we first saw that one
        self._index: dict[RouteKey, dict[str, AgentEntry]] = {}
        self._routes: dict[RouteKey, list[AgentEntry]] = {}  # cut from the index, until something changes
        self._confirmed = clock()
        self._trusted = False
        self.complete = False  # the registry has said once that all was told: who is not here then was nowhere
        self.agents: Mapping[str, AgentEntry] = MappingProxyType(self._agents)
        self.replicas: Mapping[str, Replica] = MappingProxyType(self._replicas)

    @property
    def fresh(self) -> bool:
        """Confirmed lately. Otherwise it is the last view, of before the registry went away."""
        return self._trusted and self._clock() - self._confirmed <= self._lease

    @property
    def age(self) -> float:
        """Seconds since the registry last confirmed the picture, or since the start."""
        return self._clock() - self._confirmed

    def routes(self, tenant: str | None, connector: str) -> list[AgentEntry]:
        """Agents of all hubs, this one too, that take a new flow for the connector: neither they nor their hubs leave,
        and the hubs live. The list is shared: do not change it."""
        key = (tenant, connector)
        found = self._routes.get(key)
        if found is None:
            found = [entry for entry in self._index.get(key, {}).values() if not entry.draining and self._owned(entry)]
            if key in self._index:
                self._routes[key] = found
        return found

    def _owned(self, entry: AgentEntry) -> bool:
        owner = self._replicas.get(entry.owner)
        return owner is not None and owner.instance == entry.owner_instance and not owner.draining

    def agent(self, key: str) -> AgentEntry | None:
        return self._agents.get(key)

    def replica(self, replica_id: str) -> Replica | None:
        """A live one, or None."""
        return self._replicas.get(replica_id)

    # what the registry's makers change

    def put(self, entry: AgentEntry) -> bool:
        """Takes an entry in; whether it differs from what was there."""
        old = self._agents.get(entry.key)
        if old == entry:
            return False
        if old is not None:
            self._unlink(old)
        self._agents[entry.key] = entry
        for connector in sorted(entry.connectors):
            key = (entry.tenant, connector)
            self._index.setdefault(key, {})[entry.key] = entry
            self._routes.pop(key, None)
        return True

    def drop(self, key: str) -> AgentEntry | None:
        """Takes an entry out, and returns it."""
        old = self._agents.pop(key, None)
        if old is not None:
            self._unlink(old)
        return old

    def _unlink(self, entry: AgentEntry) -> None:
        for connector in entry.connectors:
            key = (entry.tenant, connector)
            self._routes.pop(key, None)
            entries = self._index[key]
            del entries[entry.key]
            if not entries:
                del self._index[key]

    def set_replicas(self, leases: Iterable[tuple[Replica, int, int]], keep: bool = False) -> bool:
        """The replicas of the registry as (replica, when its lease ends, how much of it is left), the latter two by the
        server's clock in ms. Those missing go, or stay with `keep`. Whether the live ones changed."""
        now = self._clock()
        live: dict[str, Replica] = {}
        seen: dict[str, tuple[str, int, float]] = {}
        for replica, end, left in leases:
            name = replica.replica_id
            old = self._leases.get(name)
            if old is not None and old[:2] == (replica.instance, end):
                seen[name] = old
            else:
                known = old is not None and old[0] == replica.instance
                seen[name] = (replica.instance, end, now if known or left >= 0 else -FOREVER)
            if now - seen[name][2] <= self._lease:
                live[name] = replica
        for name, replica in self._replicas.items():
            if keep and name not in seen:
                seen[name], live[name] = self._leases[name], replica
        self._leases = seen
        return self._live(live)

    def hold_leases(self) -> None:
        """All known replicas count as just renewed: the registry was away, and they could not."""
        now = self._clock()
        self._leases = {
            name: (process, end, now if name in self._replicas else at)
            for name, (process, end, at) in self._leases.items()
        }

    def _live(self, live: dict[str, Replica]) -> bool:
        if live == self._replicas:
            return False
        self._replicas.clear()
        self._replicas.update(live)
        self._routes.clear()
        return True

    def confirm(self) -> None:
        """The registry has just said that the picture is complete."""
        self._confirmed = self._clock()
        self._trusted = self.complete = True

    def doubt(self) -> None:
        """The registry does not answer: not fresh until it confirms again."""
        self._trusted = False
