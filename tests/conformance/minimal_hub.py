"""A hub with nothing in it but the protocol: one listener, tunnels, standbys, flows that are resumed; no other hubs, no
drain. With faults, each of which breaks one rule of docs/protocol.md."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jwt
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from conformance.minimal_end import WINDOW, End, abort
from ncfast._frames import FrameError, FrameType, decode, encode
from ncfast.conformance.stage import Launched, Places
from ncfast.core.errors import Reason, RemoteError
from ncfast.core.features import PACKED_OPEN
from ncfast.core.messages import Announce, Hello, HelloAck, is_name
from ncfast.core.opening import Opening

F = FrameType
FLOWS = (F.M_OPEN_ACK, F.M_DATA, F.M_ACK, F.M_FIN, F.M_RST, F.M_RESUME, F.M_RESUME_ACK)
PATIENCE = 5  # seconds: for HELLO, for M_RESUME, of silence
NOISE = 1000  # frames without effect that a tunnel may bring
BURST, RATE = 10, 5  # tunnels of an agent: so many at once, and a second

# fault: the rule that it breaks, and the scenario that shows it
FAULTS = {
    "accepts extensions": ("1.2", "an agent that offers extensions"),
    "takes a token that is shown twice": ("1.1", "tokens that are refused"),
    "takes a token in the URL": ("1.3", "tokens that are refused"),
    "takes browsers": ("1.3", "requests for something else"),
    "answers on every path": ("1.6", "requests for something else"),
    "grants every tunnel": ("1.18", "an agent that comes too often"),
    "takes each message for a frame": ("1.8", "frames cut anywhere"),
    "reads text messages": ("1.9", "messages that are none"),
    "reads messages of any length": ("1.10", "a message that is too long"),
    "looks at no signature": ("2", "tokens that are refused"),
    "takes tokens that are over": ("2", "tokens that are refused"),
    "looks at no connectors": ("5.ANNOUNCE", "connectors beyond the token"),
    "ends the tunnel at an unknown frame that may be ignored": ("3", "frames that may be ignored"),
    "does not look at lengths": ("3", "malformed frames"),
    "does not look into HELLO": ("4.HELLO", "HELLOs that are refused"),
    "grants a standby": ("4.HELLO_ACK", "a standby has no flows"),
    "packs M_OPEN for everybody": ("4.M_OPEN", "bytes both ways"),
    "names another client": ("4.M_OPEN", "bytes both ways"),
    "waits for HELLO for ever": ("5.HELLO", "no HELLO"),
    "takes another agent's HELLO": ("5.HELLO", "HELLOs that are refused"),
    "keeps the former tunnel": ("5.HELLO_ACK", "the newest tunnel wins"),
    "takes any fresh token": ("5.AUTH", "a fresh token"),
    "does not answer AUTH": ("5.AUTH", "a fresh token"),
    "opens what is not announced": ("5.ANNOUNCE", "what is announced"),
    "opens at an agent that goes": ("5.GOAWAY", "the agent goes"),
    "lets agents grant epochs": ("5.other-end", "frames that the agent must not send"),
    "delivers duplicates": ("6.4", "duplicates"),
    "does not ask for what is missing": ("6.5", "a gap"),
    "takes any acknowledgement": ("6.6", "an acknowledgement of what was never sent"),
    "acknowledges nothing": ("6.10", "bytes both ways"),
    "sends without credit": ("6.12", "credit"),
    "does not bound what is sent to it": ("6.12", "bytes beyond the limit"),
    "closes both directions at one end": ("7.1", "the agent ends first"),
    "closes in order when it is reset": ("7.2", "the agent resets"),
    "drops what came before a reset": ("7.4", "the client resets behind bytes"),
    "is silent about unknown flows": ("7.5", "flows that the hub does not have"),
    "grants the same epoch again": ("8.1", "claims grow"),
    "grants any last epoch": ("8.22", "an epoch that nobody can have granted"),
    "sends no epoch": ("8.2", "hello and ping"),
    "acts upon old epochs": ("8.3", "an epoch that is over"),
    "keeps the flows of another process": ("8.6", "another process after a cut"),
    "does not open again": ("8.7", "a cut while the agent dials"),
    "opens again with another secret": ("8.7", "a cut while the agent dials"),
    "takes any secret": ("8.9", "a wrong secret"),
    "ends a flow for a wrong secret": ("8.9", "a wrong secret"),
    "does not look at scope again": ("8.9", "a flow that the token no longer covers"),
    "goes on where it was": ("8.10", "a cut under bytes"),
    "sends before it is asked": ("8.10", "the client says more during a cut"),
    "waits for M_RESUME for ever": ("8.13", "a flow that is not resumed"),
    "loses a slow client's tail": ("8.13", "a slow client's tail"),
    "answers each M_RESUME": ("8.28", "M_RESUME again and again"),
    "opens on a standby": ("8.16", "a standby has no flows"),
    "answers no PING": ("9.1", "hello and ping"),
    "answers PING with a number of its own": ("9.1", "hello and ping"),
    "says the same PING again": ("9.1", "an agent that says nothing"),
    "waits for a silent agent for ever": ("9.2", "an agent that says nothing"),
    "bears any noise": ("13", "acknowledgements that say nothing"),
}


class Flow(End):
    """The hub's end."""

    LOST = Reason.CLIENT_RESET
    side: MinimalHub

    def __init__(self, hub: MinimalHub, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(hub, os.urandom(16), os.urandom(16), 0)
        self.reader, self.writer = reader, writer
        self.tunnel: Tunnel | None = None
        self.agent = self.instance = ""
        self.opened = self.attached = False
        self.asked_at = 0.0

    async def serve(self) -> None:
        await self.read(self.reader)

    @property
    def limit(self) -> int:
        return 1 << 40 if "does not bound what is sent to it" in self.side.faults else super().limit

    def tell(self, type: F, **fields: Any) -> None:
        if self.tunnel is not None:
            self.tunnel.send(type, cid=self.cid, **fields)

    def open_on(self, tunnel: Tunnel) -> None:
        """M_OPEN, and what the client has said already."""
        faults = self.side.faults
        if self.agent and "opens again with another secret" in faults:
            self.secret = os.urandom(16)
        self.go(tunnel)
        self.agent, self.instance = tunnel.agent, tunnel.instance
        self.credit = max(self.credit, tunnel.window)
        assert self.writer is not None
        host, port = self.writer.get_extra_info("peername")
        ends = (host, port + ("names another client" in faults), *self.writer.get_extra_info("sockname"))
        said = Opening("service", "clients", self.secret, "minimal", ends)
        packed = tunnel.packed or "packs M_OPEN for everybody" in faults
        self.tell(F.M_OPEN, limit=WINDOW, payload=said.pack() if packed else said.json())
        self.rewind()
        self.pump()

    def go(self, tunnel: Tunnel) -> None:
        """On this tunnel from now on."""
        self.tunnel, self.attached, self.resumed = tunnel, True, True

    def wait(self) -> None:
        """Without a tunnel."""
        self.tunnel, self.attached = None, False

    def reset(self, reason: Reason, *, told: bool = False) -> None:
        if told and self.peer_ended and self.writer is not None:
            self.side.forget(self)
            self.writer.close()
        else:
            super().reset(reason, told=told)

    def unasked(self) -> None:
        """The agent has not asked for it in time: it does not have it any more."""
        if self.peer_ended and "loses a slow client's tail" not in self.side.faults:
            self.reset(Reason.LINK_LOST, told=True)
        else:
            self.reset(Reason.LINK_LOST)


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
        claims = self.hub.claims(token, any_token="takes any fresh token" in self.faults)
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
        claims = self.claims(shown[0].removeprefix("Bearer ")) if len(shown) == 1 else None
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

    def claims(self, token: str, *, any_token: bool = False) -> dict[str, Any] | None:
        """What a token says, if it counts."""
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
        right = is_name(said["sub"]) and isinstance(scope, list) and "cnf" not in said and life <= 86400
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
