"""Whole messages with descriptors between a process and the one that is to take its place, over a pair of Unix sockets.

A message is a head of three numbers (bytes of JSON, bytes of payload, descriptors), `[kind, body]` as JSON, and a
payload. Its descriptors travel with its first byte, so that they are there before the message is complete. Nothing is
negotiated here: both ends are of one machine, and whoever writes the first message says what it speaks.
"""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from ncfast.core.errors import NcfastError
from ncfast.net.seam import Net
from ncfast.observe import log

MAX_FDS = 64  # a message; the kernel takes 253 (SCM_MAX_FD)
MAX_JSON = 64 * 1024 * 1024  # bytes; the agents that a hub holds are told in one
MAX_PAYLOAD = 2 << 30  # bytes; what one flow keeps at most (`flow.window_max`), with room
ROOM = 1024 * 1024  # bytes that wait, below which `drained` lets write on
READ = 256 * 1024  # bytes asked for in one call
READS = 16  # calls in one turn of the loop, which has flows to serve as well
IN_FLIGHT_PAUSE = 0.005  # seconds, when more descriptors are under way than the kernel allows a user

_HEAD = struct.Struct("<III")
_CONTROL = socket.CMSG_SPACE(MAX_FDS * 4)

_log = log.get("net")


class Garbage(NcfastError):
    """What came is no message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One, as it came. The descriptors are the receiver's to close."""

    kind: str
    body: dict[str, Any]
    payload: bytes = b""
    fds: Sequence[int] = ()

    def close(self) -> None:
        """Closes the descriptors: of a message that nobody wants."""
        _close(self.fds)


