"""How much work one round of each benchmark does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of one round; times in seconds."""

    rounds: int
    blocks: int  # turns each route gets within one ping-pong round
    pings: int  # round trips timed in a turn
    redis_requests: int  # of each command
    iperf_sec: int
    iperf_omit_sec: int  # left out at the start: TCP and the product's windows still grow
    idle_flows: int
    idle_rounds: int  # memory has little noise, and each round needs fresh processes
    load_sec: float  # of each load that counts what it can do in a time
    kills: int  # of a cluster's owner
    lookup_sec: float  # in which flows open, and then again none


FULL = Scale(
    rounds=11,
    blocks=10,
    pings=500,
    redis_requests=50_000,
    iperf_sec=3,
    iperf_omit_sec=1,
    idle_flows=5000,
    idle_rounds=3,
    load_sec=0.7,
    kills=20,
    lookup_sec=5,
)
QUICK = Scale(
    rounds=3,
    blocks=6,
    pings=300,
    redis_requests=20_000,
    iperf_sec=1,
    iperf_omit_sec=1,
    idle_flows=1000,
    idle_rounds=1,
    load_sec=0.5,
    kills=5,
    lookup_sec=5,
)
SMOKE = Scale(
    rounds=1,
    blocks=1,
    pings=20,
    redis_requests=500,
    iperf_sec=1,
    iperf_omit_sec=0,
    idle_flows=50,
    idle_rounds=1,
    load_sec=0.1,
    kills=1,
    lookup_sec=0.2,
)
