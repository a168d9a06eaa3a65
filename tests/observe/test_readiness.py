"""/readyz: 503 only when draining or not serving; everything else is said, not acted on."""

from __future__ import annotations

import itertools

import pytest

from ncfast.core.errors import LocalError
from ncfast.observe.readiness import AFTER, Readiness, State

TROUBLES = {
    "mesh_missing": {"mesh_ok": False},
    "registry_unhealthy": {"registry_ok": False},
    "jwks_stale": {"jwks_ok": False},
    "memory_pressure": {"memory_pressure": True},
    "fd_pressure": {"fd_pressure": True},
    "listener_down": {"listeners_down": 2},
}


def test_ready_says_nothing_else():
    assert Readiness(state=State.SERVING).answer() == (200, {"status": "ready"})
    assert Readiness(state=State.SERVING).status() == {"status": "ready", "reasons": []}


def test_before_serving_and_while_draining():
    assert Readiness().answer() == (503, {"status": "not_serving"})
    assert Readiness(state=State.LEAVING).answer() == (503, {"status": "leaving"})
    assert Readiness(state=State.DRAINING).answer() == (503, {"status": "draining"})
    assert Readiness(state=State.STOPPED).answer() == (503, {"status": "not_serving"})


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_the_state_changes_along_the_table(before, after):
    readiness = Readiness(state=before)
    if after in AFTER[before]:
        readiness.move(after)
        assert readiness.state is after
    else:
        with pytest.raises(LocalError, match=f"{before} cannot be {after}"):
            readiness.move(after)


def test_a_hub_that_drains_still_answers_agents_that_come_for_their_flows():
    assert [Readiness(state=state).serving for state in State] == [False, True, True, True, False]


@pytest.mark.parametrize("reason", TROUBLES)
def test_each_trouble_degrades_and_keeps_the_hub_in_service(reason):
    readiness = Readiness(mode="active", state=State.SERVING, **TROUBLES[reason])
    assert readiness.answer() == (200, {"status": "degraded", "reasons": [reason]})


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_mesh_and_registry_matter_in_active_mode_only(mode):
    readiness = Readiness(mode=mode, state=State.SERVING, mesh_ok=False, registry_ok=False)
    assert readiness.answer() == (200, {"status": "ready"})


def test_every_combination():
    for chosen in itertools.product((False, True), repeat=len(TROUBLES)):
        flags = {}
        for (_, flag), present in zip(TROUBLES.items(), chosen, strict=True):
            flags.update(flag if present else {})
        expected = [reason for reason, present in zip(TROUBLES, chosen, strict=True) if present]
        for state in State:
            code, body = Readiness("active", state, **flags).answer()
            assert code == (200 if state is State.SERVING else 503)
            assert body.get("reasons", []) == expected
            assert (body["status"] in ("ready", "degraded")) == (code == 200)
