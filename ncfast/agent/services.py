"""The private services: which connectors there are, which of them are well, and flows opened to them."""

from __future__ import annotations

from collections.abc import Callable

from ncfast.agent.ground import Ground
from ncfast.agent.target import Target


class Services:
    """Targets by connector."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.targets = {one.name: Target(ground, one, self._changed) for one in ground.config.connectors}
        self.on_changed: Callable[[], None]  # what is served is not what it was

    def start(self) -> None:
        """Begins to watch their health."""
        for target in self.targets.values():
            self._ground.net.spawn(target.watch(), "health")

    def target(self, connector: str) -> Target | None:
        return self.targets.get(connector)

    def served(self) -> list[str]:
        """Connectors to announce: those whose target is well, none while the agent stops."""
        if self._ground.stopping.is_set():
            return []
        return sorted(name for name, target in self.targets.items() if target.healthy)

    def look_after(self, now: float) -> None:
        """What is due at targets' connections."""
        for target in self.targets.values():
            target.look_after(now)

    def _changed(self) -> None:
        self.on_changed()
