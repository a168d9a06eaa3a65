"""Scenarios played from tests: what was broken, and by which rule a planted fault is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from support.until import PATIENCE

from ncfast.conformance.broken import Broken
from ncfast.conformance.player import Player
from ncfast.conformance.run import play, play_all
from ncfast.conformance.scenario import Scenario
from ncfast.conformance.stage import Launch

JOBS = 24
Faults = dict[str, tuple[str, str]]  # what each breaks: the rule, and the scenario that shows it


def broken(players: type[Player], scenarios: Sequence[Scenario], launcher: Launch) -> dict[str, str]:
    """Of all scenarios those that were not kept, with what was broken."""
    played = play_all(players, scenarios, launcher, patience=PATIENCE, jobs=JOBS, told=lambda one: None)
    return {one.scenario.name: str(one.broken) for one in asyncio.run(played) if one.broken is not None}


def named(
    players: type[Player], faulty: Callable[..., Any], faults: Faults, patiences: Collection[float]
) -> dict[str, Broken | None]:
    """What is said of a program with each fault. Some are silence: patience grows until the rule is the expected one,
    so that a slow machine takes longer, and is not wrong."""
    scenarios = {one.name: one for one in players.scenarios()}

    async def one(fault: str) -> Broken | None:
        rule, name = faults[fault]
        found = None
        for patience in patiences:
            found = (await play(players, scenarios[name], partial(faulty, faults={fault}), patience)).broken
            if found is not None and found.rule == rule:
                break
        return found

    async def all_of_them() -> list[Broken | None]:
        return await asyncio.gather(*map(one, faults))

    return dict(zip(faults, asyncio.run(all_of_them()), strict=True))
