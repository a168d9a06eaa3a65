"""client → hub listener → tunnel (→ fault proxy) → agent → service, for one test or for a module of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ncfast.auth import mint
from support.fault_proxy import FaultProxy
from support.ncfast_process import FAST_HUB, Agent, Hub, merged
from support.peer import Address


class Topology:
    """A hub, one agent or more, and what lies between them.

    ``connectors`` maps a connector's name to its service's address; there is one listener of that name for
    each. With ``direct`` there is neither hub nor agent and clients go straight to the services: the control
    experiment that shows a test's own client and service to be sound.
    """

    def __init__(
        self,
        directory: Path,
        connectors: Mapping[str, Address],
        *,
        direct: bool = False,
        via_proxy: bool = False,
        hub: Mapping[str, Any] | None = None,
        agent: Mapping[str, Any] | None = None,
        listener: Mapping[str, Any] | None = None,
        agent_connector: Mapping[str, Any] | None = None,
        agents: int = 1,
        max_files: int | None = None,
        prefix: Sequence[str] = (),
        make_hub: type[Hub] = Hub,
        make_agent: type[Agent] = Agent,
    ) -> None:
        self.connectors = dict(connectors)
        self.direct = direct
        self.directory = directory
        self.agents: list[Agent] = []
        self.proxy: FaultProxy | None = None
        self._hub: Hub | None = None
        self._agent_overrides = dict(agent or {})
        self._agent_connector = dict(agent_connector or {})
        self._prefix = prefix
        self._make_agent = make_agent
        if direct:
            if via_proxy:  # the fault proxy then stands between client and the only service
                (service,) = self.connectors.values()
                self.proxy = FaultProxy(directory, service)
            return
        self.key_file = directory / "jwt.key"
        self.key_file.write_text(secrets.token_hex(32))
        self.key_file.chmod(0o600)
        base = merged(
            FAST_HUB,
            {
                "auth": {"jwt": {"key_file": str(self.key_file)}},
                "listeners": [
                    {"name": name, "bind": "127.0.0.1:0", "connector": name, **(listener or {})}
                    for name in self.connectors
                ],
            },
        )
        try:
            self._hub = make_hub(directory, merged(base, hub or {}), max_files=max_files, prefix=prefix)
            if via_proxy:
                self.proxy = FaultProxy(directory, self._hub.edge)
            for number in range(1, agents + 1):
                self.add_agent(f"site-{number}")
        except BaseException:
            self.close()
            raise

    @property
    def hub(self) -> Hub:
        assert self._hub is not None, "this test needs a hub"
        return self._hub

    @property
    def agent(self) -> Agent:
        """The only agent."""
        (agent,) = self.agents
        return agent

    @property
    def tunnel_url(self) -> str:
        """What agents dial: the hub's edge, or the fault proxy in front of it."""
        host, port = self.proxy.address if self.proxy else self.hub.edge
        return f"ws://{host}:{port}/tunnel"

    def token(self, agent_id: str, **claims: Any) -> str:
        """A token for these connectors; ``claims`` as ``ncfast.auth.mint`` takes them."""
        return mint(self.key_file.read_bytes(), agent_id, **{"connectors": list(self.connectors), **claims})

    def add_agent(
        self,
        agent_id: str,
        *,
        hubs: list[str] | None = None,
        token: str | None = None,
        connectors: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Agent:
        """One more agent that serves the connectors."""
        targets = {
            name: {"target": f"{host}:{port}", **self._agent_connector}
            for name, (host, port) in self.connectors.items()
        }
        agent = self._make_agent(
            self.directory,
            hubs=hubs or [self.tunnel_url],
            agent_id=agent_id,
            token=token or self.token(agent_id),
            connectors=targets if connectors is None else connectors,
            overrides=merged(self._agent_overrides, overrides or {}),
            name=f"agent-{agent_id}",
            env=env,
            prefix=self._prefix,
            wait=wait,
        )
        self.agents.append(agent)
        return agent

    def address(self, connector: str) -> Address:
        """Where a client of ``connector`` connects."""
        if self.direct:
            return self.proxy.address if self.proxy else self.connectors[connector]
        return self.hub.listener(connector)

    def check(self) -> None:
        """What must hold after every test: conservation, clean logs, orderly exit with code 0."""
        if self._hub is None:
            return
        if self._hub.program.exit_code() is None:
            self._hub.check_conservation()
        for agent in self.agents:
            if agent.program.exit_code() is None:
                assert agent.stop() == 0, agent.program.tail()
            agent.check_log()
        if self._hub.program.exit_code() is None:
            assert self._hub.stop() == 0, self._hub.program.tail()
        self._hub.check_log()

    def logs(self) -> str:
        """The ends of all logs, for a failure report."""
        programs = [a.program for a in self.agents] + ([self._hub.program] if self._hub else [])
        return "\n".join(program.tail() for program in programs)

    def close(self) -> None:
        """End every process that is left."""
        for part in [*self.agents, *filter(None, (self.proxy, self._hub))]:
            part.stop()


MakeTopology = Callable[..., Topology]


@contextmanager
def topologies(request: pytest.FixtureRequest, directory: Path, **always: Any) -> Iterator[MakeTopology]:
    """Makes those of one test; at its end, if it has passed, the conservation checks and the orderly shutdown."""
    made: list[Topology] = []
    request.node.topologies = made

    def make(connectors: Mapping[str, Address], **options: Any) -> Topology:
        place = directory / f"t{len(made)}"
        place.mkdir()
        made.append(Topology(place, connectors, **always, **options))
        return made[-1]

    try:
        yield make
        report = getattr(request.node, "report_call", None)
        if report is not None and report.passed:
            for each in made:
                each.check()
    finally:
        for each in made:
            each.close()
