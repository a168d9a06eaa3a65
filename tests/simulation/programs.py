"""Clients and targets: small programs on simulated sockets that follow a script and know what they must receive.

A program's script says what it sends and when, how it reads, and how it ends. What a stream holds is known (see
`streams`), so each piece is checked as it arrives: it must be what the other program sent, from the first byte on,
without a hole; and an orderly end must stand where the other program put its own.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .kernel import Host, Kernel, Listener, Socket
from .loop import Event, World
from .streams import differs, piece

WAKE_DELAY = 40e-6  # seconds until a program that is woken runs, at most
HEADER_PAUSE = 0.2  # seconds between the halves of a PROXY header
KEEP_IDLE = 5.0  # seconds of silence after which a program's kernel asks for the peer
BURST = 65536  # bytes of a read or write
CLONE = "clone-of-"  # how hosts of second processes of an agent begin
PROXY_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@dataclass(frozen=True, slots=True)
class Step:
    """Once `after` bytes were received in all, and `delay` seconds later, `size` bytes are sent."""

    size: int
    after: int = 0
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Script:
    """What a program does with its connection.

    `end`: "fin" ends its direction when all is sent and, if `end_after` is given, so many bytes were received; "reset"
    resets the connection then; "close" closes it then, read or not; "follow" ends its direction only after the other
    one has ended.
    """

    steps: tuple[Step, ...] = ()
    end: str = "fin"
    end_after: int = 0
    end_delay: float = 0.0
    read_size: int = BURST  # bytes of a read
    read_pause: float = 0.0  # seconds between two reads
    stall_at: int = -1  # received bytes at which it stops reading ...
    stall: float = 0.0  # ... for so many seconds

    @property
    def total(self) -> int:
        """Bytes that it sends if nothing comes in between."""
        return sum(step.size for step in self.steps)


@dataclass(slots=True)
class Side:
    """What one program did and saw."""

    sent: int = 0  # taken by its kernel
    ended: bool = False  # its direction, in order, behind `sent` bytes
    received: int = 0
    saw: str = ""  # how the other direction ended: "end", "crash" (a process on the way died), "reset"
    quit: str = ""  # what it did itself, that excuses the other side's reset: "reset", "close"
    done_at: float = -1.0


@dataclass(eq=False, slots=True)
class Trip:
    """One flow as its two programs know it."""

    number: int
    connector: str
    kind: str  # of the workload
    client_script: Script
    target_script: Script
    host: Host  # the client's
    hub: str  # where it connects
    port: int
    starts_at: float
    agents: tuple[str, ...]  # that may serve it
    proxied: bool = False  # a PROXY header comes first, in two pieces
    client: Side = field(default_factory=Side)
    target: Side = field(default_factory=Side)
    address: tuple[Any, ...] = ()  # of the client
    connected_at: float = -1.0
    reached: int = 0  # connections to targets that carried it
    reached_at: float = -1.0
    agent: str = ""  # that dialled the target
    target_address: tuple[Any, ...] = ()  # of the agent's end
    excuses: set[str] = field(default_factory=set)

    @property
    def up(self) -> int:
        return 2 * self.number

    @property
    def down(self) -> int:
        return 2 * self.number + 1

    def __str__(self) -> str:
        return f"trip {self.number} ({self.kind} to {self.connector} by {self.hub})"


def _header(trip: Trip) -> bytes:
    """The PROXY protocol's, version 2, of a balancer that lets the client through under its own address."""
    (host, port), address = trip.address[:2], struct.pack("!4BH", 10, 0, 0, 0, trip.port)
    source = bytes(map(int, host.split("."))) + address[:4] + struct.pack("!H", port) + address[4:]
    return PROXY_SIGNATURE + b"\x21\x11" + struct.pack("!H", len(source)) + source


