"""What an agent is told when the registry knows a higher epoch than its tunnel has."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ncfast.core.errors import Reason
from ncfast.hub.sessions import Agents
from ncfast.observe.stats import Stats
from ncfast.registry import AgentEntry

KEY, PROCESS, OTHER = "/site", "a" * 32, "b" * 32


@pytest.mark.parametrize(
    ("instance", "told"),
    [
        (OTHER, Reason.SUPERSEDED),
        (
            PROCESS,
            Reason.GOING_AWAY,
        ),  # its own claim, given up by a hub and carried out late by a registry that was frozen
        ("", Reason.GOING_AWAY),  # that claim is released again already
    ],
    ids=["another process", "the same process", "nobody"],
)
def test_only_another_process_makes_an_agent_take_itself_for_one_of_two(instance: str, told: Reason) -> None:
    reasons: list[Reason] = []
    link = SimpleNamespace(fail=lambda reason, detail: reasons.append(reason))
    agents = Agents(SimpleNamespace(stats=Stats()))
    agents._current[KEY] = SimpleNamespace(agent_id="site", epoch=5, instance=PROCESS, link=link)
    agents.fenced(AgentEntry(KEY, "hub-b", 5, instance))
    agents.fenced(AgentEntry("/else", "hub-b", 7, instance))
    assert not reasons
    agents.fenced(AgentEntry(KEY, "hub-b", 7, instance))
    assert reasons == [told] and agents.hub.stats.takeovers["fenced"] == 1
