"""Descriptors: by them what the kernel has belongs to a process, and passes to another one.

A connection, a listening socket with those who wait in it, and an end of a pair of Unix sockets are closed when the
last descriptor of them is, be it one in a message that nobody has read yet. A process that dies closes its own.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .kernel import Host, Kernel, Listener, Socket
from .loop import Watch

FIRST = 1 << 20  # no descriptor of the process that simulates
PAIR_BUFFER = 212_992  # bytes that an end of a pair holds unread (net.core.wmem_default)


class Descriptor:
    """Of a process, in whose `table` it is; what Python's socket has, as far as it is used."""

    family = socket.AF_INET
    proto = 0

    def __init__(self, kernel: Kernel, table: dict[int, Descriptor], sock: Any) -> None:
        self.kernel = kernel
        self.table = table
        self.sock = sock
        self.closed = False
        self._number = FIRST + kernel.next_number()
        table[self._number] = kernel.descriptors[self._number] = self
        sock.held += 1

    def fileno(self) -> int:
        return -1 if self.closed else self._number

    def detach(self) -> int:
        """The number, by which whoever asks finds it again."""
        return self._number

    def copy(self, table: dict[int, Descriptor]) -> Descriptor:
        return Descriptor(self.kernel, table, self.sock)

    def close(self) -> None:
        if self._let_go():
            self.sock.close()

    def crash(self, silently: bool) -> None:
        """The process was killed, or its host lost power, `silently`."""
        if self._let_go():
            self.sock.vanish() if silently else self.sock.crash()

    def _let_go(self) -> bool:
        """Whether it was the last."""
        if self.closed:
            return False
        self.closed = True
        del self.table[self._number], self.kernel.descriptors[self._number]
        self.sock.held -= 1
        return not self.sock.held

    def __enter__(self) -> Descriptor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # what a loop looks for

    @property
    def readable(self) -> bool:
        return not self.closed and self.sock.readable

    @property
    def writable(self) -> bool:
        return not self.closed and self.sock.writable

    # what passes on to the kernel

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "Bad file descriptor")
        self.sock.setsockopt(level, option, value)

    def setblocking(self, on: bool) -> None:
        pass

    def listen(self, backlog: int) -> None:
        pass

    def getsockname(self) -> tuple[Any, ...]:
        return self.sock.address

    def getpeername(self) -> tuple[Any, ...]:
        return self.sock.peer_address

    def sendmsg(self, parts: Sequence[memoryview], control: Sequence[Any] = ()) -> int:
        numbers = [number for _, _, value in control for number in value]
        passed = [self.kernel.descriptors[number].copy(self.kernel.passing) for number in numbers]
        return self.sock.send(b"".join(parts), passed)

    def recvmsg(self, size: int, room: int, flags: int) -> tuple[bytes, list[Any], int, None]:
        data, passed = self.sock.receive(size)
        fds = array.array("i")
        for one in passed:
            fds.append(one.copy(self.table).fileno())
            one.close()
        return data, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())] if fds else [], 0, None


class ListeningSocket(Listener):
    """Of processes; who connects waits in it until one of them accepts."""

    writable = False

    def __init__(self, host: Host, port: Any) -> None:
        super().__init__(host, port, self._enter)
        self.held = 0
        self.queue: deque[Socket] = deque()
        self.watches: dict[Watch, None] = {}
        self.address = (host.address, port)
        self._options: dict[tuple[int, int], Any] = {}

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._options[level, option] = value

    def _enter(self, connection: Socket) -> None:
        for (level, option), value in self._options.items():  # an accepted socket inherits them
            connection.setsockopt(level, option, value)
        self.queue.append(connection)
        for watch in list(self.watches):
            watch.look()

    @property
    def readable(self) -> bool:
        return bool(self.queue)

    def close(self) -> None:
        """Connections that nobody took are reset, as the kernel does."""
        super().close()
        while self.queue:
            connection = self.queue.popleft()
            connection.linger_reset = True
            connection.close()

    crash = close

    def vanish(self) -> None:
        super().close()
        while self.queue:
            self.queue.popleft().vanish()


