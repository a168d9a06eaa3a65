"""TCP as programs see it: sockets, bounded buffers, segments, acknowledgements, ends, resets - between simulated hosts.

A direction of a connection (`Pipe`) carries segments in order. One that meets a blocked way is not lost but waits, and
arrives some time after the way is open again, as retransmission would have it; `TCP_USER_TIMEOUT` may end the
connection before. Resets are not retransmitted. Bytes for a socket that is closed are answered with a reset, and a
close over unread bytes is one (RFC 9293, section 3.6.1; RFC 2525, section 2.17).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .loop import Event, World

if TYPE_CHECKING:
    from .descriptors import Descriptor

SYN_RETRIES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds between attempts, as Linux has them
RETRANSMIT_MAX = 2.0  # seconds from the healing of a way to the next retransmission, at most
NEVER = 1e9

FIN = "fin"
RST = "rst"


class Host:
    """A machine: an address, and whether it has power."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.up = True
        self.sockets: dict[Socket, None] = {}  # that are open
        self.listeners: dict[Any, Listener] = {}  # by port, or path


class Listener:
    """A listening socket; `accept(connection)` is called for each connection, by whoever runs the process."""

    def __init__(self, host: Host, port: Any, accept: Callable[[Socket], None]) -> None:
        if port in host.listeners:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.host = host
        self.port = port
        self.accept = accept
        host.listeners[port] = self

    def close(self) -> None:
        if self.host.listeners.get(self.port) is self:
            del self.host.listeners[self.port]


