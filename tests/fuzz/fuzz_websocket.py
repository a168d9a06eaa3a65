"""WebSocket messages to a hub and to an agent, nearly right: what reaches the link, and the code that ends it, are
those of a reader written apart, however the bytes are cut.

The carrier is C and shows libFuzzer no coverage: its guide is this file.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports():
    from core.ends import Agent, Hub
    from core.virtual import Time
    from websockets.exceptions import WebSocketException
    from websockets.frames import Close

    from ncfast._frames import FrameType, encode
    from ncfast.core.errors import Reason

MAX_MESSAGE = 1 << 20
CODES = {Reason.PROTOCOL_ERROR: 1002, Reason.MESSAGE_TOO_BIG: 1009}


class Handler:
    def __init__(self) -> None:
        self.bodies = []
        self.ended = []

    def _on_frame__auth(self, code, body) -> None:
        self.bodies.append(body)

    def link_ended(self, link, reason, detail) -> None:
        self.ended.append(reason)


@atheris.instrument_func
def head(source: atheris.FuzzedDataProvider, length: int, masked: bool, fin: bool, first: bool) -> bytes:
    """Right, but for one thing in it now and then."""
    opcode = 2 if first else 0
    odd = source.ConsumeIntInRange(0, 30)
    if odd == 0:
        opcode = source.ConsumeIntInRange(0, 15)
    elif odd == 1:
        fin = not fin
    elif odd == 2:
        masked = not masked
    elif odd == 3:
        length = source.ConsumeUInt(8)
    start = opcode | fin << 7 | (source.ConsumeIntInRange(0, 7) << 4 if odd == 4 else 0)
    wide = source.ConsumeIntInRange(0, 2) if odd == 5 else 0 if length < 126 else 1 if length < 65536 else 2
    if wide == 0:
        return bytes([start, masked << 7 | length & 127])
    size = 2 if wide == 1 else 8
    return bytes([start, masked << 7 | 125 + wide]) + (length & (1 << 8 * size) - 1).to_bytes(size, "big")


@atheris.instrument_func
def stream(source: atheris.FuzzedDataProvider, masked: bool) -> bytes:
    pieces, first = [], True
    while source.remaining_bytes() and source.ConsumeIntInRange(0, 20):
        kind = source.ConsumeIntInRange(0, 9)
        if kind == 0:
            body = source.ConsumeBytes(source.ConsumeIntInRange(0, 126))
            pieces.append(bytes([0x88 + source.ConsumeIntInRange(0, 2), masked << 7 | min(len(body), 127)]))
            pieces.append(bytes(4 * masked) + body)
            continue
        if kind == 1:
            pieces.append(source.ConsumeBytes(source.ConsumeIntInRange(0, 20)))
            continue
        payload = b"".join(
            encode(FrameType.AUTH, payload=source.ConsumeBytes(source.ConsumeIntInRange(0, 8)))
            for _ in range(source.ConsumeIntInRange(0, 3))
        ) + encode(99, flags=1, payload=bytes(16384)) * (source.ConsumeIntInRange(0, 5) if kind == 2 else 0)
        fin = source.ConsumeIntInRange(0, 3) > 0
        key = source.ConsumeBytes(4).ljust(4, b"\0") if masked else b""
        pieces += [head(source, len(payload), masked, fin, first), key, mask(payload, key)]
        first = fin
    return b"".join(pieces)


def mask(data: bytes, key: bytes) -> bytes:
    if not any(key):
        return data
    pad = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(data), "big")


def read(wire: bytes, masked: bool) -> tuple[bytes, int | None]:
    """RFC 6455, as the protocol's page narrows it: the bytes of binary messages before the end, and its code if it is
    the WebSocket's; 0 for a close of the peer's."""
    out, at, within, message = [], 0, False, 0
    while len(wire) - at >= 2:
        start, second = wire[at], wire[at + 1]
        opcode, fin, length = start & 15, start >> 7, second & 127
        control = opcode >= 8
        if start & 0x70 or second >> 7 != masked:
            return b"".join(out), 1002
        if opcode not in (0, 2, 8, 9, 10) or (control and (not fin or length > 125)):
            return b"".join(out), 1002
        if not control and (opcode == 0) != within:
            return b"".join(out), 1002
        size = {126: 2, 127: 8}.get(length, 0)
        body = at + 2 + size + 4 * masked
        if body > len(wire):
            break
        if size:
            length = int.from_bytes(wire[at + 2 : at + 2 + size], "big")
            if length < (126 if size == 2 else 65536):
                return b"".join(out), 1002
        if not control:
            message = message + length if within else length
            if message > MAX_MESSAGE:
                return b"".join(out), 1009
            within = not fin
        data = mask(wire[body : body + length], wire[body - 4 : body] if masked else b"")
        if control and len(data) < length:
            break
        if opcode == 8:
            try:
                Close.parse(data)
            except (WebSocketException, UnicodeDecodeError):
                return b"".join(out), 1002
            return b"".join(out), 0
        if not control:
            out.append(data)
        at = body + length
    return b"".join(out), None


def bodies(payload: bytes) -> tuple[list[bytes], bool]:
    """What a link makes of whole AUTH frames and fillers; and whether it is sound up to its end."""
    found, at = [], 0
    while len(payload) - at >= 56:
        type_, length = payload[at], int.from_bytes(payload[at + 4 : at + 8], "big")
        filler = encode(99, flags=1, payload=bytes(16384))
        if type_ == FrameType.AUTH and payload[at : at + 56] == encode(FrameType.AUTH, payload=bytes(length))[:56]:
            if len(payload) - at < 56 + length:
                break
            found.append(payload[at + 56 : at + 56 + length])
        elif payload[at : at + 56] != filler[:56]:
            return found, False
        at += 56 + length
    return found, True


@atheris.instrument_func
def outcome(wire: bytes, client: bool, cut: int) -> Handler:
    time = Time()
    handler = Handler()
    _, end = (Agent if client else Hub)(time, kernel=1 << 30).link(handler)
    at = 0
    while at < len(wire) and not end.lost:
        view = end.protocol.get_buffer(-1)
        piece = wire[at : at + min(cut, len(view))]
        view[: len(piece)] = piece
        end.protocol.buffer_updated(len(piece))
        at += len(piece)
    return handler


@atheris.instrument_func
def one_input(given: bytes) -> None:
    source = atheris.FuzzedDataProvider(given)
    client, cut = source.ConsumeBool(), source.ConsumeIntInRange(1, 40)
    wire = stream(source, not client)
    payload, code = read(wire, not client)
    expected, sound = bodies(payload)
    for size in (1 << 30, cut):
        handler = outcome(wire, client, size)
        assert len(handler.ended) <= 1
        if handler.ended == [Reason.FLOOD]:  # many AUTHs, or messages without anything in them
            assert handler.bodies == expected[: len(handler.bodies)]
        elif sound:
            assert handler.bodies == expected, (handler.bodies, expected)
            assert [CODES.get(reason, 0) for reason in handler.ended] == ([] if code is None else [code]), handler.ended
        else:
            assert handler.bodies[: len(expected)] == expected  # what follows may read as frames of other kinds


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
