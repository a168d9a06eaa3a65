"""How an agent stands: whether it is ready, and the document of its `/status`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ncfast import __version__
from ncfast.agent.agent import Agent
from ncfast.agent.counts import Failure
from ncfast.agent.target import Target
from ncfast.agent.tunnel import AgentTunnel
from ncfast.observe import otlp

STATUSES = ("ready", "degraded", "not_ready", "draining")


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one agent."""

    agent: Agent

    def reasons(self) -> list[str]:
        """What is wrong, from a fixed set of words."""
        tunnels = self.agent.tunnels
        troubles = (
            ("no_owner", tunnels.owner is None),
            ("no_standby", tunnels.wants_standby and tunnels.standby is None),
            ("target_down", not all(target.healthy for target in self.agent.services.targets.values())),
            ("token_unfit", self.agent.token.fault != ""),
        )
        return [reason for reason, present in troubles if present]

    def ready(self) -> dict[str, Any]:
        """``{"status": ..., "reasons": [...]}``: ready while a hub owns the agent, so that clients can come."""
        reasons = self.reasons()
        if self.agent.ground.stopping.is_set():
            status = "draining"
        elif "no_owner" in reasons:
            status = "not_ready"
        else:
            status = "degraded" if reasons else "ready"
        return {"status": status, "reasons": reasons}

    def answer(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and body of ``/readyz``: 200 when ready or degraded."""
        tunnels, targets = self.agent.tunnels, self.agent.services.targets.values()
        body = self.ready() | {
            "owner": tunnels.owner is not None,
            "standby": tunnels.standby is not None,
            "targets": {target.config.name: "up" if target.healthy else "down" for target in targets},
        }
        return 200 if body["status"] in ("ready", "degraded") else 503, body

    async def document(self) -> dict[str, Any]:
        """The document of ``/status``, all of one moment."""
        certificate = await self.agent.ground.trust.ends_at()
        ground, counts = self.agent.ground, self.agent.ground.counts
        context, token, wall = ground.context, self.agent.token, ground.wall_clock()
        return {
            "role": "agent",
            "version": __version__,
            "pid": os.getpid(),
            "agent_id": ground.config.agent_id,
            "uptime_sec": round(ground.clock() - ground.started_at, 3),
            "ready": self.ready(),
            "upgrade": self.agent.upgrade(),
            "tunnels": [self._tunnel(one) for one in self.agent.tunnels.all()],
            "granted": counts.granted,
            "handovers": dict(counts.handovers),
            "dials": {
                "failed": dict(counts.failed),
                "last_failure": None if counts.last_failure is None else self._failure(counts.last_failure),
            },
            "targets": [_target(one) for one in self.agent.services.targets.values()],
            "flows": {
                "active": len(ground.flows),
                "opened": counts.closed.total() + len(ground.flows),
                "closed": dict(counts.closed),
            },
            "bytes": {"to_targets": context.bytes_in, "from_targets": context.bytes_read},
            "memory": {"budget_bytes": context.budget.size, "held_bytes": context.held},
            "token": {
                "expires_sec": None if token.expires_at is None else round(token.expires_at - wall, 1),
                "fault": token.fault,
            },
            "otlp": otlp.results(),
            "certificates": {} if certificate is None else {"client": round(certificate - wall, 1)},
        }

    def _tunnel(self, one: AgentTunnel) -> dict[str, Any]:
        return {
            "hub": one.url,
            "state": one.state.value,
            "replica": one.replica_id,
            "epoch": one.epoch,
            "draining": one.draining,
            "rtt_ms": round(one.link.rtt * 1000, 3),
            "since_sec": round(self.agent.ground.clock() - one.since, 3),
        }

    def _failure(self, one: Failure) -> dict[str, Any]:
        ago = round(self.agent.ground.clock() - one.at, 3)
        return {"hub": one.hub, "role": one.role, "reason": one.reason, "ago_sec": ago}


def _target(one: Target) -> dict[str, Any]:
    return {
        "connector": one.config.name,
        "target": str(one.config.target),
        "checked": one.config.health is not None,
        "healthy": one.healthy,
        "dials": one.dials,
        "held_bytes": one.share.held,
    }