class PairEnd:
    """One end of a pair of Unix stream sockets, whose descriptors travel with the first byte of what they were sent
    with."""

    def __init__(self, kernel: Kernel, pair: Pair) -> None:
        self.held = 0
        self.watches: dict[Watch, None] = {}
        self.peer: PairEnd
        self.closed = False
        self._kernel = kernel
        self.pair = pair
        self._on_way: deque[list[Descriptor]] = deque()  # of messages that have not come yet
        self._queue: deque[tuple[bytes, list[Descriptor]]] = deque()
        self._size = 0  # bytes on their way here, or unread
        self._last = 0.0  # arrival of the latest
        self._over: OSError | bool = False  # the far end has closed, and all of it has come

    def send(self, data: bytes, passed: list[Descriptor]) -> int:
        if self.closed or self.peer.closed:
            self._drop(passed)
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        size = min(len(data), PAIR_BUFFER - self.peer._size)
        if size <= 0:
            self._drop(passed)
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.peer._size += size
        self.peer._on_way.append(passed)
        self.pair.sent += 1
        self._to_peer(self.peer._arrive, data[:size], passed)
        for number, callback in [one for one in self.pair.marks if one[0] <= self.pair.sent]:
            self.pair.marks.remove((number, callback))
            callback()
        return size

    def _to_peer(self, action: Callable[..., None], *arguments: Any) -> None:
        world, peer = self._kernel.world, self.peer
        delay = (20e-6 + self.pair.extra) * (1.0 + world.rng.random())
        peer._last = max(peer._last + 1e-9, world.now + delay)
        world.at(peer._last, action, *arguments)

    def _arrive(self, data: bytes, passed: list[Descriptor]) -> None:
        if self.closed:
            return
        self._on_way.popleft()
        self._queue.append((data, passed))
        self._tell()

    def _tell(self) -> None:
        for watch in list(self.watches):
            watch.look()

    @staticmethod
    def _drop(passed: list[Descriptor]) -> None:
        for one in passed:
            one.close()

    @property
    def readable(self) -> bool:
        return bool(self._queue or self._over)

    @property
    def writable(self) -> bool:
        return self.peer.closed or self.peer._size < PAIR_BUFFER

    def receive(self, size: int) -> tuple[bytes, list[Descriptor]]:
        if self._queue:
            data, passed = self._queue.popleft()
            if len(data) > size:
                self._queue.appendleft((data[size:], []))
                data = data[:size]
            self._size -= len(data)
            self.peer._tell()
            return data, passed
        if isinstance(self._over, OSError):
            raise self._over
        if self._over:
            return b"", []
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def close(self) -> None:
        """What has not been read is dropped, and with it what is on its way: that takes its time here so that the far
        end seems slow, but the kernel has it in the queue."""
        self.closed = True
        unread = bool(self._queue or self._on_way)
        while self._on_way:
            self._drop(self._on_way.popleft())
        while self._queue:
            self._drop(self._queue.popleft()[1])
        self._to_peer(self.peer._end, ConnectionResetError(errno.ECONNRESET, "Connection reset") if unread else True)

    crash = close

    def vanish(self) -> None:
        self.close()

    def _end(self, how: OSError | bool) -> None:
        self._over = how
        if not self.closed:
            self._tell()


class Pair:
    """What a process and the one that it starts have between them."""

    def __init__(self, kernel: Kernel, extra: float) -> None:
        """`extra`: seconds that each message takes longer."""
        self.extra = extra
        self.sent = 0  # messages, or pieces of them, of both
        self.marks: list[tuple[int, Callable[[], None]]] = []  # what is called when so many have been sent
        self.ends = PairEnd(kernel, self), PairEnd(kernel, self)
        self.ends[0].peer, self.ends[1].peer = self.ends[1], self.ends[0]


class Calls:
    """System calls by number, as modules make them that do not go through `Net`."""

    strerror = staticmethod(os.strerror)

    def __init__(self, kernel: Kernel) -> None:
        self._open = kernel.descriptors

    def of(self, number: int) -> Descriptor:
        return self._open[number]

    def dup(self, number: int) -> int:
        one = self._open[number]
        return one.copy(one.table).fileno()

    def close(self, number: int) -> None:
        if number not in self._open:
            raise OSError(errno.EBADF, "Bad file descriptor")
        self._open[number].close()

    def accept(self, number: int) -> tuple[int, Any] | None:
        listening = self._open[number]
        if not listening.sock.queue:
            return None
        sock = listening.sock.queue.popleft()
        return Descriptor(listening.kernel, listening.table, sock).fileno(), sock.peer_address
