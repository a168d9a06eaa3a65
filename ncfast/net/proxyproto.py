"""PROXY protocol, versions 1 and 2: who the client was, told by a load balancer in front of the listener.

Sans-I/O. `build` makes a header, `Parser` reads one from a stream cut in any way. Where a header is expected
it must be there, whole and valid; nothing is ever guessed from content (haproxy issue 2450 shows the harm):
whether a peer may speak it is decided by its address, before this module is asked.

Source of the format and of every constant: https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Literal

from ncfast.core.errors import NcfastError

Version = Literal["v1", "v2", "any"]
Endpoint = tuple[str, int]

V1_PREFIX = b"PROXY "
V1_MAX = 107  # longest line, CRLF included (section 2.1: 108 bytes hold it with the final zero)
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_FIXED = 16  # signature, version and command, family, length
V2_MAX = 4096  # our bound on the whole header, TLVs included; common senders stay within one segment

_V2_HEAD = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the high half, command in the low
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_V2_ADDRESSES = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}  # bytes before the TLVs
_TLV_CRC32C = 0x03

_V1_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?"
    rb"|(?P<family>TCP4|TCP6) (?P<src>[0-9A-Fa-f.:]+) (?P<dst>[0-9A-Fa-f.:]+)"
    rb" (?P<sport>0|[1-9][0-9]{0,4}) (?P<dport>0|[1-9][0-9]{0,4}))\r\n"
)


class ProxyProtocolError(NcfastError):
    """The peer sent something else than the PROXY header that is due. The text holds none of its bytes."""


@dataclass(frozen=True, slots=True)
class Result:
    """A complete header, and the bytes that follow it.

    Both endpoints are None where the sender speaks for itself (LOCAL, UNKNOWN) or for a socket with
    no IP address: then the connection's own addresses hold. `local` tells version 2's LOCAL from the others: nobody is
    relayed, it is the sender's own check (section 2.2). Version 1's UNKNOWN may be either.
    """

    source: Endpoint | None
    destination: Endpoint | None
    rest: bytes
    local: bool = False


class Parser:
    """Reads one header: `feed` until it returns a `Result`, then no more.

    The owner bounds the time (the peer may stay silent); an end of stream before the result is an error.
    """

    def __init__(self, version: Version = "any") -> None:
        self._version = version
        self._buffer = bytearray()

    @property
    def read(self) -> bytes:
        """What has come so far."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> Result | None:
        """Take the next bytes; None asks for more. Raises `ProxyProtocolError` as soon as one is wrong."""
        self._buffer += data
        buffer = self._buffer
        if not buffer:
            return None
        version = self._version
        if version == "any":  # the two versions differ in their first byte
            version = "v2" if buffer[0] == V2_SIGNATURE[0] else "v1"
        prefix = V1_PREFIX if version == "v1" else V2_SIGNATURE
        if not prefix.startswith(buffer[: len(prefix)]):
            raise ProxyProtocolError("no PROXY header at the start of the connection")
        return _parse_v1(buffer) if version == "v1" else _parse_v2(buffer)