class Program:
    """Follows a script on a connected socket; `finished(self)` is called once, when it has nothing left to do."""

    def __init__(
        self,
        world: World,
        sock: Socket,
        trip: Trip,
        script: Script,
        me: Side,
        other: Side,
        stream: int,
        finished: Callable[[Program], None],
    ) -> None:
        self.world = world
        self.sock = sock
        self.trip = trip
        self.script = script
        self.me = me
        self.other = other
        self.stream = stream  # that it sends; it receives the other one of the pair
        self.over = False
        self._finished = finished
        self._steps = list(script.steps)
        self._step_left = -1  # bytes of the first step, -1: it has not begun
        self._waits: Event | None = None  # for a step's or the end's delay
        self._waits_until = 0.0
        self._rests_until = -1.0  # does not read before
        self._stalled = False
        self._ending = False
        self._scheduled = False
        self._head = _header(trip) if me is trip.client and trip.proxied else b""
        self._head_half = len(self._head) // 2
        sock.notify = self.wake
        sock.keep_alive(KEEP_IDLE)
        self.wake()

    @property
    def name(self) -> str:
        return "client" if self.me is self.trip.client else "target"

    def wake(self) -> None:
        if not self._scheduled and not self.over:
            self._scheduled = True
            self.world.after(WAKE_DELAY * self.world.rng.random(), self._run)

    def _run(self) -> None:
        self._scheduled = False
        if self.over:
            return
        try:
            self._read()
            if not self.over:
                self._write()
        except OSError:
            self._lost()

    # reading

    def _read(self) -> None:
        world = self.world
        budget = BURST * 4
        while budget > 0 and not self.me.saw:
            if world.now < self._rests_until:
                return
            if self.script.stall_at >= 0 and self.me.received >= self.script.stall_at and not self._stalled:
                self._stalled = True
                self._rest(self.script.stall)
                return
            data = self.sock.receive(self.script.read_size)
            if data is None:
                return
            if not data:
                self._saw_end()
                return
            budget -= len(data)
            self._got(data)
            if self.script.read_pause:
                self._rest(self.script.read_pause)
        if budget <= 0:
            self.wake()

    def _rest(self, seconds: float) -> None:
        self._rests_until = self.world.now + seconds
        self.world.at(self._rests_until, self.wake)

    def _got(self, data: bytes) -> None:
        me, other = self.me, self.other
        at = differs(self.stream ^ 1, me.received, data)
        if at >= 0:
            self.world.problem(f"{self.trip}: the {self.name} received a wrong byte at {at}")
        me.received += len(data)
        if me.received > other.sent:
            self.world.problem(
                f"{self.trip}: the {self.name} received {me.received} bytes, only {other.sent} were sent"
            )

    def _saw_end(self) -> None:
        me, other = self.me, self.other
        me.saw = "crash" if self.sock.into.crashed and not me.received else "end"  # a crash between accept and all else
        if self.trip.proxied and not me.received and not self.trip.reached:
            me.saw = "refused"  # behind its header, and in order
        if me.saw == "end" and not (other.ended and other.sent == me.received):
            self.world.problem(
                f"{self.trip}: the {self.name} saw an orderly end after {me.received} bytes, "
                f"the other side has sent {other.sent} and {'ended' if other.ended else 'not ended'}"
            )

    # writing

    def _ready(self, after: int) -> bool:
        return self.me.received >= after or bool(self.me.saw)

    def _delayed(self, seconds: float) -> bool:
        """Whether a delay that begins now, or has begun, is not over yet."""
        if not seconds:
            return False
        if self._waits is None:
            self._waits = self.world.after(seconds, self.wake)
            self._waits_until = self.world.now + seconds
        if self.world.now < self._waits_until:
            return True
        self._waits = None
        return False

    def _introduce(self) -> bool:
        """Whether the header is sent: half of it, and some time later the rest."""
        if self._head and self._head_half:
            taken = self.sock.send(self._head[: self._head_half])
            self._head, self._head_half = self._head[taken:], self._head_half - taken
        if self._head and not self._head_half and not self._delayed(HEADER_PAUSE):
            self._head = self._head[self.sock.send(self._head) :]
        return not self._head

    def _write(self) -> None:
        if not self._introduce():
            return
        while self._steps:
            step = self._steps[0]
            if self._step_left < 0:
                if not self._ready(step.after) or self._delayed(step.delay):
                    return
                self._step_left = step.size
            while self._step_left > 0:
                size = min(self._step_left, BURST)
                taken = self.sock.send(piece(self.stream, self.me.sent, size))
                self.me.sent += taken
                self._step_left -= taken
                if taken < size:
                    return
            self._step_left = -1
            self._steps.pop(0)
        script = self.script
        if not self._ending:
            if script.end == "follow" and not self.me.saw:
                return
            if not self._ready(script.end_after) or self._delayed(script.end_delay):
                return
            self._ending = True
            self._end()
        if self.me.saw and self._ending and not self.over:
            self._quit()

    def _end(self) -> None:
        end = self.script.end
        if end == "reset":
            self.me.quit = "reset"
            self.sock.linger_reset = True
            self._quit()
        elif end == "close":
            self.me.quit = "close"
            self.me.ended = not self.sock.into.received and self.sock.error is None
            self._quit()
        else:
            self.me.ended = True
            self.sock.shutdown()

    def _lost(self) -> None:
        if not self.me.saw:
            self.me.saw = "reset"
        elif not self._ending:
            self.me.quit = self.me.quit or "lost"  # could not send all
        self._quit()

    def _quit(self) -> None:
        self.over = True
        self.me.done_at = self.world.now
        self.sock.close()
        self.world.note(
            f"{self.trip}: the {self.name} is done: sent {self.me.sent}{'.' if self.me.ended else ''} "
            f"received {self.me.received} saw {self.me.saw or '-'} quit {self.me.quit or '-'}"
        )
        self._finished(self)


