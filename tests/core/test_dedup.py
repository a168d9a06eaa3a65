"""The ring of recently closed flows against an OrderedDict."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ncfast._frames import DedupRing

U64 = st.integers(0, 2**64 - 1)
# Few different ones, so that they repeat; the same low half often, so that hashes collide.
CIDS = st.builds(
    lambda high, low: high.to_bytes(8, "big") + low.to_bytes(8, "big"),
    st.sampled_from([0, 1, 2**63]),
    st.integers(0, 20),
)


class Model:
    def __init__(self, capacity):
        self.capacity = capacity
        self.entries = OrderedDict()
        self.evicted = 0

    def record(self, cid, seq):
        if cid in self.entries:
            self.entries[cid] = max(seq, self.entries[cid])
            return
        if len(self.entries) == self.capacity:
            self.entries.popitem(last=False)
            self.evicted += 1
        self.entries[cid] = seq


class RingMachine(RuleBasedStateMachine):
    @initialize(capacity=st.integers(1, 12))
    def make(self, capacity):
        self.ring = DedupRing(capacity)
        self.model = Model(capacity)
        self.seen = set()

    @rule(cid=CIDS, seq=U64)
    def record(self, cid, seq):
        self.ring.record(cid, seq)
        self.model.record(cid, seq)
        self.seen.add(cid)

    @rule(cid=CIDS)
    def look(self, cid):
        assert self.ring.last(cid) == self.model.entries.get(cid)

    @invariant()
    def same(self):
        for cid in getattr(self, "seen", ()):
            assert self.ring.last(cid) == self.model.entries.get(cid)
        if hasattr(self, "ring"):
            assert (len(self.ring), self.ring.evicted) == (len(self.model.entries), self.model.evicted)


RingMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=60)
TestRing = RingMachine.TestCase


@given(st.lists(st.binary(min_size=16, max_size=16), unique=True, min_size=1, max_size=200), st.integers(1, 64))
def test_oldest_is_forgotten_first(cids, capacity):
    ring = DedupRing(capacity)
    for k, cid in enumerate(cids):
        ring.record(cid, k)
        kept = cids[max(0, k + 1 - capacity) : k + 1]
        assert [ring.last(one) for one in kept] == list(range(k + 1 - len(kept), k + 1))
        assert all(ring.last(one) is None for one in cids[: k + 1 - len(kept)])


def test_a_repeat_keeps_its_place_and_the_higher_sequence():
    ring = DedupRing(2)
    first, second, third = (bytes([k]) * 16 for k in range(3))
    ring.record(first, 10)
    ring.record(second, 1)
    ring.record(first, 5)
    assert ring.last(first) == 10
    ring.record(third, 1)
    assert ring.last(first) is None and ring.last(second) == 1


@pytest.mark.parametrize("capacity", [0, 2**24 + 1])
def test_capacity_has_bounds(capacity):
    with pytest.raises(ValueError):
        DedupRing(capacity)


def test_cids_are_16_bytes():
    ring = DedupRing(4)
    for call in (lambda: ring.record(b"short", 1), lambda: ring.last(bytes(17))):
        with pytest.raises(ValueError):
            call()
