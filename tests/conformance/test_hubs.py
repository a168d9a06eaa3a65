"""The scripted agent: our hub keeps every rule, a minimal one those that faults are planted against; each of these is
named by its rule."""

from __future__ import annotations

import pytest
from support.until import PATIENCE

from conformance.hub_faults import FAULTS, TLS_FAULTS
from conformance.minimal_hub import minimal_hub
from conformance.ours import our_hub
from conformance.playing import broken, named
from ncfast.conformance.hubs.player import ScriptedAgent
from ncfast.conformance.hubs.secure import SecureAgent

EVERY = ScriptedAgent.scenarios()
SCENARIOS = [one for one in EVERY if "tls" not in one.needs]
BY_TLS = ("bytes both ways", "the client resets behind bytes", "a cut under bytes")
LONGEST = 8  # seconds: what takes a hub five, and what is needed beside


def test_our_hub_keeps_every_rule():
    assert len(SCENARIOS) > 80 and not broken(ScriptedAgent, SCENARIOS, our_hub)


def test_our_hub_keeps_the_rules_by_tls():
    """Below a tunnel TLS changes nothing but its ends: some scenarios are enough."""
    played = [one for one in EVERY if "tls" in one.needs or one.name in BY_TLS]
    assert len(played) > len(BY_TLS) and not broken(SecureAgent, played, our_hub)


@pytest.mark.parametrize(("player", "faults"), [(ScriptedAgent, FAULTS), (SecureAgent, TLS_FAULTS)])
def test_the_minimal_hub_is_not_taken_for_a_faulty_one(player, faults):
    shown = {name for _, name in faults.values()}
    assert not broken(player, [one for one in EVERY if one.name in shown], minimal_hub)


@pytest.fixture(scope="module")
def told():
    patiences = (LONGEST, 4 * LONGEST, PATIENCE)
    by_tls = named(SecureAgent, minimal_hub, TLS_FAULTS, patiences)
    return {**named(ScriptedAgent, minimal_hub, FAULTS, patiences), **by_tls}


@pytest.mark.parametrize("fault", [*FAULTS, *TLS_FAULTS])
def test_a_fault_is_named_by_its_rule(told, fault):
    found = told[fault]
    assert found is not None and found.rule == {**FAULTS, **TLS_FAULTS}[fault][0], found
