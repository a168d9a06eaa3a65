"""A hub's end of a tunnel whose far side speaks frames of the test's own making."""

from __future__ import annotations

from typing import Any, NamedTuple

from core.ends import Hub, Session
from core.virtual import UNLIMITED, Socket, Time
from ncfast._frames import FrameType, decode, encode
from ncfast.core.flow import Flow

CHUNK = 64 * 1024


class Frame(NamedTuple):
    type: FrameType
    flags: int
    code: int
    epoch: int
    cid: bytes
    seq: int
    ack: int
    limit: int
    payload: bytes


def messages(data: bytes) -> bytes:
    """The payload of WebSocket messages, one after the other; control frames are left out."""
    out, at = [], 0
    while at < len(data):
        opcode, masked, length, start = data[at] & 15, data[at + 1] & 128, data[at + 1] & 127, at + 2
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            length = int.from_bytes(data[start : start + extended], "big")
            start += extended
        key = data[start : start + 4] if masked else b""
        start += len(key)
        at = start + length
        if opcode == 2:
            out.append(unmasked(data[start:at], key) if key else data[start:at])
    return b"".join(out)


def unmasked(data: bytes, key: bytes) -> bytes:
    size = len(data)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


def frames(data: bytes) -> list[Frame]:
    """The frames in what an end has written."""
    return bare_frames(messages(data))


def bare_frames(data: bytes) -> list[Frame]:
    """The same on a stream without messages."""
    at, out = 0, []
    while at < len(data):
        type_, *rest, at = decode(data, at)
        out.append(Frame(FrameType(type_), *rest))
    return out


def message(payload: bytes, opcode: int = 2, fin: bool = True) -> bytes:
    """One WebSocket frame as a client sends it, masked with zeros."""
    size = len(payload)
    length = (
        bytes([0x80 | size])
        if size < 126
        else (b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big"))
    )
    return bytes([opcode | (0x80 if fin else 0)]) + length + bytes(4) + payload


class Peer:
    """The far side of one tunnel of `hub`, after HELLO."""

    def __init__(self, hub: Hub, window: int = 64 * 1024) -> None:
        self.hub = hub
        self.session = Session(hub)
        hub.sessions.append(self.session)
        self.link, self.wire = self.session.link, self.session.wire
        self.send(FrameType.HELLO, payload=(0).to_bytes(8, "big") + window.to_bytes(8, "big"))
        self.epoch = self.link.epoch
        self.taken()

    def feed(self, data: bytes, cut: int = UNLIMITED) -> None:
        """Bytes arrive, in pieces of at most `cut`."""
        at = 0
        while at < len(data) and not self.wire.lost:
            view = self.wire.protocol.get_buffer(-1)
            piece = data[at : at + min(cut, len(view))]
            view[: len(piece)] = piece
            self.wire.protocol.buffer_updated(len(piece))
            at += len(piece)

    def send(self, type: FrameType, flow: Flow | None = None, cut: int = UNLIMITED, **fields: Any) -> None:
        """One frame arrives."""
        if flow is not None:
            fields.setdefault("cid", flow.cid)
        fields.setdefault("epoch", self.link.epoch)
        self.feed(message(encode(type, **fields)), cut)

    def taken(self, count: int = UNLIMITED) -> list[Frame]:
        """Frames that left since last asked; `count` bytes must end a message."""
        while self.hub.turns.run():
            pass
        return frames(self.wire.take(count))

    def open(self, limit: int = CHUNK) -> tuple[Flow, Socket]:
        """A client comes, and its target is connected; `limit` is its credit."""
        self.link.peer_window = limit
        flow = self.hub.connect()
        self.taken()
        self.send(FrameType.M_OPEN_ACK, flow, limit=limit)
        return flow, self.hub.sockets[flow.cid]


def hub_and_peer(**options: Any) -> tuple[Time, Hub, Peer]:
    time = Time()
    hub = Hub(time, **options)
    return time, hub, Peer(hub)


def of(type: FrameType, some: list[Frame]) -> list[Frame]:
    return [frame for frame in some if frame.type is type]
