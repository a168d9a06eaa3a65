"""The seam's other side: `SimNet` in place of `ncfast.net.Net`, and transports over simulated sockets.

A transport writes at once and keeps what the kernel does not take as a copy, as aiofastnet and `SocketTransport` do.
Reads, ends and losses come in the order and with the callbacks of aiofastnet's `SelectorSocketTransport`.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections import deque
from collections.abc import Callable, MutableSet
from typing import Any

from ncfast.config.values import Address
from ncfast.net.acceptor import Acceptor
from ncfast.net.binding import key_of
from ncfast.net.dial import waited_for
from ncfast.net.seam import Net, tune_young
from ncfast.net.stream import Stream

from .descriptors import Descriptor, ListeningSocket, Pair
from .kernel import Host, Kernel, Socket
from .loop import Loop

READ_HINT = 262144  # bytes read in a turn at most
READ_SIZE = 262144  # of a protocol that does not bring its own buffer
SCRATCH = 65536  # the same under a `SocketTransport`


class OrderedSet(MutableSet[Any]):
    """A set that is walked in the order of insertion, whatever addresses or hashes its members have."""

    def __init__(self, items: Any = ()) -> None:
        self._items = dict.fromkeys(items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Any:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Any) -> None:
        self._items[item] = None

    def discard(self, item: Any) -> None:
        self._items.pop(item, None)


class Transport(Stream):
    """A connected socket under a protocol."""

    def __init__(self, net: SimNet, file: Descriptor, protocol: Any, *, at_once: bool = False) -> None:
        """`at_once`: `connection_made` has been called when this returns."""
        self._net = net
        self._loop: Loop = net.loop
        self._file = file
        sock: Socket = file.sock
        self._sock = sock
        if sock.user is not None and not sock.user._loop.dead:
            self._loop.world.problem(
                f"{self._loop.name} has {sock} under a transport, and so has {sock.user._loop.name}"
            )
        sock.user = self
        self._read_size = SCRATCH if at_once else READ_SIZE
        self._high, self._low = 65536, 16384
        self._backlog: deque[Any] = deque()
        self._backlog_size = 0
        self._paused_protocol = False
        self._reading = True
        self._started = False
        self._eof_in = False
        self._eof_out = False
        self._closing = False
        self._in_order = False  # it was `close` that ended the connection
        self._finalizing = False
        self._given_up = False
        self._scheduled = False
        self._connected = False
        self._on_error: Callable[[], None] | None = None
        self.set_protocol(protocol)
        sock.notify = self._notify
        net.transports[self] = None
        if at_once:
            self._make()
        else:
            net.call_soon(self._make)
        net.call_soon(self._start)

    def _make(self) -> None:
        if not self._finalizing:
            self._connected = True
            try:
                self._protocol.connection_made(self)
            except Exception as exc:
                self._failed("connection_made", exc)

    def _start(self) -> None:
        self._started = True
        self._notify()

    # information

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        file = None if self._given_up or self._file.closed else self._file
        return {"socket": file, "peername": self._sock.peer_address, "sockname": self._sock.address}.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol
        self._buffered = hasattr(protocol, "get_buffer")

    def get_protocol(self) -> Any:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing and self._reading

    def can_write_eof(self) -> bool:
        return True

    # reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._closing and not self._reading:
            self._reading = True
            self._notify()

    def _notify(self) -> None:
        """The kernel has news."""
        sock = self._sock
        if self._on_error is not None and (sock.error is not None or (sock.into.fin and sock.out.fin)):
            callback, self._on_error = self._on_error, None
            self._loop.call_soon(callback)
        if not self._scheduled and self._started:
            self._scheduled = True
            self._loop.call_soon(self._ready)

    def _ready(self) -> None:
        self._scheduled = False
        try:
            if self._backlog and not self._finalizing:
                self._flush()
            if self.is_reading() and not self._eof_in and self._sock.readable:
                self._read()
        except Exception as exc:
            self._failed("callback", exc)

    def _read(self) -> None:
        done = 0
        while done < READ_HINT and self.is_reading():
            try:
                if self._buffered:
                    view = self._protocol.get_buffer(-1)
                    data = self._sock.receive(len(view))
                else:
                    data = self._sock.receive(self._read_size)
            except OSError as exc:
                self._force_close(exc)
                return
            if data is None:
                return
            if not data:
                self._eof_in = True
                if not self._protocol.eof_received():
                    self.close()
                return
            done += len(data)
            if self._buffered:
                view[: len(data)] = data
                self._protocol.buffer_updated(len(data))
            else:
                self._protocol.data_received(data)
        self._notify()

    # writing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 65536 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return self._backlog_size

    def write(self, data: Any) -> None:
        self.writelines([data])

    def writelines(self, lines: list[Any]) -> None:
        assert not self._eof_out, "write after write_eof"
        if self._finalizing or (self._closing and self._file.closed):
            return
        for line in lines:
            view = memoryview(line).cast("B") if line else memoryview(b"")
            if not self._backlog:
                try:
                    view = view[self._sock.send(view) :]
                except OSError as exc:
                    self._force_close(exc)
                    return
            if len(view):
                self._backlog.append(memoryview(bytes(view)))
                self._backlog_size += len(view)
        self._mind_watermarks()

    def _flush(self) -> None:
        while self._backlog:
            view = self._backlog[0]
            try:
                sent = self._sock.send(view)
            except OSError as exc:
                self._force_close(exc)
                return
            self._backlog_size -= sent
            if sent < len(view):
                self._backlog[0] = view[sent:]
                break
            self._backlog.popleft()
        self._mind_watermarks()
        if not self._backlog and not self._finalizing:
            if self._closing:
                self._finalize_later(None)
            elif self._eof_out:
                self._sock.shutdown()

    def _mind_watermarks(self) -> None:
        if not self._paused_protocol and self._backlog_size > self._high:
            self._paused_protocol = True
            self._protocol.pause_writing()
        elif self._paused_protocol and self._backlog_size <= self._low:
            self._paused_protocol = False
            self._protocol.resume_writing()

    def write_eof(self) -> None:
        if self._closing or self._eof_out:
            return
        self._eof_out = True
        if not self._backlog:
            self._sock.shutdown()

    # given up, and taken over

    def detach(self) -> tuple[Descriptor, bytes] | None:
        if self._finalizing:
            return None
        unsent = b"".join(self._backlog)
        self._backlog.clear()
        self._backlog_size = 0
        self._finalizing = self._closing = self._given_up = True
        self._reading = False
        self._on_error = None
        self._leave()
        return self._file, unsent

    def inherit(self, unsent: bytes, eof_in: bool, eof_out: bool) -> None:
        self._eof_in = eof_in
        if unsent:
            self.write(unsent)
            if eof_out:
                self.write_eof()
        else:
            self._eof_out = eof_out

    # ending

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._reading = False
            self._in_order = True
            if not self._backlog:
                self._finalize_later(None)

    def abort(self) -> None:
        self._in_order = False
        self._force_close(None)

    def _failed(self, where: str, exc: Exception) -> None:
        self._loop.call_exception_handler({"message": f"transport: {where}", "exception": exc})
        self._force_close(exc)

    def _force_close(self, exc: Exception | None) -> None:
        if self._finalizing:
            return
        self._in_order = False
        self._closing = True
        self._reading = False
        self._backlog.clear()
        self._backlog_size = 0
        self._finalize_later(exc)

    def _finalize_later(self, exc: Exception | None) -> None:
        self._finalizing = True
        self._loop.call_soon(self._finalize, exc)

    def _finalize(self, exc: Exception | None) -> None:
        try:
            if self._connected:
                self._connected = False
                self._protocol.connection_lost(exc)
        finally:
            if self._in_order:
                self._sock.linger_reset = False
            self._leave()
            self._file.close()

    def _leave(self) -> None:
        """The socket is under it no longer."""
        self._sock.user = None
        self._sock.notify = lambda: None
        self._net.transports.pop(self, None)


class SimNet(Net):
    """One process's sockets, tasks, clock and randomness on the simulated kernel."""

    loop: Loop

    def __init__(self, loop: Loop, kernel: Kernel, host: Host, seed: int, *, fd_limit: int = 1 << 16) -> None:
        rng = random.Random(seed)
        super().__init__(loop, rng=rng, entropy=random.Random(seed + 1).randbytes)
        self.kernel = kernel
        self.host = host
        self.fd_limit = fd_limit
        self.transports: dict[Transport, None] = {}
        self.files: dict[int, Descriptor] = {}  # the process's descriptors
        self.dials: dict[SimDial, None] = {}  # on their way
        self.delay = 0.0  # seconds that a message to a process that is started takes longer
        self._tasks = OrderedSet()  # type: ignore[assignment]
        self._watched: dict[int, Transport] = {}
        self._watches = 0

    # errors

    def watch(self, transport: Any, on_error: Callable[[], None]) -> int:
        self._watches += 1
        self._watched[self._watches] = transport
        transport._on_error = on_error
        transport._notify()
        return self._watches

    def unwatch(self, number: int) -> None:
        transport = self._watched.pop(number, None)
        if transport is not None:
            transport._on_error = None

    # accepting

    async def listen(
        self,
        address: Address,
        on_socket: Callable[[Any, Any], object],
        *,
        backlog: int = 1024,
        reserve: int = 0,
        on_shed: Callable[[str], None] = lambda reason: None,
        behind: Callable[[], None] = lambda: None,
        tune: Callable[[Any], None] | None = None,
        bare: bool = False,
        use: str = "",
    ) -> Acceptor:
        where = f"tcp:{address}"
        socks: list[Any] = self._inherited.take(use, where) or [self._bound(address)]
        for sock in socks:
            if tune is not None:
                tune(sock)
        return self._accepting(key_of(use, where), Acceptor(self, socks, on_socket, reserve, on_shed, bare, behind))

    def _bound(self, address: Address) -> Descriptor:
        try:
            return Descriptor(self.kernel, self.files, ListeningSocket(self.host, address.port))
        except OSError as exc:
            raise OSError(exc.errno or errno.EADDRINUSE, f"cannot listen on {address}: {exc.strerror}") from None

    def adopt(self, sock: Any, protocol: Any, ssl: Any = None) -> None:
        assert ssl is None, "TLS is not simulated"
        Transport(self, sock, protocol)

    def adopt_end(self, sock: Any, protocol: Any, notsent_lowat: int = -1) -> None:
        if notsent_lowat >= 0:
            tune_young(sock, notsent_lowat)
        Transport(self, sock, protocol, at_once=True)

    # descriptors from and to other processes

    def pair(self) -> tuple[Any, Any]:  # type: ignore[override]
        ours, theirs = Pair(self.kernel, self.delay).ends
        return Descriptor(self.kernel, self.files, ours), Descriptor(self.kernel, self.files, theirs)

    def inherited(self, descriptor: int) -> Any:  # type: ignore[override]
        return self.kernel.descriptors[descriptor]

    # dialling

    async def connect(
        self,
        host: str,
        port: int,
        protocol: Any,
        *,
        timeout: float,
        share: str = "target",
        ssl: Any = None,
        admit: Any = None,
    ) -> Any:
        assert ssl is None, "TLS is not simulated"
        async with asyncio.timeout(timeout):
            return await self._connect(host, port, protocol)

    async def _connect(self, name: str, port: Any, protocol: Any) -> Transport:
        sock: Any = await waited_for(self.loop, lambda done: SimDial(self, name, port, done))
        transport = Transport(self, sock, protocol)
        made = self.loop.create_future()
        self.call_soon(lambda: made.done() or made.set_result(None))
        try:
            await made
        except BaseException:
            transport.close()
            raise
        return transport

    def start_dial(  # type: ignore[override]
        self,
        host: str,
        port: int,
        done: Callable[[Any], None],
        *,
        timeout: float,
        share: str = "target",
        admit: Any = None,
        bare: bool = False,
    ) -> SimDial:
        return SimDial(self, host, port, done, timeout)


class SimDial:
    """A connection on its way; what `ncfast.net.dial.Dial` offers."""

    def __init__(
        self, net: SimNet, name: str, port: Any, done: Callable[[Any], None], timeout: float | None = None
    ) -> None:
        self._net = net
        self._done: Callable[[Any], None] | None = done
        self._unclaimed: Descriptor | None = None  # connected, and the process has not had its turn yet
        net.dials[self] = None
        self._dial = net.kernel.connect(net.host, name, port, self._connected)
        self._timer = None if timeout is None else net.call_later(timeout, self._end, TimeoutError())

    def _connected(self, outcome: Socket | OSError) -> None:
        if isinstance(outcome, Socket):
            outcome = self._unclaimed = Descriptor(self._net.kernel, self._net.files, outcome)  # type: ignore[assignment]
        self._net.call_soon(self._end, outcome)

    def _end(self, outcome: Any) -> None:
        done = self._done
        if done is None:
            return
        if outcome is self._unclaimed:
            self._unclaimed = None
        self.cancel()
        done(outcome)

    def cancel(self) -> None:
        self._done = None
        self._net.dials.pop(self, None)
        self._dial.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._unclaimed is not None:
            self._unclaimed.close()
            self._unclaimed = None
