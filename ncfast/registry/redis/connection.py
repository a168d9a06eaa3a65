"""Redis behind the seam: redis-py's asyncio connections, on sockets of the seam, with hiredis as parser.

Of redis-py only the connection is used: no client and no pool, whose retries, slots and waiting we do not want. Every
wait is bounded by whoever calls, and what was interrupted is thrown away.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
from redis import exceptions as errors
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ncfast.config.ha import Ha
from ncfast.net.seam import Net
from ncfast.registry.redis.access import Access
from ncfast.registry.redis.backend import Backend, BackendError, Call
from ncfast.registry.redis.scripts import SHA, KeySpace, Script
from ncfast.registry.redis.sentinel import Place, Sentinels

REDIS_PORT, SENTINEL_PORT = 6379, 26379
WATCH = 0.5  # seconds between two questions to the Sentinels
TURN = 32  # notices handled in one turn of the loop
QUIET = 2.0  # seconds without a notice, after which the subscription is pinged

# The server does not want us here, or not now: another place, or a moment later, may be better. The first that fits
# counts.
TROUBLES: tuple[tuple[type[Exception], str], ...] = (
    (errors.ReadOnlyError, "read_only"),
    (errors.BusyLoadingError, "loading"),
    (errors.MasterDownError, "master_down"),
    (errors.ClusterDownError, "cluster_down"),
    (errors.TryAgainError, "cluster_down"),
    (errors.AskError, "moved"),
    (errors.AuthenticationError, "unauthorized"),
    (errors.AuthorizationError, "unauthorized"),
    (errors.NoPermissionError, "unauthorized"),
    (errors.OutOfMemoryError, "out_of_memory"),
    (errors.InvalidResponse, "garbled"),
    (errors.TimeoutError, "timeout"),
    (errors.ConnectionError, "lost"),
)

# What the ACL of our user lacks, in Redis's words: of a command of ours, or of one that a script of ours runs.
DENIED = re.compile(
    r"(?:no permissions to |The user executing the script can't )"
    r"(?:(?P<command_denied>run )|(?P<key_denied>access .*keys)|(?P<channel_denied>(?:access|publish) .*channel))"
)

BROKEN = (
    errors.RedisError,
    OSError,
    RuntimeError,
)  # RuntimeError: uvloop's word for a transport that has closed meanwhile


def trouble(exc: BaseException) -> BackendError | None:
    """What an exception of redis-py means for the connection; None if it concerns one reply only."""
    denied = DENIED.search(str(exc)) if isinstance(exc, errors.ResponseError) else None
    if denied is not None:
        return BackendError(str(denied.lastgroup))
    for kind, reason in TROUBLES:
        if isinstance(exc, kind):
            return BackendError(reason)
    return BackendError("lost") if isinstance(exc, (OSError, RuntimeError)) else None


class Location:
    """Where Redis is and how to get in, from `redis_url`: redis://, rediss://, unix://, redis+sentinel://,
    rediss+sentinel://.

    User, password and database (path or ?db=) are those of Redis. Sentinels are asked without, and with them if they
    insist. Raises ValueError, whose text does not repeat the URL.
    """

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        self.sentinel = scheme.endswith("+sentinel")
        self.tls = scheme.startswith("rediss")
        self.unix = scheme == "unix"
        if scheme not in ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"):
            raise ValueError("redis_url has an unknown scheme")
        rest, _, query = rest.partition("?")
        authority, slash, path = rest.partition("/")
        user, _, hosts = authority.rpartition("@")
        name, _, password = user.partition(":")
        self.username = unquote(name) or None
        self.password = unquote(password) or None
        database = parse_qs(query).get("db", [""])[-1]
        self.service = ""
        if self.unix:
            self.places: list[Place] = [(unquote(slash + path), 0)]  # the path, and no port
        elif self.sentinel:
            self.service, _, in_path = path.strip("/").partition("/")
            self.places = [_place(host, SENTINEL_PORT) for host in hosts.split(",")]
            database = database or in_path
        else:
            self.places = [_place(hosts, REDIS_PORT)]
            database = database or path.strip("/")
        if database and not database.isdecimal():
            raise ValueError("the database in redis_url is not a number")
        self.database = int(database or 0)


def _place(host: str, port: int) -> Place:
    parts = urlsplit(f"//{host}")
    return (parts.hostname or "localhost", parts.port or port)


def _shown(place: Place) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if port else host


class _Tls:
    """What redis-py asks for its TLS context: ours."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def get(self) -> ssl.SSLContext:
        assert self._access.context is not None  # the URL asks for TLS
        return self._access.context


