"""A hub with nothing in it but the protocol: one listener, tunnels, standbys, flows that are resumed; no other hubs, no
drain. With faults, each of which breaks one rule of docs/protocol.md."""

from __future__ import annotations

import asyncio
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jwt
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from conformance.minimal_end import abort
from conformance.minimal_hub_end import Flow
from ncfast._frames import FrameError, FrameType, decode, encode
from ncfast.conformance.certificates import only_old
from ncfast.conformance.stage import Launched, Places
from ncfast.core.errors import Reason, RemoteError
from ncfast.core.features import PACKED_OPEN
from ncfast.core.messages import Announce, Hello, HelloAck, is_name

F = FrameType
FLOWS = (F.M_OPEN_ACK, F.M_DATA, F.M_ACK, F.M_FIN, F.M_RST, F.M_RESUME, F.M_RESUME_ACK)
PATIENCE = 5  # seconds: for HELLO, for M_RESUME, of silence
NOISE = 1000  # frames without effect that a tunnel may bring
BURST, RATE = 10, 5  # tunnels of an agent: so many at once, and a second


def _tls(places: Places, faults: Collection[str]) -> ssl.SSLContext | None:
    if "tls_cert_file" not in places:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=places["client_ca_file"])
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(places["tls_cert_file"], places["tls_key_file"])
    if "speaks TLS 1.1" in faults:
        only_old(context)
        context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    return context


def _thumbprint(connection: ServerConnection) -> str:
    """Of the certificate that the agent shows; empty without one."""
    secure = connection.transport.get_extra_info("ssl_object")
    shown = secure.getpeercert(binary_form=True) if secure is not None else None
    return urlsafe_b64encode(sha256(shown).digest()).rstrip(b"=").decode() if shown else ""


