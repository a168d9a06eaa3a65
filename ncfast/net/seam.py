"""The seam to the outside world: every socket, the clock, the timers and the randomness of hub and agent come from
here.

Nothing above this module calls the socket API, the clock or the RNG. Another object with the methods of `Net` can take
its place, so that a whole cluster runs on a virtual clock and a simulated network.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import ssl as ssl_module
from collections.abc import Callable, Coroutine
from typing import Any

import aiofastnet
from aiofastnet.selector_transport import SelectorSocketTransport  # type: ignore[import-not-found]  # no stubs

from ncfast.config.values import Address
from ncfast.net.acceptor import Acceptor
from ncfast.net.binding import Inherited, bind_tcp, bind_unix, key_of
from ncfast.net.dial import Dial, waited_for
from ncfast.net.errorwatch import ErrorWatch
from ncfast.net.names import Names, Share
from ncfast.net.syscalls import Accepted, reached_here
from ncfast.net.transport import Poller
from ncfast.observe import log

_log = log.get("net")

OWN_DESCRIPTORS = 32  # loop, logs, listening sockets, look-ups
HANDSHAKE_TIMEOUT = 5.0  # seconds for a TLS handshake
TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; the socket module has no name for it


class Net:
    """Sockets on the running loop: those of flows under transports of ours (docs/decisions/0017-transport.md), all
    others under aiofastnet's. Both write at once and copy only what the kernel did not take
    (docs/decisions/0001-transports.md).

    `rng` is the process's one source of randomness for jitter and choices, `entropy(n)` its source of unpredictable
    bytes. `clock()` gives monotonic seconds, by default the loop's: uvloop's are whole milliseconds, too coarse for
    round trips within a site.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        rng: random.Random | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.loop = loop
        self.rng = rng or random.Random()
        self.entropy = entropy
        self.clock = clock or loop.time
        self.call_soon = loop.call_soon
        self.call_later = loop.call_later
        self.names = Names(loop, self.clock)
        self.sockets = 0
        self.fd_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._tasks: set[asyncio.Task[Any]] = set()
        self._errors: ErrorWatch | None = None
        self._poller: Poller | None = None
        self._acceptors: list[tuple[str, Acceptor]] = []
        self._inherited = Inherited()
        self._sharing: set[str] = set()  # who else listens on our sockets

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task that is not lost, and whose exception is logged."""
        task = self.loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.error(
                "task_failed", task=task.get_name(), error=type(exc).__name__, trace=log.trace(exc.__traceback__)
            )

    async def cancel_all(self) -> None:
        """Ends every task that `spawn` started, but the caller's own."""
        tasks = [t for t in self._tasks if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def watch(self, transport: Any, on_error: Callable[[], None]) -> int:
        """Calls `on_error` once, when the transport's connection is reset or fully closed, even while it is not read
        from. Returns what `unwatch` wants when the connection is lost."""
        sock = transport.get_extra_info("socket")
        if sock is None:
            return -1
        if self._errors is None:
            self._errors = ErrorWatch(self.loop)
        return self._errors.add(sock.fileno(), on_error)

    def unwatch(self, number: int) -> None:
        if self._errors is not None:
            self._errors.remove(number)

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
        tune: Callable[[socket.socket], None] | None = None,
        bare: bool = False,
        use: str = "",
    ) -> Acceptor:
        """Listens on every address that `address` names; `on_socket(connection, peer)` gets each accepted socket, or
        of a `bare` one no more than `adopt_end` and `reset` want (`Accepted`).

        `behind` is called after each batch of connections, when those that have spoken by then were told so. `reserve`
        descriptors are left free for others. `tune` sets options that accepted sockets inherit. `use` is the
        configuration's key that asks for it. Raises OSError when an address cannot be bound, as `bind_tcp` has it.
        """
        where = f"tcp:{address}"
        if socks := self._inherited.take(use, where):
            for sock in socks:
                if tune is not None:
                    tune(sock)
                sock.listen(backlog)
        else:
            infos = await self.loop.getaddrinfo(
                address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            socks = bind_tcp(infos, address, backlog, tune)
        return self._accepting(key_of(use, where), Acceptor(self, socks, on_socket, reserve, on_shed, bare, behind))

    async def listen_unix(
        self,
        path: str,
        on_socket: Callable[[socket.socket, Any], object],
        *,
        backlog: int = 1024,
        reserve: int = 0,
        on_shed: Callable[[str], None] = lambda reason: None,
        use: str = "",
    ) -> Acceptor:
        """Listens on a Unix socket that only this user may connect to; the rest as for `listen`. Raises OSError when
        the path cannot be bound, as `bind_unix` has it."""
        where = f"unix:{path}"
        socks = self._inherited.take(use, where) or [bind_unix(path, backlog)]
        return self._accepting(key_of(use, where), Acceptor(self, socks, on_socket, reserve, on_shed))

    def _accepting(self, key: str, acceptor: Acceptor) -> Acceptor:
        acceptor.shared = bool(self._sharing)
        self._acceptors = [(name, one) for name, one in self._acceptors if not one.closed] + [(key, acceptor)]
        return acceptor

    # handing listening sockets to the process that succeeds this one

    def doors(self) -> list[tuple[str, list[socket.socket]]]:
        """Every socket that listens, those of one place together, by what they are known by there; they stay ours."""
        return [(key, one.sockets) for key, one in self._acceptors if not one.closed]

    def hold_doors(self, held: bool) -> None:
        """Whether who connects waits, in the kernel's queue, for another process that listens on the same sockets."""
        for _, acceptor in self._acceptors:
            if held:
                acceptor.hold()
            else:
                acceptor.go_on()

    def inherit(self, doors: list[tuple[str, list[socket.socket]]]) -> None:
        """`doors()` of the process before us: `listen` and `listen_unix` take these instead of binding."""
        self._inherited.add(doors)

    def share(self, other: str, shared: bool) -> None:
        """Whether another process (the predecessor, the successor: there may be both) listens on the same sockets now:
        paths of Unix sockets are left to it."""
        (self._sharing.add if shared else self._sharing.discard)(other)
        for _, acceptor in self._acceptors:
            acceptor.shared = bool(self._sharing)

    def close_unclaimed(self) -> None:
        """Inherited sockets that nobody has asked for."""
        self._inherited.close()

    def peek(self, sock: socket.socket, on_byte: Callable[[bytes], None]) -> Callable[[], object]:
        """Calls `on_byte` once, with the first byte that comes on an accepted socket, which stays unread, or with
        nothing if none will. Returns what gives up waiting."""

        def ready() -> None:
            try:
                byte = sock.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                byte = b""
            self.loop.remove_reader(sock)
            on_byte(byte)

        self.loop.add_reader(sock, ready)
        return lambda: self.loop.remove_reader(sock)

    def has_room(self, reserve: int) -> bool:
        """Whether another connection may be accepted with `reserve` descriptors left for others."""
        return self.sockets + reserve + OWN_DESCRIPTORS < self.fd_limit

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Two Unix sockets that are connected to each other, for a process and the one that it starts."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    @staticmethod
    def inherited(descriptor: int) -> socket.socket:
        """A socket that another process has left to this one. Raises OSError."""
        return socket.socket(fileno=descriptor)

    def opened(self) -> None:
        """A connection has come into being; its protocol calls `gone` when it is lost."""
        self.sockets += 1

    def gone(self) -> None:
        self.sockets -= 1

    def adopt(
        self, sock: socket.socket, protocol: Any, ssl: ssl_module.SSLContext | None = None
    ) -> asyncio.Task[None] | None:
        """Puts an accepted socket under `protocol`. The task, if there is one, may be cancelled until
        `connection_made`, which closes the socket."""
        if ssl is None:
            SelectorSocketTransport(self.loop, sock, protocol)
            return None
        return self.spawn(self._adopt(sock, protocol, ssl), "adopt")

    def adopt_end(self, sock: socket.socket | Accepted, protocol: Any, notsent_lowat: int = -1) -> None:
        """Puts a connected socket under `protocol`, which is to become a flow's `SocketEnd` if it is none.
        `connection_made` has been called when this returns. The socket is tuned by `tune_end`, or here as by
        `tune_young`, if `notsent_lowat` is given."""
        if self._poller is None:
            self._poller = Poller(self.loop)
        try:
            self._poller.adopt(sock, protocol, notsent_lowat)
        except OSError as exc:
            protocol.handshake_failed(exc)

    def poll(self) -> None:
        """Looks what flows' sockets have to tell by now: clients that were accepted a moment ago have mostly spoken,
        and what they have said leaves in one write with their opens."""
        if self._poller is not None:
            self._poller.poll()

    async def _adopt(self, sock: socket.socket, protocol: Any, ssl: ssl_module.SSLContext) -> None:
        try:
            await aiofastnet.connect_accepted_socket(
                self.loop, lambda: protocol, sock, ssl=ssl, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
            )
        except (OSError, ssl_module.SSLError, TimeoutError) as exc:
            protocol.handshake_failed(exc)

    # dialling

    async def connect(
        self,
        host: str,
        port: int,
        protocol: Any,
        *,
        timeout: float,
        share: Share = "target",
        ssl: ssl_module.SSLContext | None = None,
        admit: Callable[[str], bool] | None = None,
    ) -> Any:
        """Dials `host:port` within `timeout` seconds, look-up and TLS included. Returns the transport.

        Raises OSError (also for a failed look-up) and TimeoutError. `share` and `admit`: as for `Dial`.
        """
        async with asyncio.timeout(timeout):
            sock = await self.dial(host, port, share, timeout, admit)
            if ssl is None:
                made = self.loop.create_future()
                transport = SelectorSocketTransport(self.loop, sock, protocol, made)
                try:
                    await made
                except BaseException:
                    transport.close()
                    raise
                return transport
            try:
                transport, _ = await aiofastnet.create_connection(
                    self.loop,
                    lambda: protocol,
                    sock=sock,
                    ssl=ssl,
                    server_hostname=host,
                    ssl_handshake_timeout=timeout,
                )
            except BaseException:
                sock.close()
                raise
        return transport

    async def dial(
        self, host: str, port: int, share: Share, timeout: float, admit: Callable[[str], bool] | None = None
    ) -> socket.socket:
        """A socket that is connected to `host:port`. Raises OSError, TimeoutError too; the rest as for `start_dial`."""
        return await waited_for(
            self.loop, lambda done: self.start_dial(host, port, done, timeout=timeout, share=share, admit=admit)
        )

    def start_dial(
        self,
        host: str,
        port: int,
        done: Callable[[Any], None],
        *,
        timeout: float,
        share: Share = "target",
        admit: Callable[[str], bool] | None = None,
        bare: bool = False,
    ) -> Dial | None:
        """Dials `host:port` by callback: `done` and the rest as for `Dial`, which is returned for `cancel`; None if
        `done` has been called."""
        if bare and admit is None and (outcome := reached_here(host, port)) is not None:
            done(outcome)
            return None
        dial = Dial(self, host, port, done, timeout=timeout, share=share, admit=admit, bare=bare)
        dial.start()
        return dial

    async def connect_unix(self, path: str, protocol: Any, *, timeout: float) -> Any:
        """Dials a Unix socket within `timeout` seconds. Returns the transport. Raises OSError and TimeoutError."""
        async with asyncio.timeout(timeout):
            transport, _ = await aiofastnet.create_unix_connection(self.loop, lambda: protocol, path)
        return transport


def tune_end(sock: socket.socket, notsent_lowat: int) -> None:
    """Options of a client or target, or of the socket that listens for clients, and hands them on."""
    if sock.family != socket.AF_UNIX:
        tune_young(sock, notsent_lowat)
        keep_alive(sock)


def tune_young(sock: socket.socket, notsent_lowat: int) -> None:
    """Of `tune_end` what a TCP socket needs from its first byte on; `keep_alive` is the rest.

    Closing is a reset, until it is known that it may be in order, be it that the process ends. No more than
    `notsent_lowat` bytes, and the segment that passes them, wait in the kernel for a reader that pauses; the rest waits
    here, in the budget. What is on its way is the kernel's business: `SO_SNDBUF` would bound that, too, and with it the
    rate over a long way.
    """
    close_by_reset(sock)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, notsent_lowat)