class Channel:
    """One end. `on_message` gets each message, `on_closed` the reason, once, when the far end has closed, died or sent
    what is no message, or when `on_message` raises; not after `close`. What was sent before the far end died is
    delivered first. Both may be replaced at any time."""

    def __init__(
        self,
        net: Net,
        sock: socket.socket,
        on_message: Callable[[Message], object],
        on_closed: Callable[[str], object],
    ) -> None:
        """The socket is the channel's from here on."""
        sock.setblocking(False)
        self.on_message = on_message
        self.on_closed = on_closed
        self.closed = False
        self.backlog = 0  # bytes that wait for the far end to read
        self.heard_at = net.clock()  # when the far end has said something last
        self._net = net
        self._sock = sock
        self._in = bytearray()
        self._fds_in: deque[int] = deque()
        self._out: deque[tuple[memoryview, Sequence[int], list[int]]] = deque()  # and which of them are copies
        self._mute = False  # the far end does not read any more; what it has said is still read
        self._writing = False
        self._room = asyncio.Event()
        self._room.set()
        net.loop.add_reader(sock, self._read)

    # out

    def send(
        self,
        kind: str,
        body: dict[str, Any],
        payload: bytes | Sequence[bytes] = b"",
        fds: Sequence[int] = (),
        *,
        kept: bool = False,
    ) -> None:
        """Sends one message, or lets it wait. Payload and descriptors may be reused, and closed, when this returns; the
        latter not if they are `kept` open until the far end has answered, or is gone: of those no copies are made, for
        which a process with many clients may have no descriptors left.

        Nothing happens when the channel is closed. Raises ValueError for a message beyond the bounds, and OSError when
        there are no descriptors left to keep copies; nothing is sent then.
        """
        said = orjson.dumps([kind, body])
        payload = payload if isinstance(payload, bytes) else b"".join(payload)
        if len(said) > MAX_JSON or len(payload) > MAX_PAYLOAD or len(fds) > MAX_FDS:
            raise ValueError(f"message {kind}: {len(said)} + {len(payload)} bytes, {len(fds)} descriptors")
        if self.closed or self._mute:
            return
        whole = memoryview(b"".join((_HEAD.pack(len(said), len(payload), len(fds)), said, payload)))
        sent = 0 if self._out else self._write(whole, fds)
        if sent < len(whole) and not self._mute:
            left = () if sent else fds
            copies = [] if kept else _copies(left)
            self._out.append((whole[sent:], copies or list(left), copies))
            self._count(len(whole) - sent)
            if sent:
                self._await_room()

    async def drained(self) -> None:
        """Returns when less than `ROOM` waits, or the far end reads no more."""
        await self._room.wait()

    def _count(self, more: int) -> None:
        self.backlog += more
        if self.backlog < ROOM:
            self._room.set()
        else:
            self._room.clear()

    def _write(self, data: memoryview, fds: Sequence[int]) -> int:
        """How many bytes the kernel took. If any, it took the descriptors as well."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            return self._sock.sendmsg([data], control)
        except (BlockingIOError, InterruptedError):
            self._await_room()
        except OSError as exc:
            if exc.errno == errno.ETOOMANYREFS:
                self._net.call_later(IN_FLIGHT_PAUSE, self._flush)
            else:
                self._hush()
        return 0

    def _await_room(self) -> None:
        if not self._writing:
            self._writing = True
            self._net.loop.add_writer(self._sock, self._flush)

    def _flush(self) -> None:
        while self._out and not self.closed:
            data, fds, copies = self._out[0]
            sent = self._write(data, fds)
            if not sent:
                return
            _close(copies)
            if sent < len(data):
                self._out[0] = data[sent:], (), []
            else:
                self._out.popleft()
            self._count(-sent)
        self._quiet()

    def _quiet(self) -> None:
        if self._writing:
            self._writing = False
            self._net.loop.remove_writer(self._sock)

    def _hush(self) -> None:
        """The far end is gone. What it said last may be unread yet: the end of the stream closes the channel."""
        self._mute = True
        for _, _, copies in self._out:
            _close(copies)
        self._out.clear()
        self._count(-self.backlog)
        self._quiet()

    # in

    def _read(self) -> None:
        if self.closed:
            return None
        for _ in range(READS):
            try:
                data, control, flags, _ = self._sock.recvmsg(READ, _CONTROL, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as exc:
                return self._end(os.strerror(exc.errno or 0))
            for level, kind, value in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    self._fds_in.extend(array.array("i", value[: len(value) // 4 * 4]))
            if flags & socket.MSG_CTRUNC:
                return self._end("descriptors ran out")
            if not data:
                return self._end("a message was cut short" if self._in else "the far end has closed")
            self._in += data
            self.heard_at = self._net.clock()
            try:
                self._deliver()
            except Garbage as exc:
                return self._end(f"no message: {exc}")
            if self.closed:
                return None
        self._net.call_soon(self._read)  # libuv tells once of a socket that has an error, however much is unread
        return None

    def _deliver(self) -> None:
        while not self.closed and (message := self._next()) is not None:
            try:
                self.on_message(message)
            except Exception:
                _log.exception("handover_message_failed", detail=message.kind)
                return self._end(f"message {message.kind} could not be worked with")
        if not self._in and self._fds_in:
            raise Garbage("descriptors without a message")

    def _next(self) -> Message | None:
        """The next message, if it is there. Raises Garbage."""
        if len(self._in) < _HEAD.size:
            return None
        said, payload, fds = _HEAD.unpack_from(self._in)
        if said > MAX_JSON or payload > MAX_PAYLOAD or fds > MAX_FDS:
            raise Garbage("its lengths are beyond the bounds")
        start, end = _HEAD.size + said, _HEAD.size + said + payload
        if len(self._in) < end:
            return None
        try:
            kind, body = orjson.loads(memoryview(self._in)[_HEAD.size : start])
        except (ValueError, TypeError) as exc:
            raise Garbage(str(exc)) from None
        if not isinstance(kind, str) or not isinstance(body, dict):
            raise Garbage("neither kind nor body")
        if fds > len(self._fds_in):
            raise Garbage("descriptors are missing")
        content = bytes(memoryview(self._in)[start:end])
        del self._in[:end]
        return Message(kind, body, content, [self._fds_in.popleft() for _ in range(fds)])

    # the end

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.close()
            self.on_closed(reason)

    def close(self) -> None:
        """Closes this end. What waits is not sent, what was not read is lost."""
        if self.closed:
            return
        self.closed = True
        self._net.loop.remove_reader(self._sock)
        self._hush()
        self._sock.close()
        _close(self._fds_in)
        self._fds_in.clear()
        self._in.clear()


def _copies(fds: Sequence[int]) -> list[int]:
    """Raises OSError; nothing stays open then."""
    made: list[int] = []
    try:
        for fd in fds:
            made.append(os.dup(fd))
    except OSError:
        _close(made)
        raise
    return made


def _close(fds: Sequence[int] | deque[int]) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
