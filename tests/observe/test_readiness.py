"""/readyz: 503 only when draining or not serving; everything else is said, not acted on."""

from __future__ import annotations

import itertools

import pytest

from ncfast.observe.readiness import Readiness

TROUBLES = {
    "mesh_missing": {"mesh_ok": False},
    "registry_unhealthy": {"registry_ok": False},
    "jwks_stale": {"jwks_ok": False},
    "memory_pressure": {"memory_pressure": True},
    "fd_pressure": {"fd_pressure": True},
    "listener_down": {"listeners_down": 2},
}


def test_ready_says_nothing_else():
    assert Readiness(serving=True).answer() == (200, {"status": "ready"})
    assert Readiness(serving=True).status() == {"status": "ready", "reasons": []}


def test_before_serving_and_while_draining():
    assert Readiness().answer() == (503, {"status": "not_serving"})
    assert Readiness(serving=True, draining=True).answer() == (503, {"status": "draining"})
    assert Readiness(draining=True).answer()[0] == 503


@pytest.mark.parametrize("reason", TROUBLES)
def test_each_trouble_degrades_and_keeps_the_hub_in_service(reason):
    readiness = Readiness(mode="active", serving=True, **TROUBLES[reason])
    assert readiness.answer() == (200, {"status": "degraded", "reasons": [reason]})


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_mesh_and_registry_matter_in_active_mode_only(mode):
    readiness = Readiness(mode=mode, serving=True, mesh_ok=False, registry_ok=False)
    assert readiness.answer() == (200, {"status": "ready"})


def test_every_combination():
    for chosen in itertools.product((False, True), repeat=len(TROUBLES)):
        flags = {}
        for (_, flag), present in zip(TROUBLES.items(), chosen, strict=True):
            flags.update(flag if present else {})
        expected = [reason for reason, present in zip(TROUBLES, chosen, strict=True) if present]
        for serving, draining in itertools.product((False, True), repeat=2):
            code, body = Readiness("active", serving, draining, **flags).answer()
            assert code == (200 if serving and not draining else 503)
            assert body.get("reasons", []) == expected
            assert (body["status"] in ("ready", "degraded")) == (code == 200)