def build(version: Literal["v1", "v2"], source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """The header that says `source` connected to `destination`; with one of them None: nobody is forwarded.

    Addresses are literal IPs; a pair of mixed families is written as IPv6.
    """
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else _V2_HEAD.pack(V2_SIGNATURE, _LOCAL, _UNSPEC, 0)
    src, dst = _address(source[0]), _address(destination[0])
    if src.version != dst.version:
        src, dst = _mapped(src), _mapped(dst)
    if version == "v1":
        family = "TCP4" if src.version == 4 else "TCP6"
        return f"PROXY {family} {src} {dst} {source[1]} {destination[1]}\r\n".encode("ascii")
    body = src.packed + dst.packed + struct.pack("!HH", source[1], destination[1])
    return _V2_HEAD.pack(V2_SIGNATURE, _PROXY, _TCP4 if src.version == 4 else _TCP6, len(body)) + body


def _parse_v1(buffer: bytearray) -> Result | None:
    end = buffer.find(b"\n", 0, V1_MAX)
    if end < 0:
        if len(buffer) >= V1_MAX:
            raise ProxyProtocolError(f"PROXY v1 line longer than {V1_MAX} bytes")
        return None
    line, rest = bytes(buffer[: end + 1]), bytes(buffer[end + 1 :])
    match = _V1_LINE.fullmatch(line)
    if match is None:
        raise ProxyProtocolError("malformed PROXY v1 line")
    if match["family"] is None:
        return Result(None, None, rest)
    kind = ipaddress.IPv4Address if match["family"] == b"TCP4" else ipaddress.IPv6Address
    ports = int(match["sport"]), int(match["dport"])
    try:
        hosts = kind(match["src"].decode()), kind(match["dst"].decode())
    except ValueError:
        raise ProxyProtocolError("PROXY v1 line with an invalid address") from None
    if max(ports) > 65535:
        raise ProxyProtocolError("PROXY v1 line with an invalid port")
    return Result((_text(hosts[0]), ports[0]), (_text(hosts[1]), ports[1]), rest)


def _parse_v2(buffer: bytearray) -> Result | None:
    if len(buffer) < V2_FIXED:
        return None
    _, command, family, length = _V2_HEAD.unpack_from(buffer)
    end = V2_FIXED + length
    if command not in (_LOCAL, _PROXY):
        raise ProxyProtocolError("PROXY v2 header with an unknown version or command")
    if end > V2_MAX:
        raise ProxyProtocolError(f"PROXY v2 header longer than {V2_MAX} bytes")
    if command == _PROXY and length < _V2_ADDRESSES.get(family, V2_MAX):
        raise ProxyProtocolError("PROXY v2 header with a wrong family, or shorter than its addresses")
    if len(buffer) < end:
        return None
    header, rest = bytes(buffer[:end]), bytes(buffer[end:])
    if command == _LOCAL:  # section 2.2: the receiver ignores the family and all that follows it
        return Result(None, None, rest, local=True)
    tlvs = V2_FIXED + _V2_ADDRESSES[family]
    _check_tlvs(header, tlvs)
    if family not in (_TCP4, _TCP6):
        return Result(None, None, rest)
    width = 4 if family == _TCP4 else 16
    src = ipaddress.ip_address(header[V2_FIXED : V2_FIXED + width])
    dst = ipaddress.ip_address(header[V2_FIXED + width : V2_FIXED + 2 * width])
    sport, dport = struct.unpack_from("!HH", header, tlvs - 4)
    return Result((_text(src), sport), (_text(dst), dport), rest)


def _check_tlvs(header: bytes, at: int) -> None:
    """Walk the type-length-values; each must fit, and a checksum that is present must be right."""
    while at < len(header):
        if at + 3 > len(header):
            raise ProxyProtocolError("PROXY v2 header with a truncated TLV")
        kind, size = struct.unpack_from("!BH", header, at)
        value, at = at + 3, at + 3 + size
        if at > len(header):
            raise ProxyProtocolError("PROXY v2 header with a truncated TLV")
        if kind == _TLV_CRC32C:  # taken over the header with the checksum's own bytes as zeros
            expected = _crc32c(header[:value] + bytes(size) + header[at:])
            if header[value:at] != expected.to_bytes(4):
                raise ProxyProtocolError("PROXY v2 header with a wrong checksum")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address without scope, and as IPv4 where it is one: a dual-stack socket reports ::ffff:a.b.c.d."""
    address = ipaddress.ip_address(text)
    if address.version == 4:
        return address
    return address.ipv4_mapped or ipaddress.IPv6Address(address.packed)


def _mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    return address if address.version == 6 else ipaddress.IPv6Address(f"::ffff:{address}")


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Canonical text; mapped IPv4 as plain IPv4, so that one CIDR rule covers both spellings."""
    return str(_address(str(address)))


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)  # RFC 3720's polynomial, reflected
        table.append(crc)
    return tuple(table)


_CRC32C = _crc32c_table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
