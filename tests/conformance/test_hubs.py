"""The scripted agent: our hub keeps every rule, a minimal one those that faults are planted against; each of these is
named by its rule."""

from __future__ import annotations

import pytest
from support.until import PATIENCE

from conformance.hub_faults import FAULTS
from conformance.minimal_hub import minimal_hub
from conformance.ours import our_hub
from conformance.playing import broken, named
from ncfast.conformance.hubs.player import ScriptedAgent

SCENARIOS = ScriptedAgent.scenarios()
LONGEST = 8  # seconds: what takes a hub five, and what is needed beside


def test_our_hub_keeps_every_rule():
    assert len(SCENARIOS) > 80 and not broken(ScriptedAgent, SCENARIOS, our_hub)


def test_the_minimal_hub_is_not_taken_for_a_faulty_one():
    shown = {name for _, name in FAULTS.values()}
    assert not broken(ScriptedAgent, [one for one in SCENARIOS if one.name in shown], minimal_hub)


@pytest.fixture(scope="module")
def told():
    return named(ScriptedAgent, minimal_hub, FAULTS, (LONGEST, 4 * LONGEST, PATIENCE))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_its_rule(told, fault):
    found = told[fault]
    assert found is not None and found.rule == FAULTS[fault][0], found