class Pipe:
    """One direction of a connection."""

    def __init__(self, kernel: Kernel, source: Socket, target: Socket, way: tuple[Host, Host]) -> None:
        self.kernel = kernel
        self.source = source
        self.target = target
        self.way = way
        self.back = (way[1], way[0])
        self.unsent = bytearray()  # in the source's kernel, not transmitted
        self.flight: deque[tuple[float, Any]] = deque()
        self.in_flight = 0  # bytes
        self.unheard = 0  # bytes arrived whose acknowledgement has not
        self.lost_acks = 0
        self.received = bytearray()  # in the target's kernel, not read
        self.fin = False  # has arrived
        self.crashed = False  # the end was a dying process's, not the program's
        self.ending = False  # the source has ended it; FIN goes behind the bytes
        self.stuck = False
        self.blocked_at = 0.0
        self.limited = False  # by the target's window
        self.progress_at = kernel.world.now
        self.total = 0  # bytes ever sent
        self._read = 0  # bytes ever read
        self._marks: list[tuple[int, Callable[[], None]]] = []  # what is called when so many bytes have been read
        self._last = 0.0  # arrival of the latest segment
        self._arrival: Event | None = None
        self._watching = False

    @property
    def unacknowledged(self) -> int:
        return len(self.unsent) + self.in_flight + self.unheard + self.lost_acks

    def pump(self) -> None:
        """Transmits what the target's window allows."""
        world = self.kernel.world
        while self.unsent:
            window = self.kernel.receive_buffer - self.in_flight - len(self.received)
            if window <= 0:
                self.limited = True
                break
            size = min(len(self.unsent), window, self.kernel.segment_size())
            self._launch(bytes(self.unsent[:size]))
            del self.unsent[:size]
            self.in_flight += size
        if self.ending and not self.unsent:
            self.ending = False
            self._launch(FIN)
        if not self._watching and self.unacknowledged:
            self._watching = True
            self.progress_at = world.now
            world.after(self.source.user_timeout, self._look)

    def _launch(self, segment: Any) -> None:
        world = self.kernel.world
        self._last = max(self._last + 1e-9, world.now + self.kernel.delay(*self.way))
        self.flight.append((self._last, segment))
        if self._arrival is None and not self.stuck:
            self._arrival = world.at(self.flight[0][0], self._arrive)

    def _arrive(self) -> None:
        kernel, world = self.kernel, self.kernel.world
        self._arrival = None
        if not self.flight:  # a middlebox has cut the connection
            return
        if kernel.blocked(*self.way):
            self.stuck = True
            self.blocked_at = world.now
            while self.flight and self.flight[-1][1] is RST:
                self.flight.pop()  # is sent once
            return
        _, segment = self.flight.popleft()
        if self.flight:
            self._arrival = world.at(self.flight[0][0], self._arrive)
        if segment is RST:
            self.target.die(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
            return
        size = 0 if segment is FIN else len(segment)
        self.in_flight -= size
        self.target.heard_at = world.now
        if self.target.closed or self.target.error is not None:
            self.target.answer_reset()
            return
        if segment is FIN:
            self.fin = True
            self.crashed = self.source.crashed
        else:
            self.received += segment
            self.unheard += size
            world.after(kernel.delay(*self.back), self._acknowledged, size)
        self.target.wake()

    def _acknowledged(self, size: int) -> None:
        self.unheard -= size
        if self.kernel.blocked(*self.back):
            self.lost_acks += size
            return
        self.progress_at = self.kernel.world.now
        self.source.wake()

    def read(self, size: int) -> bytes:
        data = bytes(self.received[:size])
        del self.received[:size]
        self._read += len(data)
        for mark in [mark for mark in self._marks if mark[0] <= self._read]:
            self._marks.remove(mark)
            mark[1]()
        if self.limited and data:
            self.limited = False
            self.kernel.world.after(self.kernel.delay(*self.back), self.pump)
        return data

    def when_read(self, position: int, callback: Callable[[], None]) -> None:
        """`callback()` is called when so many bytes are taken by the target's process, before it looks at them."""
        self._marks.append((position, callback))

    def heal(self) -> None:
        """The way was opened again, in either direction."""
        if self.kernel.blocked(*self.way):
            return
        if self.stuck:
            self.stuck = False
            again = self.kernel.world.now + self.kernel.world.rng.uniform(0.0, RETRANSMIT_MAX)
            segments = [segment for _, segment in self.flight]
            self.flight.clear()
            self._last = max(self._last, again)
            for segment in segments:
                self._launch(segment)
        if self.lost_acks and not self.kernel.blocked(*self.back):
            size, self.lost_acks = self.lost_acks, 0
            self.unheard += size
            self.kernel.world.after(self.kernel.world.rng.uniform(0.0, RETRANSMIT_MAX), self._acknowledged, size)
        self.pump()

    def purge(self) -> None:
        """What is not transmitted never will be."""
        self.unsent.clear()
        self.ending = False
        if self.stuck:
            self.lose()

    def lose(self) -> None:
        """What is on its way never arrives."""
        self.flight.clear()
        self.in_flight = 0
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def reset(self) -> None:
        self.purge()
        if not self.stuck:
            self._launch(RST)

    def _look(self) -> None:
        """TCP_USER_TIMEOUT: nothing was acknowledged for so long although something was to be."""
        self._watching = False
        source = self.source
        if not self.unacknowledged or source.error is not None:
            return
        world = self.kernel.world
        if world.now - self.progress_at >= source.user_timeout - 1e-6:
            self.kernel.world.note(f"{source} times out")
            source.die(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
            return
        self._watching = True
        world.at(self.progress_at + source.user_timeout, self._look)


class Socket:
    """One end of a connection, as the process that owns it sees it.

    `notify()` is called when something can be read or written that could not before, and when the connection died.
    """

    family = socket.AF_INET

    def __init__(self, kernel: Kernel, host: Host, address: tuple[Any, ...], peer_address: tuple[Any, ...]) -> None:
        self.kernel = kernel
        self.host = host
        self.address = address
        self.peer_address = peer_address
        self.number = kernel.next_number()
        self.held = 0  # descriptors of it; a program has one, which is not counted
        self.user: Any = None  # the transport that it is under, of whatever process
        self.out: Pipe
        self.into: Pipe
        self.closed = False  # by its process, or by the kernel for it
        self.ended = False  # our direction was
        self.crashed = False
        self.error: OSError | None = None
        self.user_timeout = NEVER
        self.keep_idle = NEVER  # seconds of silence before the kernel asks whether the peer still is
        self.heard_at = kernel.world.now
        self.linger_reset = False
        self.was_reset = False  # by its own side
        self.notify: Callable[[], None] = lambda: None
        host.sockets[self] = None

    def __repr__(self) -> str:
        return f"{self.host.name}#{self.number}"

    # what a process may do

    def send(self, data: Any) -> int:
        """Takes what the kernel has room for. Raises OSError when the connection is dead."""
        if self.error is not None:
            raise self.error
        if self.closed or self.ended:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        room = self.kernel.send_buffer - self.out.unacknowledged
        if room <= 0:
            return 0
        taken = bytes(data[:room])
        if not self.out.unacknowledged:
            self.out.progress_at = self.kernel.world.now  # from now on something is to be acknowledged
        self.out.unsent += taken
        self.out.total += len(taken)
        self.out.pump()
        return len(taken)

    @property
    def readable(self) -> bool:
        return bool(self.into.received) or self.into.fin or self.error is not None

    def receive(self, size: int) -> bytes | None:
        """Up to `size` bytes, b"" at the end, None if there is nothing yet. Raises OSError when all was read of a dead
        connection."""
        if self.into.received:
            return self.into.read(size)
        if self.error is not None:
            raise self.error
        return b"" if self.into.fin else None

    def shutdown(self) -> None:
        """Ends our direction."""
        if self.error is not None:
            raise self.error
        if not self.closed and not self.ended:
            self.ended = self.out.ending = True
            self.out.pump()

    def close(self) -> None:
        if self.closed:
            return
        self.host.sockets.pop(self, None)
        self.closed = True
        if self.error is not None:
            return
        if self.linger_reset or self.into.received:
            self.was_reset = True
            self.out.reset()
        elif not self.ended:
            self.ended = self.out.ending = True
            self.out.pump()

    # what Python's socket has, as far as it is used

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self.linger_reset = bool(struct.unpack("ii", value)[0])
        elif (level, option) == (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT):
            self.user_timeout = value / 1000 or NEVER
        elif (level, option) == (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE):
            self.keep_alive(value)

    def keep_alive(self, idle: float) -> None:
        """Asks, after `idle` seconds of silence, whether the peer still has the connection (a lost reset is not
        repeated)."""
        if self.keep_idle == NEVER:
            self.kernel.world.after(idle, self._probe)
        self.keep_idle = idle

    def _probe(self) -> None:
        kernel, world = self.kernel, self.kernel.world
        if self.closed or self.error is not None:
            return
        there, here = self.out.way
        if (
            world.now - self.heard_at >= self.keep_idle - 1e-6
            and not kernel.blocked(there, here)
            and not kernel.blocked(here, there)
        ):
            self.heard_at = world.now
            if self.out.target.gone:
                self.die(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
                return
        world.at(max(self.heard_at + self.keep_idle, world.now + 1.0), self._probe)

    @property
    def gone(self) -> bool:
        """Whether its kernel no longer knows it."""
        return self.error is not None or self.was_reset

    def getsockname(self) -> tuple[Any, ...]:
        return self.address

    def getpeername(self) -> tuple[Any, ...]:
        return self.peer_address

    # what the kernel does

    def wake(self) -> None:
        if not self.closed:
            self.notify()

    def die(self, error: OSError) -> None:
        if self.error is None:
            self.error = error
            self.out.purge()
            self.wake()

    def answer_reset(self) -> None:
        """Bytes came for a socket that is closed."""
        if self.error is None:
            self.error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        if self.host.up:
            self.out.reset()

    def crash(self) -> None:
        """Its process was killed: the kernel closes in order, unless bytes were unread."""
        self.crashed = True
        self.notify = lambda: None
        self.close()

    def vanish(self) -> None:
        """Its host lost power: nobody is told."""
        self.closed = self.crashed = True
        self.host.sockets.pop(self, None)
        self.out.purge()
        self.out.lose()
        self.error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


class Kernel:
    """All hosts, and the ways between them."""

    def __init__(
        self, world: World, *, segment: int = 16384, send_buffer: int = 65536, receive_buffer: int = 65536
    ) -> None:
        self.world = world
        self.send_buffer = send_buffer  # bytes that a sending kernel holds until they are acknowledged
        self.receive_buffer = receive_buffer  # bytes that a receiving kernel holds until they are read
        self.hosts: dict[str, Host] = {}
        self.descriptors: dict[int, Descriptor] = {}  # of all processes
        self.passing: dict[int, Descriptor] = {}  # in messages that nobody has read yet
        self.latency: dict[tuple[str, str], float] = {}  # seconds one way, by pair of names
        self.default_latency = 0.0005
        self.extra: dict[tuple[str, str], float] = {}  # seconds added for a while
        self.cut: dict[tuple[str, str], int] = {}  # directed; how many faults block it
        self.rejected: dict[tuple[str, str], int] = {}  # directed; how many faults have connects refused
        self.pipes: list[Pipe] = []
        self._segment = segment
        self._number = 0
        self._port = 32768

    def host(self, name: str) -> Host:
        if name not in self.hosts:
            self.hosts[name] = Host(name, f"10.0.0.{len(self.hosts) + 1}")
        return self.hosts[name]

    def find(self, name: str) -> Host | None:
        """By name or address."""
        return self.hosts.get(name) or next((one for one in self.hosts.values() if one.address == name), None)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def segment_size(self) -> int:
        return self._segment if self.world.rng.random() < 0.7 else self.world.rng.randint(1, self._segment)

    def delay(self, source: Host, target: Host) -> float:
        """Seconds that a segment takes now."""
        if source is target:
            return 20e-6 + 20e-6 * self.world.rng.random()
        names = source.name, target.name
        base = self.latency.get(names, self.default_latency)
        return base * (1.0 + 0.3 * self.world.rng.random()) + self.extra.get(names, 0.0)

    # faults

    def blocked(self, source: Host, target: Host) -> bool:
        return not source.up or not target.up or self.cut.get((source.name, target.name), 0) > 0

    def block(self, source: Host, target: Host) -> None:
        self.cut[source.name, target.name] = self.cut.get((source.name, target.name), 0) + 1

    def unblock(self, source: Host, target: Host) -> None:
        self.cut[source.name, target.name] -= 1
        self.healed(source, target)

    def healed(self, *hosts: Host) -> None:
        """Ways between or from these hosts may be open again."""
        for pipe in self.living():
            if pipe.way[0] in hosts or pipe.way[1] in hosts:
                pipe.heal()

    def living(self) -> list[Pipe]:
        self.pipes = [pipe for pipe in self.pipes if not (pipe.source.closed and pipe.target.closed)]
        return list(self.pipes)

    def between(self, one: Host, other: Host) -> list[Socket]:
        """The open connections of two hosts, by the end at `one`."""
        return [pipe.source for pipe in self.living() if pipe.way == (one, other) and not pipe.source.closed]

    def cut_connection(self, end: Socket) -> None:
        """A middlebox resets both ends."""
        peer = end.out.target
        for one in (end, peer):
            one.out.lose()
            if not one.closed:
                one.die(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    # connecting

    def connect(self, source: Host, name: str, port: Any, done: Callable[[Socket | OSError], None]) -> Dial:
        return Dial(self, source, name, port, done)

    def join(self, source: Host, listener: Listener) -> tuple[Socket, Socket]:
        """Both ends of a new connection."""
        self._port = 32768 + (self._port - 32767) % 28000
        here, there = (source.address, self._port), (listener.host.address, listener.port)
        client, server = Socket(self, source, here, there), Socket(self, listener.host, there, here)
        client.out = server.into = Pipe(self, client, server, (source, listener.host))
        server.out = client.into = Pipe(self, server, client, (listener.host, source))
        self.pipes += [client.out, server.out]
        return client, server


class Dial:
    """A connect in progress; `done` gets the socket or the error, unless it was cancelled."""

    def __init__(
        self, kernel: Kernel, source: Host, name: str, port: Any, done: Callable[[Socket | OSError], None]
    ) -> None:
        self._kernel = kernel
        self._source = source
        self._target = kernel.find(name)
        self._port = port
        self._done = done
        self._attempt = 0
        self._event: Event | None = None
        if self._target is None:
            self._event = kernel.world.after(0.001, self._end, OSError(errno.ENOENT, "Name or service not known"))
        else:
            self._syn()

    def cancel(self) -> None:
        if self._event is not None:
            self._event.cancel()

    def _syn(self) -> None:
        kernel = self._kernel
        # type: ignore[arg-type]
        self._event = kernel.world.after(kernel.delay(self._source, self._target), self._at_target)

    def _at_target(self) -> None:
        kernel, source, target = self._kernel, self._source, self._target
        assert target is not None
        if kernel.blocked(source, target) or kernel.blocked(target, source):
            if self._attempt == len(SYN_RETRIES):
                self._end(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
                return
            self._event = kernel.world.after(SYN_RETRIES[self._attempt], self._syn)
            self._attempt += 1
            return
        self._event = kernel.world.after(kernel.delay(target, source), self._answered, target.listeners.get(self._port))

    def _answered(self, listener: Listener | None) -> None:
        if (
            listener is None
            or self._target.listeners.get(self._port) is not listener
            or self._kernel.rejected.get((self._source.name, self._target.name))
        ):  # type: ignore[union-attr]
            self._end(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
            return
        client, server = self._kernel.join(self._source, listener)
        self._kernel.world.after(self._kernel.delay(self._source, listener.host), self._accepted, listener, server)
        self._end(client)

    def _accepted(self, listener: Listener, server: Socket) -> None:
        if server.closed:
            return
        if self._target.listeners.get(self._port) is listener:  # type: ignore[union-attr]
            listener.accept(server)
        else:
            server.linger_reset = True  # nobody accepts any more
            server.close()

    def _end(self, result: Socket | OSError) -> None:
        self._event = None
        self._done(result)
