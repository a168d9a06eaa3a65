"""What is upgraded: a hub with an agent, or three hubs with Redis and an agent; and the cases that are played there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from support.cluster import AGENT, NAMES, Cluster
from support.ncfast_process import Agent, Hub, merged
from support.peer import Address
from support.places import Loopback
from support.successor import OperatedAgent, OperatedHub
from support.topology import Topology
from support.until import PATIENCE

from .tunnels import Kind, Tunnels

Topic = Literal["nothing", "hub", "agent", "owner", "origin", "owner and origin"]

# The timers that operators get, instead of those that tests make shorter; but hubs that are started one after the other
# dial again soon, and a busy machine may take its time: what it takes is measured, and is no loss.
PLAIN: dict[str, Any] = {"tunnel": None, "flow": {"open_timeout_sec": PATIENCE}, "upgrade": {"timeout_sec": PATIENCE}}
PLAIN_CLUSTER: dict[str, Any] = {
    **PLAIN,
    "flow": {"flow_grace_sec": None, "open_timeout_sec": PATIENCE},
    "ha": {"lease_sec": None, "mesh": {"ping_interval_sec": None, "ping_timeout_sec": None}},
}
LISTENER = {"hold_sec": PATIENCE}


@dataclass(frozen=True)
class Case:
    """A topology, how its tunnels are, and what is upgraded in it, again and again."""

    topology: Literal["single hub", "three hubs"]
    tunnels: Kind
    upgraded: Topic

    @property
    def name(self) -> str:
        return f"{self.topology}, {self.tunnels}, {self.upgraded}"


CASES = [
    Case("single hub", "plain", "nothing"),
    *(Case("single hub", tunnels, what) for tunnels in ("plain", "TLS", "nginx") for what in ("hub", "agent")),
    *(
        Case("three hubs", tunnels, what)
        for tunnels in ("plain", "TLS", "nginx")
        for what in ("owner", "origin", "owner and origin", "agent")
    ),
]


def upgrade(one: Hub | Agent) -> None:
    """By the command, which has to say that it is done."""
    assert isinstance(one, OperatedHub | OperatedAgent)
    done = one.upgrade()
    assert done.returncode == 0, f"{one.program.name}: {done.stderr}"


class Site(Protocol):
    """Where a case is played: hubs and an agent, all started."""

    @property
    def agent(self) -> Agent: ...

    def every_hub(self) -> list[Hub]: ...

    def entrance(self, connector: str) -> Address:
        """Where clients come."""

    def upgrade(self, what: Topic, number: int) -> None:
        """One upgrade, to its end; `number` counts them."""

    def check(self) -> None:
        """What must hold when no client is left."""

    def close(self) -> None: ...


class Single(Topology):
    """One hub, without a cluster."""

    def __init__(self, directory: Path, services: Mapping[str, Address], tunnels: Kind) -> None:
        self._tunnels = Tunnels(tunnels, directory)
        super().__init__(
            directory,
            services,
            hub=merged(PLAIN, self._tunnels.hub),
            agent=merged(PLAIN, self._tunnels.agent),
            listener=LISTENER,
            agents=0,
            make_hub=OperatedHub,
            make_agent=OperatedAgent,
        )
        try:
            self._tunnels.open([self.hub.edge])
            self.add_agent(AGENT)
        except BaseException:
            self.close()
            raise

    @property
    def tunnel_url(self) -> str:
        return self._tunnels.url(self.hub.edge)

    def every_hub(self) -> list[Hub]:
        return [self.hub]

    def entrance(self, connector: str) -> Address:
        return self.address(connector)

    def upgrade(self, what: Topic, number: int) -> None:
        upgrade(self.agent if what == "agent" else self.hub)

    def close(self) -> None:
        super().close()
        self._tunnels.close()


class Three(Cluster):
    """Clients come to the hub that has no tunnel of the agent, so that flows cross the mesh."""

    def __init__(self, directory: Path, services: Mapping[str, Address], tunnels: Kind) -> None:
        places = Loopback()
        self._tunnels = Tunnels(tunnels, directory, map(places.host, NAMES))
        super().__init__(
            directory,
            services,
            places=places,
            hub=merged(PLAIN_CLUSTER, self._tunnels.hub),
            agent=merged(PLAIN, self._tunnels.agent),
            listener=LISTENER,
            agents=False,
            make_hub=OperatedHub,
            make_agent=OperatedAgent,
        )
        try:
            self._tunnels.open([hub.edge for hub in self.hubs.values()])
            self.add_agent(AGENT)
            *_, self._origin = self.wait_settled()
        except BaseException:
            self.close()
            raise

    def tunnel_url(self, name: str) -> str:
        return self._tunnels.url(self._edges[name])

    def every_hub(self) -> list[Hub]:
        return list(self.hubs.values())

    def entrance(self, connector: str) -> Address:
        return self.address(self._origin, connector)

    def upgrade(self, what: Topic, number: int) -> None:
        if what == "agent":
            upgrade(self.agent)
            return
        owner = self.wait_owner()
        both = (owner, self._origin)
        names = {"owner": owner, "origin": self._origin, "owner and origin": both[number % 2]}
        upgrade(self.hubs[names[what]])
        assert self.wait_owner() == owner, "the agent has gone to another hub"

    def close(self) -> None:
        super().close()
        self._tunnels.close()


def site(directory: Path, services: Mapping[str, Address], case: Case) -> Site:
    return (Single if case.topology == "single hub" else Three)(directory, services, case.tunnels)
