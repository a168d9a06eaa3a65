"""Who has more agents than its share, and how many of them belong where: numbers in, numbers out.

Every hub computes the same plan for the whole cluster, from its own view of it, and carries out its own row alone:

 1. A hub's share is its weight's part of all agents, rounded so that the shares add up (largest remainder; names break
    ties).
 2. What the hubs above their shares have too many, one behind the other by name, is laid beside what the others lack,
    likewise; each gives what lies beside whom (the north-west corner rule).
 3. A hub begins to give above its share and a margin (`MARGIN`), and ends at its share.

Moves do not change the shares, and what is left of such a plan when a part of it is done is the plan of what is left,
whichever part it was. So hubs that decide at once, or on views of different age, never give one hub more than it lacks:
no hub crosses its share, each move brings the cluster nearer to the shares, and nothing moves back.
"""

from __future__ import annotations

from collections.abc import Mapping

MARGIN = 0.02  # of the share, and one agent at least: so much more than it is no reason to begin


def shares(agents: Mapping[str, int], weights: Mapping[str, int]) -> dict[str, int]:
    """How many agents each hub is to have; `agents` and `weights` are by hub. Nothing if all weights are 0."""
    total, weight = sum(agents.values()), sum(weights.values())
    if not weight:
        return {}
    parts = {name: divmod(total * weights[name], weight) for name in sorted(agents)}
    left = total - sum(whole for whole, _ in parts.values())
    most = sorted(parts, key=lambda name: -parts[name][1])[:left]
    return {name: whole + (name in most) for name, (whole, _) in parts.items()}


def too_many(agents: int, share: int, begun: bool) -> int:
    """How many a hub is to give: `begun` says that it gives already."""
    above = agents - share
    return above if above > (0 if begun else max(1.0, share * MARGIN)) else 0


def row(hub: str, agents: Mapping[str, int], share: Mapping[str, int]) -> dict[str, int]:
    """How many agents of `hub` belong to which others, by rule 2."""
    begin = sum(max(0, agents[name] - share[name]) for name in sorted(agents) if name < hub)
    end = begin + max(0, agents[hub] - share[hub])
    given: dict[str, int] = {}
    at = 0
    for name in sorted(agents):
        lacks = max(0, share[name] - agents[name])
        beside = min(end, at + lacks) - max(begin, at)
        if beside > 0:
            given[name] = beside
        at += lacks
    return given
