"""The dedup ring at capacity: what one ending flow costs, whatever scheme its cids were counted by."""

from __future__ import annotations

import random

import pytest

from ncfast._frames import DedupRing

CAPACITY = 1024
CIDS = 2 * CAPACITY
SCHEMES = {
    "counted in the last bytes": lambda index: b"replica1" + index.to_bytes(8, "big"),
    "counted in the first bytes": lambda index: index.to_bytes(8, "big") + b"replica1",
    "random": lambda index: random.Random(index).randbytes(16),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_record_when_full(benchmark, scheme):
    ring = DedupRing(capacity=CAPACITY)
    cids = [SCHEMES[scheme](index) for index in range(CIDS)]

    def record_all() -> None:
        for cid in cids:
            ring.record(cid, 1)

    benchmark(record_all)
    assert len(ring) == CAPACITY
