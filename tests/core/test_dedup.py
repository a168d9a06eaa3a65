"""The ring of recently closed flows against an OrderedDict."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ncfast._frames import DedupRing, siphash13

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


MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15  # what the second word was multiplied by before it met the first and the seed


def test_cids_that_collided_under_every_seed_are_spread():
    """a ^ b * GOLDEN was all that the hash saw of a cid, so that whoever kept it equal needed no seed."""
    source = random.Random(20)
    words = [source.getrandbits(64) for _ in range(1024)]
    cids = [((b * GOLDEN & MASK) ^ 0x0123456789ABCDEF).to_bytes(8, "little") + b.to_bytes(8, "little") for b in words]
    for seed in [0, 1, *(source.getrandbits(64) for _ in range(20))]:
        ring = DedupRing(1024, seed)
        for cid in cids:
            ring.record(cid, 1)
        # half the slots are taken: of 22 fair draws none had more than 40 in a row, and all 1,024 is a collision
        assert ring.longest_run() < 100


@pytest.mark.parametrize("ended", [0, 3, 8, 21])
def test_another_ring_takes_over_what_is_remembered_and_its_age(ended):
    before, after = DedupRing(8, 1), DedupRing(8, 2)
    cids = [index.to_bytes(16, "big") for index in range(ended)]
    for seq, cid in enumerate(cids):
        before.record(cid, seq)
    after.take(before.pack())
    assert [after.last(cid) for cid in cids] == [before.last(cid) for cid in cids]
    for index in range(8 - min(ended, 8) + 1):
        after.record(bytes([255, index]) * 8, 0)
    assert ended == 0 or after.last(cids[-min(ended, 8)]) is None, "the oldest makes room first"
    assert ended < 2 or after.last(cids[-1]) == ended - 1


def test_what_no_ring_has_packed_is_refused():
    with pytest.raises(ValueError, match="24 bytes"):
        DedupRing(8, 1).take(bytes(25))


def python_key(seed: int) -> tuple[int, int]:
    """The key of CPython's own SipHash-1-3 under PYTHONHASHSEED (lcg_urandom in Python/bootstrap_hash.c)."""
    key = bytearray()
    while seed and len(key) < 16:
        seed = (seed * 214013 + 2531011) & 0xFFFFFFFF
        key.append(seed >> 16 & 0xFF)
    key = key.ljust(16, b"\0")
    return int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="this Python's hash is another one")
@pytest.mark.parametrize("seed", [0, 1, 4294967295])
def test_the_hash_is_that_of_the_interpreter(seed):
    cids = [random.Random(index).randbytes(16) for index in range(50)] + [bytes(16), b"\xff" * 16]
    script = f"print(*(hash(one) % 2**64 for one in {cids!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [siphash13(*python_key(seed), cid) for cid in cids] == [int(one) for one in done.stdout.split()]