class Clients:
    """Starts trips and keeps those under way."""

    def __init__(self, world: World, kernel: Kernel) -> None:
        self.world = world
        self.kernel = kernel
        self.trips: list[Trip] = []
        self.by_address: dict[tuple[Any, ...], Trip] = {}
        self.open: dict[Trip, None] = {}

    def add(self, trip: Trip) -> None:
        self.trips.append(trip)
        self.open[trip] = None
        self.world.at(trip.starts_at, self._connect, trip)

    def _connect(self, trip: Trip) -> None:
        self.kernel.connect(trip.host, trip.hub, trip.port, lambda result: self._connected(trip, result))

    def _connected(self, trip: Trip, result: Socket | OSError) -> None:
        if isinstance(result, OSError):
            trip.client.saw = "refused"
            trip.client.done_at = self.world.now
            self.world.note(f"{trip}: {errno.errorcode.get(result.errno or 0)}")
            del self.open[trip]
            return
        trip.connected_at = self.world.now
        trip.address = result.getsockname()
        self.by_address[trip.address] = trip
        Program(self.world, result, trip, trip.client_script, trip.client, trip.target, trip.up, self._finished)

    def _finished(self, program: Program) -> None:
        del self.open[program.trip]


class TargetServer:
    """A service behind agents. A connection begins with a PROXY protocol header, by which it knows whom it serves."""

    def __init__(self, world: World, host: Host, port: int, clients: Clients) -> None:
        self.world = world
        self.host = host
        self.port = port
        self.clients = clients
        self.open: dict[Any, None] = {}
        self._listener: Listener | None = None
        self.up()

    def up(self) -> None:
        if self._listener is None:
            self._listener = Listener(self.host, self.port, self._accept)

    def down(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _accept(self, sock: Socket) -> None:
        arrival = _Arrival(self, sock)
        self.open[arrival] = None
        arrival.look()

    def identified(self, arrival: _Arrival, address: tuple[str, int]) -> None:
        trip = self.clients.by_address.get(address)
        del self.open[arrival]
        if trip is None:
            self.world.problem(f"a target got a connection for {address}, which is no client")
            return
        trip.reached += 1
        trip.reached_at = self.world.now
        trip.agent = arrival.sock.out.target.host.name.removeprefix(CLONE)
        trip.target_address = arrival.sock.getpeername()
        if trip.reached > 1:
            self.world.problem(f"{trip}: reached a target twice")
            arrival.sock.close()
            return
        program = Program(
            self.world, arrival.sock, trip, trip.target_script, trip.target, trip.client, trip.down, self._finished
        )
        self.open[program] = None

    @property
    def arriving(self) -> int:
        """Connections that have not said whose they are: health checks, if nothing is wrong."""
        return sum(isinstance(one, _Arrival) for one in self.open)

    def gone(self, arrival: _Arrival) -> None:
        """A health check that has said so, or an agent that died."""
        self.open.pop(arrival, None)

    def _finished(self, program: Program) -> None:
        del self.open[program]


class _Arrival:
    """A connection at a target until its PROXY header (version 2) is there."""

    def __init__(self, server: TargetServer, sock: Socket) -> None:
        self.server = server
        self.sock = sock
        self._head = b""
        sock.notify = self.look
        sock.keep_alive(KEEP_IDLE)

    def look(self) -> None:
        need = 16
        try:
            while True:
                if len(self._head) >= 16:
                    need = 16 + struct.unpack("!H", self._head[14:16])[0]
                    if len(self._head) == need:
                        break
                data = self.sock.receive(need - len(self._head))
                if data is None:
                    return
                if not data:
                    self._leave("closed" if not self._head else "cut")
                    return
                self._head += data
        except OSError:
            self._leave("reset")
            return
        assert self._head.startswith(PROXY_SIGNATURE)
        if need == 16:  # LOCAL: a health check, which forwards nobody
            self._leave("closed")
            return
        host = ".".join(str(byte) for byte in self._head[16:20])
        self.server.identified(self, (host, struct.unpack("!H", self._head[24:26])[0]))

    def _leave(self, how: str) -> None:
        if how == "cut" and not self.sock.into.crashed:
            self.server.world.problem("a target got half a PROXY header and an orderly end")
        self.sock.close()
        self.server.gone(self)
