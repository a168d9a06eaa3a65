"""PROXY protocol: vectors from its specification, every cut of the stream, and what must be refused."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfast.net.proxyproto import V1_MAX, V2_MAX, V2_SIGNATURE, Parser, ProxyProtocolError, Result, _crc32c, build

A4, B4 = ("192.0.2.1", 56324), ("198.51.100.7", 389)
A6, B6 = ("2001:db8::1", 56324), ("2001:db8::7", 389)


def v2(command: int = 0x21, family: int = 0x11, body: bytes = b"", length: int | None = None) -> bytes:
    return V2_SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


TCP4_BODY = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack("!HH", 56324, 389)
TCP6_BODY = ipaddress.ip_address(A6[0]).packed + ipaddress.ip_address(B6[0]).packed + struct.pack("!HH", 56324, 389)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def checksummed(flip: int = 0) -> bytes:
    crc = _crc32c(v2(body=TCP4_BODY + tlv(3, bytes(4)) + tlv(4, b"pad")))
    return v2(body=TCP4_BODY + tlv(3, struct.pack("!I", crc ^ flip)) + tlv(4, b"pad"))


GOOD = [
    ("v1 tcp4", "v1", b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 389\r\n", A4, B4),
    ("v1 tcp6", "v1", b"PROXY TCP6 2001:db8::1 2001:DB8::7 56324 389\r\n", A6, B6),
    ("v1 mapped", "v1", b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6407 56324 389\r\n", A4, B4),
    (
        "v1 ports at their bounds",
        "v1",
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
        ("0.0.0.0", 0),
        ("255.255.255.255", 65535),
    ),
    ("v1 unknown, short", "v1", b"PROXY UNKNOWN\r\n", None, None),
    ("v1 unknown, longest", "v1", b"PROXY UNKNOWN " + b"f" * (V1_MAX - 16) + b"\r\n", None, None),
    ("v2 tcp4", "v2", v2(body=TCP4_BODY), A4, B4),
    ("v2 tcp6", "v2", v2(family=0x21, body=TCP6_BODY), A6, B6),
    ("v2 with TLVs", "v2", v2(body=TCP4_BODY + tlv(1, b"h2") + tlv(4, bytes(40)) + tlv(5, b"")), A4, B4),
    ("v2 with checksum", "v2", checksummed(), A4, B4),
    ("v2 at the cap", "v2", v2(body=TCP4_BODY + tlv(4, bytes(V2_MAX - 16 - 12 - 3))), A4, B4),
    ("v2 local", "v2", v2(0x20, 0x00), None, None),
    ("v2 local, rest ignored", "v2", v2(0x20, 0xFF, b"anything"), None, None),
    ("v2 unspec", "v2", v2(0x21, 0x00), None, None),
    ("v2 unix stream", "v2", v2(0x21, 0x31, bytes(216)), None, None),
]

BAD = [
    ("http", "any", b"GET / HTTP/1.1\r\n"),
    ("tls hello", "any", b"\x16\x03\x01\x02\x00"),
    ("first byte of neither", "any", b"\0"),
    ("v1 where v2 is due", "v2", GOOD[0][2]),
    ("v2 where v1 is due", "v1", GOOD[6][2]),
    ("lower case", "v1", b"proxy TCP4 192.0.2.1 198.51.100.7 1 2\r\n"),
    ("bare LF", "v1", b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n"),
    ("two spaces", "v1", b"PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n"),
    ("trailing space", "v1", b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2 \r\n"),
    ("leading zero in a port", "v1", b"PROXY TCP4 192.0.2.1 198.51.100.7 01 2\r\n"),
    ("leading zero in an address", "v1", b"PROXY TCP4 192.0.2.01 198.51.100.7 1 2\r\n"),
    ("port too high", "v1", b"PROXY TCP4 192.0.2.1 198.51.100.7 1 65536\r\n"),
    ("negative port", "v1", b"PROXY TCP4 192.0.2.1 198.51.100.7 -1 2\r\n"),
    ("v6 address in TCP4", "v1", b"PROXY TCP4 ::1 ::1 1 2\r\n"),
    ("v4 address in TCP6", "v1", b"PROXY TCP6 192.0.2.1 198.51.100.7 1 2\r\n"),
    ("scoped address", "v1", b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"),
    ("udp", "v1", b"PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n"),
    ("unknown glued", "v1", b"PROXY UNKNOWNX\r\n"),
    ("a carriage return inside", "v1", b"PROXY UNKNOWN \r x\r\n"),
    ("missing fields", "v1", b"PROXY TCP4\r\n"),
    ("no end within the cap", "v1", b"PROXY UNKNOWN " + b"x" * V1_MAX),
    ("end one byte past the cap", "v1", b"PROXY UNKNOWN " + b"x" * (V1_MAX - 15) + b"\r\n"),
    ("version 1 in a v2 header", "v2", v2(0x11, 0x11, TCP4_BODY)),
    ("command 2", "v2", v2(0x22, 0x11, TCP4_BODY)),
    ("datagram", "v2", v2(0x21, 0x12, TCP4_BODY)),
    ("unknown family", "v2", v2(0x21, 0x41, bytes(216))),
    ("addresses cut short", "v2", v2(body=TCP4_BODY[:-1])),
    ("v6 family, v4 body", "v2", v2(family=0x21, body=TCP4_BODY)),
    ("too long, said by the length alone", "v2", v2(body=b"", length=V2_MAX - 15)),
    ("longest length", "v2", v2(0x20, 0, b"", length=65535)),
    ("TLV head cut", "v2", v2(body=TCP4_BODY + b"\x04\x00")),
    ("TLV beyond the end", "v2", v2(body=TCP4_BODY + b"\x04\x00\x09x")),
    ("wrong checksum", "v2", checksummed(flip=1)),
    ("checksum of a wrong size", "v2", v2(body=TCP4_BODY + tlv(3, b"abc"))),
]


@pytest.mark.parametrize("any_version", [False, True], ids=["exact", "any"])
@pytest.mark.parametrize(("version", "wire", "source", "destination"), [g[1:] for g in GOOD], ids=[g[0] for g in GOOD])
def test_reads_header_whole_and_byte_by_byte(version, wire, source, destination, any_version):
    version = "any" if any_version else version
    local = wire[12:13] == b"\x20"  # version 2, LOCAL
    assert Parser(version).feed(wire + b"tail") == Result(source, destination, b"tail", local)
    parser = Parser(version)
    assert [parser.feed(wire[i : i + 1]) for i in range(len(wire) - 1)] == [None] * (len(wire) - 1)
    assert parser.feed(wire[-1:] + b"\r\nPROXY") == Result(source, destination, b"\r\nPROXY", local)


@pytest.mark.parametrize(("version", "wire"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_refuses(version, wire):
    with pytest.raises(ProxyProtocolError):
        Parser(version).feed(wire)
    parser = Parser(version)
    with pytest.raises(ProxyProtocolError):
        for i in range(len(wire)):
            assert parser.feed(wire[i : i + 1]) is None


def test_empty_feed_needs_more():
    assert Parser("any").feed(b"") is None


def test_refuses_at_the_first_wrong_byte():
    parser = Parser("v2")
    assert parser.feed(V2_SIGNATURE[:11]) is None
    with pytest.raises(ProxyProtocolError):
        parser.feed(b"X")


def test_error_text_shows_none_of_the_peers_bytes():
    with pytest.raises(ProxyProtocolError) as caught:
        Parser("v1").feed(b"PROXY TCP4 canary\r\n")
    assert "canary" not in str(caught.value)


def test_checksum_is_castagnolis():
    assert _crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4's check value


@pytest.mark.parametrize(
    ("version", "source", "destination", "wire"),
    [
        ("v1", A4, B4, GOOD[0][2]),
        ("v2", A4, B4, v2(body=TCP4_BODY)),
        ("v2", A6, B6, v2(family=0x21, body=TCP6_BODY)),
        ("v1", None, B4, b"PROXY UNKNOWN\r\n"),
        ("v2", A4, None, v2(0x20, 0)),
        ("v1", ("::ffff:192.0.2.1", 56324), B4, GOOD[0][2]),
        ("v1", ("fe80::1%eth0", 1), ("::1", 2), b"PROXY TCP6 fe80::1 ::1 1 2\r\n"),
    ],
)
def test_builds(version, source, destination, wire):
    assert build(version, source, destination) == wire


endpoints = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))


@given(st.sampled_from(["v1", "v2"]), endpoints, endpoints, st.binary(max_size=40), st.data())
def test_round_trip_however_it_is_cut(version, source, destination, rest, data):
    wire = build(version, source, destination)
    assert len(wire) <= V1_MAX
    cut = data.draw(st.integers(0, len(wire) - 1))
    parser = Parser(data.draw(st.sampled_from([version, "any"])))
    assert parser.feed(wire[:cut]) is None
    result = parser.feed(wire[cut:] + rest)

    def plain(endpoint):
        address = ipaddress.ip_address(endpoint[0])
        return str(getattr(address, "ipv4_mapped", None) or address), endpoint[1]

    assert result == Result(plain(source), plain(destination), rest)


@given(st.sampled_from(["v1", "v2", "any"]), st.lists(st.binary(max_size=64)), st.booleans())
def test_random_bytes_end_in_a_result_an_error_or_patience(version, chunks, signed):
    parser = Parser(version)
    try:
        for chunk in [V2_SIGNATURE if signed else b"PROXY ", *chunks]:
            if parser.feed(chunk) is not None:
                break
    except ProxyProtocolError:
        pass


@given(st.binary(max_size=120))
def test_random_tlvs_never_crash(tail):
    try:
        result = Parser("v2").feed(v2(body=TCP4_BODY + tail))
    except ProxyProtocolError:
        return
    assert result == Result(A4, B4, b"")
