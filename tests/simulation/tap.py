"""Frames as they pass between simulated processes, for a look at a trace: `python -m tests.simulation --seed N --frames
CID`.

Raw mesh links are read as they are; of WebSocket tunnels the messages are taken apart (and unmasked) first.
"""

from __future__ import annotations

from collections.abc import Callable

from ncfast._frames import FrameError, FrameType, decode
from ncfast.core.errors import reason_of

from .kernel import Socket


class Stream:
    """One direction of a connection."""

    def __init__(self, tell: Callable[[str], None], cid: str) -> None:
        self._tell = tell
        self._cid = cid
        self._raw = bytearray()
        self._frames = bytearray()
        self._kind = ""  # "frames", "websocket", "other"

    def feed(self, data: bytes) -> None:
        if self._kind == "other":
            return
        self._raw += data
        if not self._kind:
            if self._raw[:1] in (b"\x01", b"\x02"):
                self._kind = "frames"
            elif self._raw[:4] in (b"GET ", b"HTTP"):
                end = self._raw.find(b"\r\n\r\n")
                if end < 0:
                    return
                del self._raw[: end + 4]
                self._kind = "websocket"
            elif len(self._raw) >= 4:
                self._kind = "other"
                return
        if self._kind == "frames":
            self._frames += self._raw
            self._raw.clear()
        elif self._kind == "websocket":
            self._messages()
        self._decode()

    def _messages(self) -> None:
        raw = self._raw
        while len(raw) >= 2:
            size, at = raw[1] & 127, 2
            if size > 125:
                more = 2 if size == 126 else 8
                if len(raw) < at + more:
                    return
                size, at = int.from_bytes(raw[at : at + more]), at + more
            masked = raw[1] & 128
            end = at + (4 if masked else 0) + size
            if len(raw) < end:
                return
            body = bytes(raw[end - size : end])
            if masked:
                key = bytes(raw[at : at + 4])
                body = bytes(byte ^ key[i & 3] for i, byte in enumerate(body))
            if raw[0] & 15 <= 2:
                self._frames += body
            del raw[:end]

    def _decode(self) -> None:
        at = 0
        data = bytes(self._frames)
        try:
            while (frame := decode(data, at)) is not None:
                kind, _, code, epoch, cid, seq, ack, limit, payload, at = frame
                if cid.hex().endswith(self._cid) and any(cid):
                    self._tell(
                        f"{FrameType(kind).name} {cid.hex()[-6:]} epoch {epoch} seq {seq} ack {ack} "
                        f"limit {limit} +{len(payload)}"
                        f"{' ' + reason_of(code).label if code else ''}"
                    )
        except FrameError as exc:
            self._tell(str(exc))
            self._kind = "other"
        del self._frames[:at]


def tap(cid: str) -> None:
    """Puts every frame of the flows whose cid ends so into the trace, when it is handed to a kernel."""
    send = Socket.send
    streams: dict[Socket, Stream] = {}

    def tapped(sock: Socket, data: memoryview) -> int:
        taken = send(sock, data)
        if taken:
            stream = streams.get(sock)
            if stream is None:
                way = f"{sock.host.name} -> {sock.out.target.host.name}"
                stream = streams[sock] = Stream(lambda text: sock.kernel.world.note(f"    {way}: {text}"), cid)
            stream.feed(bytes(data[:taken]))
        return taken

    Socket.send = tapped  # type: ignore[method-assign]