class _Dialled(AbstractConnection):
    """On a socket that the seam has connected, before one of redis-py's connections in the order of bases."""

    host: str
    port: int

    def __init__(self, net: Net, timeout: float, **options: Any) -> None:
        super().__init__(**options)
        self._net = net
        self._timeout = timeout
        self._socket: socket.socket | None = None

    async def _connect(self) -> None:
        async with asyncio.timeout(self._timeout):
            self._socket = await self._net.dial(self.host, self.port, "redis", self._timeout)
            try:
                await super()._connect()  # type: ignore[safe-super,no-untyped-call]  # the other base's
            except BaseException:
                self._socket.close()
                raise

    def _connection_arguments(self) -> dict[str, Any]:
        """What `open_connection` is given."""
        arguments = {**super()._connection_arguments(), "sock": self._socket}  # type: ignore[misc]  # the other base's
        del arguments["host"], arguments["port"]
        return arguments | ({"server_hostname": self.host} if "ssl" in arguments else {})


class _Plain(_Dialled, Connection):
    pass


class _Secure(_Dialled, SSLConnection):
    pass


class RedisBackend(Backend):
    """`redis_timeout_sec` bounds a look-up at a Sentinel and a subscription; calls are bounded by the caller.

    Raises ValueError for a URL, OSError for a file, that is of no use.
    """

    def __init__(self, url: str, config: Ha, net: Net, name: str = "") -> None:
        self._location = Location(url)
        self._access = Access(config, tls=self._location.tls, password=self._location.password)
        self._tls = _Tls(self._access) if self._location.tls else None
        self._timeout = timeout = config.redis_timeout_sec
        self._net = net
        self._keys = KeySpace(config.cluster)
        self._name = name  # what CLIENT LIST shows
        self._sentinels: Sentinels | None = None
        if self._location.sentinel:
            self._sentinels = Sentinels(
                self._location.places, self._location.service, timeout / 2, self._connect_sentinel, _abort
            )
        self._watcher: asyncio.Task[None] | None = None
        self._leaving = False  # another server is the master now
        self._redirect: Place | None = None  # where Redis Cluster has sent us
        self._connection: AbstractConnection | None = None
        self._new = False  # it has not said its name yet
        self._at: Place | None = None
        self.server = ",".join(map(_shown, self._location.places))
        self._listener: AbstractConnection | None = None
        self._listening_at: Place | None = None
        self.patience = 2.0 if self._location.sentinel else 1.0

    def __repr__(self) -> str:  # whoever prints it by mistake prints no password
        return f"<{type(self).__name__}>"

    # calls

    async def open(self) -> None:
        if self._sentinels is not None and self._watcher is None:
            self._watcher = self._net.spawn(self._watch(self._sentinels), "registry-master")
        self._leaving = False
        place, self._redirect = self._redirect, None
        place = place or await self._find()
        self.server = _shown(place)
        self._connection = await self._connect(place)
        self._new = True
        self._at = place
        self.connected = True
        if self._listener is not None and self._listening_at != place:
            _abort(self._listener)  # notices may come from a server that is none any more

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        connection = self._connection
        if connection is None:
            raise BackendError("lost")
        if self._leaving:
            raise BackendError("moved")
        introduction = self._introduction() if self._new else []
        self._new = False
        replies = await self._send(
            connection, [*introduction, *(self._evalsha(call) for call in calls)], len(introduction)
        )
        del replies[: len(introduction)]
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, errors.NoScriptError)]
        if missing:  # the server has restarted, or somebody has flushed its scripts
            for i, reply in zip(
                missing, await self._send(connection, [self._eval(calls[i]) for i in missing]), strict=True
            ):
                replies[i] = reply
        return [BackendError("refused") if isinstance(reply, Exception) else reply for reply in replies]

    def _introduction(self) -> list[tuple[Any, ...]]:
        """A nicety for CLIENT LIST, in the same write as what matters; an ACL may forbid it."""
        return [("CLIENT", "SETNAME", self._name)] if self._name else []

    async def _send(
        self, connection: AbstractConnection, commands: list[tuple[Any, ...]], optional: int = 0
    ) -> list[Any]:
        """The replies; of the first `optional` ones it does not matter what they are."""
        replies: list[Any] = []
        try:
            await connection.send_packed_command(_packed(commands), check_health=False)
            for number in range(len(commands)):
                try:
                    replies.append(await connection.read_response())
                except errors.ResponseError as exc:
                    if number < optional:
                        replies.append(None)
                        continue
                    self._follow(exc)
                    if (useless := trouble(exc)) is not None:
                        raise useless from None
                    replies.append(exc)
        except BROKEN as exc:
            raise trouble(exc) or BackendError("lost") from None
        return replies

    def _follow(self, exc: errors.ResponseError) -> None:
        if isinstance(exc, errors.MovedError):
            self._redirect = (exc.host or (self._at or ("", 0))[0], exc.port)

    def _evalsha(self, call: Call) -> tuple[Any, ...]:
        return ("PING",) if call.script is None else ("EVALSHA", SHA[call.script.name], *self._arguments(call))

    def _eval(self, call: Call) -> tuple[Any, ...]:
        script = call.script
        return ("PING",) if script is None else ("EVAL", self._text(script), *self._arguments(call))

    def _text(self, script: Script) -> str:
        return script.text

    def _arguments(self, call: Call) -> tuple[Any, ...]:
        keys = self._keys.keys if not call.request else (*self._keys.keys, self._keys.claim(call.request))
        return (len(keys), *keys, self._keys.channel, self._net.entropy(8).hex(), *call.arguments)

    def close(self) -> None:
        self.connected = False
        connection, self._connection = self._connection, None
        if connection is not None:
            _abort(connection)

    # notices

    async def listen(self, on_up: Callable[[], None], on_notice: Callable[[bytes], None]) -> None:
        try:
            await self._listen(on_up, on_notice)
        except BROKEN as exc:  # TimeoutError is an OSError
            raise trouble(exc) or BackendError("refused") from None
        finally:
            listener, self._listener = self._listener, None
            if listener is not None:
                _abort(listener)

    async def _listen(self, on_up: Callable[[], None], on_notice: Callable[[bytes], None]) -> None:
        async with asyncio.timeout(self._timeout * self.patience):
            place = self._at if self.connected and self._at is not None else await self._find()
            connection = self._listener = await self._connect(place)
            self._listening_at = place
            commands = [*self._introduction(), ("SUBSCRIBE", self._keys.channel)]
            await connection.send_packed_command(_packed(commands), check_health=False)
            for number in range(len(commands)):
                try:
                    await connection.read_response()
                except errors.ResponseError:
                    if number == len(commands) - 1:
                        raise
        on_up()
        pinged, heard = False, 0
        while True:
            heard += 1
            if heard % TURN == 0:  # what has been read already comes without a turn of the loop
                await asyncio.sleep(0)
            message = await connection.read_response(timeout=self._timeout if pinged else QUIET)
            if message is not None:
                pinged = False
                if message[0] == b"message":
                    on_notice(message[2])
            elif pinged:
                raise BackendError("timeout")
            else:
                pinged = True
                async with asyncio.timeout(self._timeout):
                    await connection.send_command("PING", check_health=False)

    # the way to the server

    async def _find(self) -> Place:
        """Where the server is now. Raises BackendError."""
        return await self._sentinels.master() if self._sentinels is not None else self._location.places[0]

    async def _watch(self, sentinels: Sentinels) -> None:
        """A master that has been replaced may not know it for ten seconds, and what it is told in that time is lost.
        The Sentinels know."""
        while True:
            await asyncio.sleep(WATCH)
            if self.connected and not self._leaving:
                try:
                    self._leaving = await sentinels.master() != self._at
                except BackendError:  # nobody there who knows better
                    pass

    async def _connect_sentinel(self, place: Place, credentials: bool) -> AbstractConnection:
        return await self._connect(place, sentinel=True, credentials=credentials)

    async def _connect(self, place: Place, *, sentinel: bool = False, credentials: bool = True) -> AbstractConnection:
        """A connection that is let in. Raises BackendError."""
        connection = self._make(place, sentinel, credentials)
        try:
            await connection.connect()
        except BROKEN as exc:
            _abort(connection)
            found = trouble(exc)
            raise BackendError("unreachable" if found is None or found.reason == "lost" else found.reason) from None
        except BaseException:
            _abort(connection)
            raise
        return connection

    def _make(self, place: Place, sentinel: bool, credentials: bool) -> AbstractConnection:
        location = self._location
        self._access.renew()
        options: dict[str, Any] = {
            "db": 0 if sentinel else location.database,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
            "socket_timeout": None,
            "socket_connect_timeout": self._timeout,
        }
        if credentials:
            options.update(username=location.username, password=self._access.password)
        if location.unix:
            return UnixDomainSocketConnection(path=place[0], **options)
        if self._tls is None:
            return _Plain(self._net, self._timeout, host=place[0], port=place[1], **options)
        connection = _Secure(self._net, self._timeout, host=place[0], port=place[1], **options)
        connection.ssl_context = self._tls  # type: ignore[assignment]
        return connection

    async def aclose(self) -> None:
        self.close()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        if self._sentinels is not None:
            self._sentinels.close()


def _packed(commands: list[tuple[Any, ...]]) -> bytes:
    """hiredis packs twenty times as fast as redis-py's asyncio connection."""
    return b"".join(map(hiredis.pack_command, commands))


def _abort(connection: AbstractConnection) -> None:
    """Closes without a farewell: to a server that does not read, closing in order would never end. redis-py offers no
    such way, so we reach for its writer."""
    writer = connection._writer
    if writer is not None:
        writer.transport.abort()
    connection._close()
