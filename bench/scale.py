"""How much work one round of each benchmark does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of one round; times in seconds."""

    rounds: int
    load_sec: float  # of each load that counts what it can do in a time
    redis_requests: int  # of each command
    idle_flows: int
    idle_agents: int
    lookup_sec: float  # in which flows open, and then again none


FULL = Scale(
    rounds=7,
    load_sec=0.4,
    redis_requests=10_000,
    idle_flows=10_000,
    idle_agents=1000,
    lookup_sec=5,
)
QUICK = Scale(
    rounds=3,
    load_sec=0.3,
    redis_requests=5000,
    idle_flows=1000,
    idle_agents=200,
    lookup_sec=5,
)
SMOKE = Scale(
    rounds=1,
    load_sec=0.1,
    redis_requests=500,
    idle_flows=50,
    idle_agents=10,
    lookup_sec=0.2,
)
