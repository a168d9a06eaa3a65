"""The hub's state, and what ``/readyz`` answers: pure logic over flags that the hub keeps up to date.

Degraded is still 200. A degraded hub must stay reachable for agents: were it taken out of the balancer
because Redis or its peers are away, a whole cluster could lock itself out at once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from ncfast.core.errors import LocalError

STATUSES = ("ready", "degraded", "leaving", "draining", "not_serving")


class State(enum.StrEnum):
    """Of a hub process."""

    STARTING = "starting"  # the edges and listeners are not all open
    SERVING = "serving"
    LEAVING = "leaving"  # serves as ever, and says 503, so that balancers send their clients elsewhere
    DRAINING = "draining"  # no new clients; what is there may finish, or move
    STOPPED = "stopped"


AFTER: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.SERVING, State.STOPPED}),
    State.SERVING: frozenset({State.LEAVING, State.DRAINING, State.STOPPED}),
    State.LEAVING: frozenset({State.DRAINING, State.STOPPED}),
    State.DRAINING: frozenset({State.DRAINING, State.STOPPED}),  # asked for again: no news
    State.STOPPED: frozenset({State.STOPPED}),
}


@dataclass(slots=True)
class Readiness:
    """The hub's state, and its health as separate flags; mesh, registry and keys fail apart and are shown apart."""

    mode: str = "off"  # off, shadow, active: mesh and registry matter in active mode only
    state: State = State.STARTING
    mesh_ok: bool = True
    registry_ok: bool = True
    jwks_ok: bool = True  # keys for new tokens are fresh; old ones stay in use
    memory_pressure: bool = False  # every listener's share of it is at its bound: new flows are refused
    fd_pressure: bool = False  # accepting is paused for lack of descriptors
    listeners_down: int = 0  # configured, but could not be bound

    def move(self, state: State) -> None:
        """The only place where the hub's state changes. Raises LocalError for an edge that the table lacks."""
        if state not in AFTER[self.state]:
            raise LocalError(f"a hub that is {self.state} cannot be {state}")
        self.state = state

    @property
    def serving(self) -> bool:
        """Whether agents are answered: also while the hub drains, for those that come for their flows."""
        return self.state in (State.SERVING, State.LEAVING, State.DRAINING)

    @property
    def leaving(self) -> bool:
        return self.state is State.LEAVING

    @property
    def draining(self) -> bool:
        return self.state is State.DRAINING

    def reasons(self) -> list[str]:
        """What is wrong, from a fixed set of words."""
        active = self.mode == "active"
        troubles = (
            ("mesh_missing", active and not self.mesh_ok),
            ("registry_unhealthy", active and not self.registry_ok),
            ("jwks_stale", not self.jwks_ok),
            ("memory_pressure", self.memory_pressure),
            ("fd_pressure", self.fd_pressure),
            ("listener_down", self.listeners_down > 0),
        )
        return [reason for reason, present in troubles if present]

    def status(self) -> dict[str, Any]:
        """``{"status": ..., "reasons": [...]}`` for the snapshot."""
        reasons = self.reasons()
        if self.leaving or self.draining:
            status = str(self.state)
        elif not self.serving:
            status = "not_serving"
        else:
            status = "degraded" if reasons else "ready"
        return {"status": status, "reasons": reasons}

    def answer(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and body of ``/readyz``: 503 only when leaving, draining or not serving."""
        body = self.status()
        code = 200 if body["status"] in ("ready", "degraded") else 503
        if not body["reasons"]:
            del body["reasons"]
        return code, body
