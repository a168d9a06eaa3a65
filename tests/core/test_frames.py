"""The codec against the reference, on frames that nobody thought of."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core import reference
from ncfast import _frames
from ncfast._frames import FrameType, decode, encode

U64 = st.integers(0, 2**64 - 1)
OFFSET = st.one_of(st.integers(0, 2**62 - 1), st.sampled_from([0, 2**62 - 1, 2**62, 2**63, 2**64 - 1]))
LENGTH = st.one_of(st.integers(0, 40), st.sampled_from([16383, 16384, 16385, 65535, 65536, 65537, 2**32 - 1]))
HEADERS = st.builds(
    reference.HEADER.pack,
    st.one_of(st.integers(0, 17), st.integers(0, 255)),
    st.sampled_from([0, 0, 0, 1, 2, 255]),
    st.sampled_from([0, 0, 0, 1, 65535]),
    LENGTH,
    U64,
    st.binary(min_size=16, max_size=16),
    OFFSET,
    OFFSET,
    OFFSET,
)


def both(call):
    """What codec and reference make of it; a refusal counts as an answer."""
    answers = []
    for codec in (_frames, reference):
        try:
            answers.append(call(codec))
        except codec.FrameError:
            answers.append("refused")
    return answers


@given(header=HEADERS, payload=st.binary(max_size=48), tail=st.binary(max_size=8))
@example(header=bytes(56), payload=b"", tail=b"")
@settings(max_examples=500)
def test_decode_as_the_reference_does(header, payload, tail):
    wire = header + payload
    ours, theirs = both(lambda codec: codec.decode(wire))
    assert ours == theirs
    moved, _ = both(lambda codec: codec.decode(tail + wire, len(tail)))
    if isinstance(ours, tuple):
        assert moved == (*ours[:-1], ours[-1] + len(tail))
    else:
        assert moved == ours


@given(
    type=st.integers(0, 255),
    flags=st.integers(0, 3),
    code=st.sampled_from([0, 1, 18, 65535]),
    epoch=U64,
    cid=st.binary(min_size=16, max_size=16),
    seq=OFFSET,
    ack=OFFSET,
    limit=OFFSET,
    payload=st.binary(max_size=64),
)
@settings(max_examples=500)
def test_encode_as_the_reference_does(type, **fields):
    ours, theirs = both(lambda codec: codec.encode(type, **fields))
    assert ours == theirs
    if ours != "refused":
        back = decode(ours)
        assert back == (
            type,
            fields["flags"],
            fields["code"],
            fields["epoch"],
            fields["cid"],
            fields["seq"],
            fields["ack"],
            fields["limit"],
            fields["payload"],
            len(ours),
        )


@pytest.mark.parametrize(
    "type, size, good",
    [
        (FrameType.M_DATA, 65536, True),
        (FrameType.M_DATA, 65537, False),
        (FrameType.AUTH, 16384, True),
        (FrameType.AUTH, 16385, False),
    ],
)
def test_longest_payloads(type, size, good):
    payload = b"x" * size
    if good:
        assert decode(encode(type, payload=payload))[8] == payload
    else:
        with pytest.raises(_frames.FrameError):
            encode(type, payload=payload)


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=5))
def test_frames_in_a_row(payloads):
    wire = b"".join(encode(FrameType.M_DATA, payload=payload, seq=k) for k, payload in enumerate(payloads))
    at = 0
    for k, payload in enumerate(payloads):
        frame = decode(wire, at)
        assert (frame[5], frame[8]) == (k, payload)
        at = frame[9]
    assert decode(wire, at) is None


@pytest.mark.parametrize("offset", [-1, -57, 57, 10_000])
def test_offsets_outside_the_data_are_no_frame(offset):
    assert decode(encode(FrameType.PING), offset) is None


@pytest.mark.parametrize(
    "wrong", [{"cid": b"short"}, {"cid": bytes(17)}, {"flags": -1}, {"flags": 256}, {"code": -1}, {"code": 65536}]
)
def test_fields_that_do_not_fit(wrong):
    with pytest.raises(_frames.FrameError):
        encode(FrameType.M_RST, **wrong)


def test_type_that_does_not_fit():
    for type_ in (-1, 256):
        with pytest.raises(_frames.FrameError):
            encode(type_)


def test_decode_takes_any_buffer():
    wire = encode(FrameType.PING, seq=7)
    assert decode(bytearray(wire)) == decode(memoryview(wire)) == decode(wire)
