"""A world of fake hubs, and an agent that is not as patient as in production."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.until import PATIENCE

from agent.hubs import World, run
from ncfast.agent import agent
from ncfast.agent import tunnels as standby

Scenario = Callable[[World], Awaitable[None]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "SETTLE", 0.02)
    monkeypatch.setattr(standby, "RENEWAL", 0.2)
    monkeypatch.setattr(standby, "CLAIM_TIMEOUT", PATIENCE)
    monkeypatch.setattr(agent, "TICK", 0.02)


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., None]:
    """`play(scenario, "ab", ...)`: the scenario in a world of such hubs."""

    def play(scenario: Scenario, names: str = "ab", urls: str | None = None, **options: Any) -> None:
        async def scene() -> None:
            async with World(tmp_path, names, urls, **options) as world:
                await scenario(world)

        run(scene())

    return play
