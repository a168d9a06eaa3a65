"""The record of a flow's end: its bytes as published, and that nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfast.core.record import FORMAT, FlowRecord

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "records.json").read_text())
CASES = [pytest.param(case, id=case["name"].partition(":")[0]) for case in VECTORS["records"]]
BYTES = ("cid", "secret", "open_body", "sought", "early", "kept")


def record_of(case):
    members = case["members"]
    return FlowRecord(
        **members | {name: None if members[name] is None else bytes.fromhex(members[name]) for name in BYTES}
    )


@pytest.mark.parametrize("case", CASES)
class TestVectors:
    """A change of the format has another FORMAT, and another file of vectors."""

    def test_packs_to_the_published_bytes(self, case):
        assert record_of(case).pack().hex() == case["hex"]

    def test_is_read_from_them(self, case):
        record = record_of(case)
        assert FlowRecord.read(bytes.fromhex(case["hex"])) == record
        assert FlowRecord.read(memoryview(bytes.fromhex(case["hex"]))) == record

    def test_cut_anywhere_or_with_more_behind_it_is_refused(self, case):
        data = bytes.fromhex(case["hex"])
        for have in range(len(data)):
            with pytest.raises(ValueError, match="record"):
                FlowRecord.read(data[:have])
        with pytest.raises(ValueError, match="record"):
            FlowRecord.read(data + b"\0")


def test_the_format_is_the_published_one():
    assert VECTORS["format"] == FORMAT


def test_another_format_is_refused_by_its_number():
    data = bytes.fromhex(VECTORS["records"][0]["hex"])
    with pytest.raises(ValueError, match=f"format {FORMAT + 1}"):
        FlowRecord.read(bytes([FORMAT + 1]) + data[1:])


@given(which=st.integers(0, len(CASES) - 1), bit=st.integers(0, 8 * 186 - 1))
def test_a_turned_bit_of_the_numbers_is_noticed(which, bit):
    data = bytearray.fromhex(VECTORS["records"][which]["hex"])
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="record"):
        FlowRecord.read(data)


@given(data=st.binary(max_size=400))
def test_noise_is_refused(data):
    with pytest.raises(ValueError, match="record"):
        FlowRecord.read(data)


@pytest.mark.parametrize(
    "change",
    [
        {"state": 6},
        {"snd_una": 70_002},
        {"snd_max": 70_100},
        {"snd_nxt": 69_999},
        {"kept": b"12345678"},
        {"rcv_limit": 29_999},
        {"rcv_acked": 30_001},
        {"window": 0},
        {"fin_sent": True},
        {"early": b"early"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_numbers_that_contradict_each_other_are_refused(change):
    record = record_of(VECTORS["records"][0])
    assert record.makes_sense()
    with pytest.raises(ValueError, match="contradicts"):
        FlowRecord.read(record._replace(**change).pack())
