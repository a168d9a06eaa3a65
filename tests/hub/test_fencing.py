"""What an agent is told when the registry knows a higher epoch than its tunnel has."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ncfast.core.errors import Reason
from ncfast.hub.claims import Claims
from ncfast.hub.sessions import Sessions
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
    ground, sessions = SimpleNamespace(stats=Stats()), Sessions()
    claims = Claims(ground, sessions, None, None, None, None, None)
    sessions.put(SimpleNamespace(agent_id="site", key=KEY, epoch=5, instance=PROCESS, link=link))
    claims.fenced(AgentEntry(KEY, "hub-b", 5, instance))
    claims.fenced(AgentEntry("/else", "hub-b", 7, instance))
    assert not reasons
    claims.fenced(AgentEntry(KEY, "hub-b", 7, instance))
    assert reasons == [told] and ground.stats.takeovers["fenced"] == 1
