"""Epochs of the registry in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ncfast.registry import MemoryRegistry

CLAIMS = st.lists(st.tuples(st.sampled_from(["/a", "/b"]), st.sampled_from(["hub-1", "hub-2"]), st.integers(0, 50)), max_size=30)


@given(CLAIMS)
def test_epochs_only_grow_and_the_newest_claim_owns(claims):
    registry = MemoryRegistry()
    last = {}
    for key, replica, remembered in claims:
        epoch = registry.claim_ownership(key, replica, remembered)
        assert epoch > last.get(key, 0) and epoch > remembered
        assert registry.get_owner(key) == (replica, epoch)
        last[key] = epoch


def test_agents_have_their_own_epochs():
    registry = MemoryRegistry()
    for _ in range(5):
        registry.claim_ownership("/a", "hub")
    assert registry.claim_ownership("/b", "hub") == 1


def test_release_keeps_the_epoch():
    registry = MemoryRegistry()
    epoch = registry.claim_ownership("/a", "hub", 41)
    registry.release("/a", epoch)
    assert registry.get_owner("/a") is None
    assert registry.claim_ownership("/a", "hub") == epoch + 1


def test_a_late_release_does_not_touch_the_next_owner():
    registry = MemoryRegistry()
    first = registry.claim_ownership("/a", "hub-1")
    second = registry.claim_ownership("/a", "hub-2")
    registry.release("/a", first)
    assert registry.get_owner("/a") == ("hub-2", second)


def test_nobody_owns_a_stranger():
    registry = MemoryRegistry()
    registry.release("/x", 1)
    assert registry.get_owner("/x") is None
