"""The ways that clients go to the directory: straight, and through one cluster in each of its modes.

The cluster is turned from off to shadow to active by SIGHUP, as an operator enables it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.cluster import Cluster
from bench.rig import Address

DIRECT = "direct"


@dataclass(frozen=True)
class Way:
    """``address`` is where clients come in."""

    name: str
    address: Address


WAYS = {
    DIRECT: "clients → slapd: what generator, kernel and slapd take",
    "off": "the hub that holds the agent's tunnel, mode `off`",
    "shadow": "the same, mode `shadow`",
    "active-local": "the same, mode `active`",
    "active-mesh": "another hub, mode `active`: across the mesh to the one with the tunnel",
}


def ways(names: Sequence[str], made: Cluster, directory: Address) -> Iterator[Way]:
    """Those of ``names``, one after the other; each stands when it is given. The cluster is left in the last mode."""
    for name in WAYS:
        if name not in names:
            continue
        if name == DIRECT:
            yield Way(name, directory)
            continue
        mode, _, where = name.partition("-")
        made.turn(mode)
        if mode == "active":
            owner, _, origin = made.settled()
            yield Way(name, (origin if where == "mesh" else owner).address)
        else:
            yield Way(name, made.holder().address)
