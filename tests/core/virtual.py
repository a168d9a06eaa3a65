"""What the core is put on in its tests: a clock, a loop's turns, and transports whose far side the test holds in its
hand."""

from __future__ import annotations

import heapq
import itertools
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from ncfast.net.stream import Stream

UNLIMITED = 1 << 60


class Time:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Timer:
    def __init__(self, callback: Callable[..., Any], arguments: tuple) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.arguments = arguments

    def cancel(self) -> None:
        self.callback = None


class Turns:
    """`call_soon` and `call_later` of one event loop."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.soon: deque[tuple[Callable[..., Any], tuple]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._number = itertools.count()

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        self.soon.append((callback, arguments))

    def call_later(self, delay: float, callback: Callable[..., Any], *arguments: Any) -> Timer:
        timer = Timer(callback, arguments)
        heapq.heappush(self._timers, (self.time.now + delay, next(self._number), timer))
        return timer

    def run(self) -> bool:
        """Timers that are due, then one turn; whether anything happened."""
        ran = False
        while self._timers and self._timers[0][0] <= self.time.now:
            _, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self.call_soon(timer.callback, *timer.arguments)
        for _ in range(len(self.soon)):
            callback, arguments = self.soon.popleft()
            callback(*arguments)
            ran = True
        return ran


class _Transport(Stream):
    """What both kinds have in common: watermarks, closing, one `connection_lost`."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.protocol: Any = None
        self.high, self.low = 65536, 16384
        self.paused = False  # the protocol was told to pause writing
        self.closing = False
        self.lost = False

    def set_write_buffer_limits(self, high: int, low: int | None = None) -> None:
        self.high, self.low = high, high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        raise NotImplementedError

    def is_closing(self) -> bool:
        return self.closing

    def _mind_watermarks(self) -> None:
        size = self.get_write_buffer_size()
        if not self.paused and size > self.high:
            self.paused = True
            self.protocol.pause_writing()
        elif self.paused and size <= self.low:
            self.paused = False
            self.protocol.resume_writing()

    def _lose(self, exc: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self.turns.call_soon(self.protocol.connection_lost, exc)


class _Descriptor:
    """Stands for the kernel's socket; remembers whether a close would reset."""

    resets = False

    def fileno(self) -> int:
        raise OSError("no kernel has this socket")

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self.resets = bool(struct.unpack("ii", value)[0])


class Socket(_Transport):
    """A client's or target's connection. The far side writes with `send`, `fin`, `reset`, and takes bytes as its
    appetite allows."""

    def __init__(self, turns: Turns, appetite: int = UNLIMITED) -> None:
        super().__init__(turns)
        self.appetite = appetite  # bytes that far side and kernels between take from now on
        self.received = bytearray()
        self.saw_eof = self.saw_reset = False
        self.reaped = False  # closed in order, but cut in the end: the far side took nothing for seconds
        self.unsent = bytearray()
        self.incoming = bytearray()
        self.reading = True
        self._descriptor = _Descriptor()
        self._eof_written = False
        self._fin = self._fin_given = False

    # the far side

    def send(self, data: bytes) -> None:
        self.incoming += data
        self._read()

    def fin(self) -> None:
        self._fin = True
        self._read()

    def reset(self) -> None:
        self.incoming.clear()
        self.unsent.clear()
        self.closing = True
        self._lose(ConnectionResetError())

    def take(self, count: int) -> None:
        """Reads up to `count` bytes more."""
        self.appetite += count
        self._write()

    # what the protocol sees

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._descriptor if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def write(self, data: Any) -> None:
        assert not self._eof_written, "write after write_eof"
        if not self.closing:
            self.unsent += data  # copied: the caller's memory is spent when this returns
            self._write()

    def write_eof(self) -> None:
        if not self.closing and not self._eof_written:
            self._eof_written = True
            self._write()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            self.turns.call_soon(self._read)

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.reading = False
            self._write()

    def abort(self) -> None:
        if self.lost:
            return
        self.reaped = self.closing and bool(self.unsent)
        self.closing = True
        self.unsent.clear()
        if self._descriptor.resets:
            self.saw_reset = True
        else:
            self.saw_eof = True  # the kernel closes politely: whoever aborts without SO_LINGER lies
        self._lose(None)
        self.turns.call_soon(self._close_descriptor)

    def detach(self) -> tuple[Socket, bytes] | None:
        """This object is the kernel's socket, too, and stays; its transport's part begins anew."""
        if self.lost or self.closing:
            return None
        unsent = bytes(self.unsent)
        self.unsent.clear()
        self.reading = self.paused = self._eof_written = self._fin_given = False
        self.protocol = None
        return self, unsent

    def adopt(self, protocol: Any) -> None:
        self.protocol = protocol
        self.reading = True
        protocol.connection_made(self)

    def inherit(self, unsent: bytes, eof_in: bool, eof_out: bool) -> None:
        self._fin_given = eof_in
        if unsent:
            self.write(unsent)
        self._eof_written = eof_out
        self._write()

    def _close_descriptor(self) -> None:
        """Behind `connection_lost`, which may have thought better of it."""
        self.saw_reset, self.saw_eof = self._descriptor.resets, not self._descriptor.resets

    # kernel

    def _read(self) -> None:
        while self.reading and self.incoming and not self.closing:
            view = self.protocol.get_buffer(-1)
            count = min(len(view), len(self.incoming))
            view[:count] = self.incoming[:count]
            del self.incoming[:count]
            self.protocol.buffer_updated(count)
        if self.reading and self._fin and not self._fin_given and not self.closing:
            self._fin_given = True
            if not self.protocol.eof_received():
                self.close()

    def _write(self) -> None:
        if self.lost:
            return
        count = min(self.appetite, len(self.unsent))
        self.received += self.unsent[:count]
        del self.unsent[:count]
        self.appetite -= count
        if not self.unsent and (self._eof_written or self.closing):
            self.saw_eof = True
        if not self.unsent and self.closing:
            self._lose(None)
        else:
            self._mind_watermarks()


class Wire(_Transport):
    """One end's transport of a link. What was written waits here, by reference as the real transports keep it, until
    the test carries it over; `kernel` bytes count as sent. Memory that may change is copied at once, as the kernel and
    aiofastnet do."""

    def __init__(self, turns: Turns, kernel: int = 65536) -> None:
        super().__init__(turns)
        self.kernel = kernel
        self.copied = 0  # bytes that came in memory of the caller's
        self.pieces: deque[memoryview] = deque()
        self.borders: deque[int] = deque()  # sizes of the messages on their way, one for each write
        self.begun = False  # a part of the first has been carried
        self.size = 0
        self.aborted = False
        self.reading = True  # only noted: whoever carries gives what he likes

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return None

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return max(0, self.size - self.kernel)

    def write(self, data: Any) -> None:
        self.writelines([data])

    def writelines(self, lines: list[Any]) -> None:
        if self.closing:
            return
        self.borders.append(sum(map(len, lines)))
        for line in lines:
            view = memoryview(line)
            if not isinstance(view.obj, bytes):
                self.copied += len(view)
                view = memoryview(bytes(view))
            self.pieces.append(view)
            self.size += len(view)
        self._mind_watermarks()

    def take(self, count: int = UNLIMITED) -> bytes:
        """Up to `count` bytes leave for the other end."""
        out = []
        while self.pieces and count > 0:
            piece = self.pieces.popleft()
            if len(piece) > count:
                self.pieces.appendleft(piece[count:])
                piece = piece[:count]
            out.append(bytes(piece))
            self.size -= len(piece)
            count -= len(piece)
        taken = b"".join(out)
        self._pass_borders(len(taken))
        if not self.lost:
            self._mind_watermarks()
        return taken

    def _pass_borders(self, count: int) -> None:
        while count:
            passed = min(count, self.borders[0])
            count -= passed
            self.borders[0] -= passed
            self.begun = self.borders[0] > 0
            if not self.begun:
                self.borders.popleft()

    def close(self) -> None:
        self.closing = True
        self._lose(None)

    def abort(self) -> None:
        self.aborted = True
        self.lose()
        self.close()

    def lose(self) -> None:
        """What is on its way is gone."""
        self.pieces.clear()
        self.borders.clear()
        self.begun = False
        self.size = 0

    def next_message(self) -> bytes:
        """The next whole message, left where it is; nothing if a part of it has been carried."""
        if not self.borders:
            return b""
        whole = b"".join(self.pieces)[: self.borders[0]]
        return whole if whole[0] == 0x82 else b""
