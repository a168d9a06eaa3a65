"""The scripted hub: our agent and a minimal one keep every rule; each planted fault is named by its rule."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from support.until import PATIENCE

from conformance.faults import FAULTS
from conformance.minimal_agent import minimal
from conformance.ours import our_agent
from conformance.playing import broken, named
from ncfast.agent import tunnels
from ncfast.conformance.agents.player import ScriptedHub
from ncfast.conformance.scenario import ScenarioError

SCENARIOS = ScriptedHub.scenarios()
PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


def test_our_agent_keeps_every_rule(monkeypatch):
    monkeypatch.setattr(tunnels, "CLAIM_TIMEOUT", PATIENCE)
    assert not broken(ScriptedHub, SCENARIOS, our_agent)


def test_an_agent_without_standby_keeps_every_rule():
    without = [one for one in SCENARIOS if not one.needs & {"standby", "moves", "moves_again", "drain"}]
    assert len(without) > 80 and not broken(ScriptedHub, without, minimal)


def test_the_notes_for_implementers_name_every_scenario_once():
    _, _, notes = PAGE.read_text().partition("## 19. Notes for implementers")
    assert sorted(re.findall(r"\*([^*|]+)\*", notes.partition("\nAfter step")[0])) == sorted(
        one.name for one in SCENARIOS
    )


@pytest.fixture(scope="module")
def told():
    return named(ScriptedHub, minimal, FAULTS, (1, 5, 25, PATIENCE))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_its_rule(told, fault):
    found = told[fault]
    assert found is not None and found.rule == FAULTS[fault][0], found


def test_a_step_of_no_verb_is_refused(tmp_path):
    path = tmp_path / "scenarios.json"
    path.write_text('{"scenarios": [{"name": "x", "steps": [{"dance": true}]}]}')
    with pytest.raises(ScenarioError, match="no verb dance"):
        broken(ScriptedHub, ScriptedHub.scenarios(path), minimal)


def test_a_script_that_is_late_takes_no_agent_for_early(monkeypatch):
    """As on a slow machine: the agent has its refusal, and waits, before the script goes on."""
    refuse = ScriptedHub._do_refuse

    async def late(*arguments):
        await refuse(*arguments)
        await asyncio.sleep(0.5)

    monkeypatch.setattr(ScriptedHub, "_do_refuse", late)
    asks = [one for one in SCENARIOS if one.name in ("a hub that asks to wait", "a hub that has too many")]
    assert len(asks) == 2 and not broken(ScriptedHub, asks, our_agent)