def tune(sock: socket.socket) -> None:
    """Options of every long-lived connection: no Nagle, and keepalive. A Unix socket has and needs neither."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock)


def keep_alive(sock: socket.socket) -> None:
    """Keepalive, which ends an idle connection whose far machine is gone after two minutes.

    Over bytes that the far machine does not acknowledge the kernel gives up by itself (`tcp_retries2`, about 15
    minutes). A reader that pauses is no such machine: it answers each probe of its closed window, for as long as it
    likes. That is why clients and targets have no `TCP_USER_TIMEOUT`, which Linux counts while a window is closed
    although probes are answered.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6)


def tune_link(sock: socket.socket, *, user_timeout_sec: float, notsent_lowat: int) -> None:
    """Besides `tune`, for a link: it is always read at its far end, so bytes unacknowledged for `user_timeout_sec` end
    it; `notsent_lowat` (bytes) keeps what the kernel holds unsent short, so that scheduling stays ours."""
    if sock.family == socket.AF_UNIX:
        return
    tune(sock)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout_sec * 1000))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, notsent_lowat)


def reset(sock: socket.socket | Accepted) -> None:
    """Closes so that the peer sees a reset, not an end of stream."""
    with sock:
        close_by_reset(sock)


def close_by_reset(sock: socket.socket | Accepted) -> None:
    """From here on closing the socket, by whomever, is a reset."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    except OSError:
        pass