class Tunnel:
    """One agent's connection."""

    def __init__(self, hub: MinimalHub, ws: ServerConnection, claims: dict[str, Any]) -> None:
        self.hub, self.ws, self.claims = hub, ws, claims
        self.faults = hub.faults
        self.agent: str = claims["sub"]
        self.instance, self.window, self.packed = "", 0, False
        self.connectors: list[str] = []
        self.epoch = self.noise = self.pings = 0
        self.known = self.owns = self.leaving = False
        self.silent = 0  # turns of `_watch`
        self._out: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, type: F, **fields: Any) -> None:
        if type != F.HELLO_ACK and "sends no epoch" not in self.faults:
            fields.setdefault("epoch", self.epoch)
        self._out.put_nowait(encode(type, **fields))

    def close(self, code: int) -> None:
        self.hub.lost(self)
        self.hub.spawn(self.ws.close(code))

    def covers(self, connector: str) -> bool:
        scope = self.claims.get("connectors")
        return scope is None or connector in scope

    @property
    def serves(self) -> bool:
        """Whether flows may be opened here."""
        standby = self.known and "opens on a standby" in self.faults and not self.owns
        leaving = self.leaving and "opens at an agent that goes" not in self.faults
        announced = "service" in self.connectors or "opens what is not announced" in self.faults
        covered = self.covers("service") or "looks at no connectors" in self.faults
        tenant = "tenant" in self.claims
        return (self.owns or standby) and not leaving and announced and covered and not tenant

    async def run(self) -> None:
        tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._watch())]
        try:
            await self._read()
            await self.ws.wait_closed()
        except ConnectionClosed:
            pass
        finally:
            for task in tasks:
                task.cancel()
            self.hub.lost(self)

    async def _write(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self.ws.send(await self._out.get())

    async def _watch(self) -> None:
        """PINGs, and patience with who says nothing; counted in turns of this loop, so that standing still is none."""
        turns = 0
        while True:
            await asyncio.sleep(1)
            turns += 1
            self.silent += 1
            if self.known:
                self.pings += "says the same PING again" not in self.faults
                self.send(F.PING, seq=self.pings)
                if self.silent > PATIENCE and "waits for a silent agent for ever" not in self.faults:
                    self.close(4001)
            elif turns > PATIENCE and "waits for HELLO for ever" not in self.faults:
                self.close(4005)

    async def _read(self) -> None:
        stream = b""
        async for message in self.ws:
            self.silent = 0
            if isinstance(message, str):
                if "reads text messages" in self.faults:
                    continue
                return self.close(1002)
            stream = message if "takes each message for a frame" in self.faults else stream + message
            at = 0
            while True:
                try:
                    found = decode(stream, at)
                except FrameError:
                    if "does not look at lengths" not in self.faults:
                        return self.close(1002)
                    at = len(stream)
                    break
                if found is None:
                    break
                at = found[-1]
                if code := self._frame(*found[:-1]):
                    return self.close(code)
            stream = stream[at:]
        return None

    def _frame(
        self,
        type: int,
        flags: int,
        code: int,
        epoch: int,
        cid: bytes,
        seq: int,
        ack: int,
        limit: int,
        payload: bytes,
    ) -> int | None:
        """Does what a frame asks for. The close code if that ends the tunnel."""
        faults = self.faults
        if type not in F.__members__.values():
            return 1002 if "ends the tunnel at an unknown frame that may be ignored" in faults else None
        if type == F.PING:
            if "answers no PING" not in faults:
                self.send(F.PONG, seq=seq + ("answers PING with a number of its own" in faults))
        elif type == F.HELLO:
            return self._hello(payload)
        elif type in FLOWS:
            return self._of_flow(F(type), code, epoch, cid, seq, ack, limit, payload)
        elif type in (F.HELLO_ACK, F.M_OPEN, F.M_DETACH, F.M_GAP):
            return None if "lets agents grant epochs" in faults else 1002
        elif type != F.PONG and not self.known:
            return 1002
        elif type == F.MOVE:
            return None if self.owns else 1002
        elif type == F.GOAWAY:
            self.leaving = True
        elif type == F.ANNOUNCE:
            try:
                self.connectors = Announce.unpack(payload).connectors
            except RemoteError:
                return 1002
            self.hub.route()
        elif type == F.AUTH:
            return self._auth(payload.decode("latin-1"))
        return None

    def _auth(self, token: str) -> int | None:
        claims = self.hub.claims(token, _thumbprint(self.ws), any_token="takes any fresh token" in self.faults)
        if "does not answer AUTH" in self.faults:
            return None
        if claims is None:
            self.send(F.AUTH, code=Reason.UNAUTHORIZED)
            return None
        if (claims["sub"], claims.get("tenant")) != (self.agent, self.claims.get("tenant")):
            return 1008
        self.claims = claims
        self.send(F.AUTH)
        return None

    def _hello(self, payload: bytes) -> int | None:
        if "does not look into HELLO" in self.faults and b'"window"' not in payload:
            return None
        try:
            hello: Hello = Hello.unpack(payload)
        except RemoteError:
            return 1002
        if hello.version != 1:
            return 4007
        if hello.agent_id != self.agent and "takes another agent's HELLO" not in self.faults:
            return 1008
        if self.owns or (self.known and (hello.standby or hello.instance != self.instance)):
            return 1002
        most = (1 << 63) if "grants any last epoch" in self.faults else (2**53 - 2**32)
        if not hello.standby and hello.last_epoch > most:
            return 1002
        self.known = True
        self.instance, self.window, self.packed = hello.instance, hello.window, PACKED_OPEN in hello.known
        self.connectors = list(hello.connectors)
        if not hello.standby:
            before = self.hub.epochs.get(self.agent, 0)
            again = "grants the same epoch again" in self.faults
            self.epoch = max(1, before) if again else min(max(before, hello.last_epoch) + 1, 2**53)
            self.hub.epochs[self.agent] = self.epoch
            self.owns = True
        epoch = 9 if hello.standby and "grants a standby" in self.faults else self.epoch
        refused = [name for name in self.connectors if not self.covers(name)]
        said = HelloAck(version=1, replica_id="minimal", session="0" * 32, epoch=epoch, refused=refused)
        self.send(F.HELLO_ACK, epoch=self.epoch, payload=said.pack())
        if self.owns:
            self.hub.granted(self)
        elif "opens on a standby" in self.faults:
            for flow in self.hub.flows.values():
                flow.open_on(self)
        return None

    def _of_flow(
        self, type: F, code: int, epoch: int, cid: bytes, seq: int, ack: int, limit: int, payload: bytes
    ) -> int | None:
        faults, flow = self.faults, self.hub.flows.get(cid)
        if type == F.M_RESUME and not self.owns:
            return 1002
        if epoch != self.epoch and "acts upon old epochs" not in faults:
            if type == F.M_RESUME:
                self.send(F.M_RST, cid=cid, epoch=epoch, code=Reason.STALE_EPOCH)
            return None
        if flow is None or (flow.tunnel is not self and type != F.M_RESUME):
            told = type in (F.M_RESUME, F.M_OPEN_ACK) or (type in (F.M_DATA, F.M_FIN) and cid not in self.hub.gone)
            if flow is None and told and "is silent about unknown flows" not in faults:
                self.send(F.M_RST, cid=cid, code=Reason.UNKNOWN_FLOW)
            return self._noise()
        if type == F.M_RST:
            flow.reset(Reason.CLOSED, told=True)
        elif type == F.M_RESUME:
            return self._resume(flow, ack, limit, payload)
        else:
            before = (flow.una, flow.credit, flow.fin_acked)
            if not flow.acknowledged(ack, limit):
                return None
            flow.fin_acked |= flow.ended and ack == flow.una + 1 and not flow.out
            flow.opened |= type == F.M_OPEN_ACK
            if type == F.M_DATA:
                flow.data(seq, payload)
            elif type == F.M_FIN:
                flow.fin(seq)
            elif type == F.M_RESUME_ACK:
                flow.gap = False
            elif before == (flow.una, flow.credit, flow.fin_acked) and (noisy := self._noise()):
                return noisy
            if flow.over():
                self.hub.forget(flow)
                assert flow.writer is not None
                flow.writer.close()
            else:
                flow.pump()
        return None

    def _noise(self) -> int | None:
        self.noise += 1
        return 4006 if self.noise > NOISE and "bears any noise" not in self.faults else None

    def _resume(self, flow: Flow, ack: int, limit: int, secret: bytes) -> int | None:
        faults = self.faults
        right = flow.secret == secret or "takes any secret" in faults
        now = time.monotonic()
        if not right or (flow.agent, flow.instance) != (self.agent, self.instance):
            if flow.tunnel is self or "ends a flow for a wrong secret" in faults:
                flow.reset(Reason.RESUME_DENIED)
            if flow.tunnel is not self:
                self.send(F.M_RST, cid=flow.cid, code=Reason.RESUME_DENIED)
        elif not self.covers("service") and "does not look at scope again" not in faults:
            flow.reset(Reason.SCOPE_DENIED)
            self.send(F.M_RST, cid=flow.cid, code=Reason.SCOPE_DENIED)
        elif flow.acknowledged(ack, limit):
            flow.go(self)
            flow.opened = True
            flow.rewind()
            flow.send(F.M_RESUME_ACK)
            flow.pump()
            soon = now - flow.asked_at < 1 and "answers each M_RESUME" not in faults
            flow.asked_at = now
            return self._noise() if soon else None
        return None


class MinimalHub:
    """`start()`, and `stop()`."""

    def __init__(self, places: Places, faults: Collection[str] = ()) -> None:
        self.places, self.faults = places, faults
        self.flows: dict[bytes, Flow] = {}
        self.gone: set[bytes] = set()
        self.epochs: dict[str, int] = {}
        self.tunnels: list[Tunnel] = []
        self._key = Path(places["key_file"]).read_text()
        self._came: dict[str, tuple[float, float]] = {}  # tunnels that an agent may ask for, and when that was so
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        deflate = "deflate" if "accepts extensions" in self.faults else None
        self._edge = await serve(
            self._tunnel,
            "127.0.0.1",
            int(self.places["edge_port"]),
            process_request=self._asked,
            compression=deflate,
            ping_interval=None,
            max_size=None if "reads messages of any length" in self.faults else 1 << 20,
            close_timeout=1,
            ssl=_tls(self.places, self.faults),
        )
        self._listener = await asyncio.start_server(self._client, "127.0.0.1", int(self.places["listener_port"]))

    async def stop(self) -> None:
        self._listener.close()
        for flow in self.flows.values():
            flow.task.cancel()
            if flow.writer is not None:
                abort(flow.writer)
        self._edge.close()
        await self._edge.wait_closed()
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # the edge

    def _asked(self, connection: ServerConnection, request: Request) -> Response | None:
        path, _, query = request.path.partition("?")
        headers, faults = request.headers, self.faults
        if path != "/tunnel" and "answers on every path" not in faults:
            return connection.respond(HTTPStatus.NOT_FOUND, "")
        if query and "takes a token in the URL" not in faults:
            return connection.respond(HTTPStatus.BAD_REQUEST, "")
        if "Origin" in headers and "takes browsers" not in faults:
            return connection.respond(HTTPStatus.FORBIDDEN, "")
        shown = headers.get_all("Authorization")
        if "takes a token that is shown twice" in faults:
            shown = shown[:1]
        claims = self.claims(shown[0].removeprefix("Bearer "), _thumbprint(connection)) if len(shown) == 1 else None
        if query and "takes a token in the URL" in faults:
            claims = {"sub": "agent-1"}
        if claims is None:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "")
        if not self._may_come(claims["sub"]) and "grants every tunnel" not in faults:
            response = connection.respond(HTTPStatus.TOO_MANY_REQUESTS, "")
            response.headers["Retry-After"] = "1"
            return response
        connection.claims = claims  # type: ignore[attr-defined]
        return None

    def _may_come(self, agent: str) -> bool:
        now = time.monotonic()
        left, since = self._came.get(agent, (BURST, now))
        left = min(BURST, left + (now - since) * RATE)
        self._came[agent] = (left - (left >= 1), now)
        return left >= 1

    def claims(self, token: str, thumbprint: str, *, any_token: bool = False) -> dict[str, Any] | None:
        """What a token says, if it counts for who shows that certificate."""
        look = not any_token and "looks at no signature" not in self.faults
        over = not any_token and "takes tokens that are over" not in self.faults
        options = {"verify_signature": look, "verify_exp": over, "verify_aud": True, "require": ["sub", "exp", "iat"]}
        try:
            said: dict[str, Any] = jwt.decode(
                token, self._key, algorithms=["HS256"], audience="nowconnect", leeway=30, options=options
            )
        except jwt.InvalidTokenError:
            return None
        scope = said.get("connectors", [])
        life = said["exp"] - said["iat"]
        bound = "cnf" in said and "does not look for which certificate a token is" not in self.faults
        held = not bound or (thumbprint and said["cnf"].get("x5t#S256") == thumbprint)
        right = is_name(said["sub"]) and isinstance(scope, list) and held and life <= 86400
        return said if right else None

    async def _tunnel(self, ws: ServerConnection) -> None:
        tunnel = Tunnel(self, ws, ws.claims)  # type: ignore[attr-defined]
        self.tunnels.append(tunnel)
        await tunnel.run()

    # who owns what

    def granted(self, tunnel: Tunnel) -> None:
        """The newest wins; flows are opened again, or wait to be asked for."""
        for other in self.tunnels[:]:
            if other is not tunnel and other.agent == tunnel.agent and other.owns:
                self.lost(other)
                if "keeps the former tunnel" not in self.faults:
                    other.close(4003)
        for flow in [one for one in self.flows.values() if one.agent == tunnel.agent]:
            if flow.instance != tunnel.instance and "keeps the flows of another process" not in self.faults:
                flow.reset(Reason.AGENT_RESTARTED)
            elif not flow.opened and "does not open again" not in self.faults:
                flow.open_on(tunnel)
            elif flow.opened and "sends before it is asked" in self.faults:
                flow.go(tunnel)
                flow.rewind()
                flow.pump()
        if "waits for M_RESUME for ever" not in self.faults:
            self.spawn(self._resumed(tunnel))
        self.route()

    async def _resumed(self, tunnel: Tunnel) -> None:
        await asyncio.sleep(PATIENCE)
        for flow in list(self.flows.values()):
            if tunnel in self.tunnels and flow.agent == tunnel.agent and not flow.attached:
                flow.unasked()

    def lost(self, tunnel: Tunnel) -> None:
        """The tunnel is gone; its flows wait."""
        if tunnel in self.tunnels:
            self.tunnels.remove(tunnel)
        for flow in self.flows.values():
            if flow.tunnel is tunnel:
                flow.wait()

    # clients

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = Flow(self, reader, writer)
        self.flows[flow.cid] = flow
        self.route()

    def route(self) -> None:
        """Flows that are at no agent yet."""
        tunnel = next((one for one in reversed(self.tunnels) if one.serves), None)
        for flow in list(self.flows.values()):
            if tunnel is not None and not flow.agent:
                flow.open_on(tunnel)

    def forget(self, flow: Flow) -> None:
        self.flows.pop(flow.cid, None)
        self.gone.add(flow.cid)


@asynccontextmanager
async def minimal_hub(places: Places, faults: Collection[str] = ()) -> AsyncIterator[Launched]:
    """The hub in this very process."""
    hub = MinimalHub(places, faults)
    await hub.start()
    try:
        yield Launched()
    finally:
        await hub.stop()
