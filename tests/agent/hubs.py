"""Hubs of the test's own making around a real agent: real sockets, frames written from the protocol page.

All run on one loop, so a test can look at the agent between two callbacks. The hubs share an `Ownership`, as those of a
cluster share a registry; what a hub says, and whether it says anything, the test decides.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import uvloop
from core import reference
from support.raw_tunnel import BINARY, CLOSE, ws_header
from support.until import PATIENCE, until

from ncfast.agent.agent import Agent
from ncfast.config.agent import AgentConfig
from ncfast.net.seam import Net
from ncfast.observe import log

(
    HELLO,
    HELLO_ACK,
    M_OPEN,
    M_OPEN_ACK,
    M_DATA,
    M_ACK,
    M_FIN,
    M_RST,
    M_RESUME,
    M_RESUME_ACK,
    PING,
    PONG,
    GOAWAY,
    AUTH,
    ANNOUNCE,
    M_DETACH,
    M_GAP,
    MOVE,
) = range(1, 19)
DRAINING, STALE_EPOCH, UNKNOWN_FLOW = 18, 24, 12
SUPERSEDED, AGENT_GOES, PROTOCOL_ERROR = 4003, 1001, 1002  # close codes
WINDOW = 1 << 20


class Frame(NamedTuple):
    type: int
    flags: int
    code: int
    epoch: int
    cid: bytes
    seq: int
    ack: int
    limit: int
    payload: bytes

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.payload)


@dataclass
class Flow:
    """What a hub keeps of a flow, or hands to the next."""

    cid: bytes
    secret: bytes
    received: bytes = b""
    ended: bool = False

    @property
    def ack(self) -> int:
        return len(self.received) + self.ended

    @property
    def limit(self) -> int:
        return len(self.received) + WINDOW


@dataclass
class Ownership:
    """What the hubs of a cluster agree on."""

    epoch: int = 0
    claims: list[tuple[str, int]] = field(default_factory=list)  # replica_id, last_epoch

    def grant(self, replica_id: str, last_epoch: int) -> int:
        self.claims.append((replica_id, last_epoch))
        self.epoch = max(self.epoch, last_epoch) + 1
        return self.epoch


class Tunnel:
    """The hub's end of one connection that the agent has made."""

    def __init__(self, hub: Hub, writer: asyncio.StreamWriter, token: str) -> None:
        self.hub = hub
        self.token = token
        self.frames: list[Frame] = []  # all that came, but PING and PONG
        self.epoch = 0
        self.standby = False
        self.code: int | None = None  # of the agent's close frame
        self.gone = False
        self.leaving = False  # closed or cut by the hub, which the agent may not know yet
        self.taken = 0
        self.pings = 0  # that came
        self._writer = writer

    @property
    def hellos(self) -> list[dict[str, Any]]:
        return [frame.body for frame in self.frames if frame.type == HELLO]

    @property
    def owns(self) -> bool:
        return self.epoch > 0 and not self.gone and not self.leaving

    def send(
        self,
        type: int,
        *,
        flow: Flow | None = None,
        epoch: int | None = None,
        cid: bytes = bytes(16),
        seq: int = 0,
        code: int = 0,
        payload: bytes = b"",
    ) -> None:
        ack, limit = (flow.ack, flow.limit) if flow is not None else (0, 0)
        wire = reference.encode(
            type,
            epoch=self.epoch if epoch is None else epoch,
            cid=flow.cid if flow is not None else cid,
            seq=seq,
            code=code,
            ack=ack,
            limit=limit,
            payload=payload,
        )
        self.write(wire)

    def write(self, wire: bytes) -> None:
        """Frames as they are, in a message of their own."""
        if not self.gone:
            self._writer.write(ws_header(len(wire), masked=False) + wire)

    def answer(self, epoch: int) -> None:
        """HELLO_ACK."""
        self.epoch = epoch
        self.send(
            HELLO_ACK,
            epoch=0,
            payload=json.dumps(
                {
                    "version": 1,
                    "replica_id": self.hub.replica_id,
                    "session": "5" * 32,
                    "epoch": epoch,
                    "cluster": self.hub.cluster,
                    **self.hub.says,
                }
            ).encode(),
        )

    def open(self, flow: Flow, **more: Any) -> None:
        self.send(
            M_OPEN,
            flow=flow,
            payload=json.dumps(
                {
                    "connector": "echo",
                    "listener": "l",
                    "secret": flow.secret.hex(),
                    "origin": self.hub.replica_id,
                    "client": ["192.0.2.1", 1, "192.0.2.2", 2],
                    **more,
                }
            ).encode(),
        )

    async def want(self, *types: int, cid: bytes | None = None) -> Frame:
        """The next frame of one of these types, and of this flow; what came before it is passed over."""

        def found() -> Frame | None:
            while self.taken < len(self.frames):
                frame = self.frames[self.taken]
                self.taken += 1
                if frame.type in types and cid in (None, frame.cid):
                    return frame
            return None

        return await until(found, f"one of {types} at {self.hub.replica_id}")

    async def take(self, flow: Flow, size: int) -> None:
        """Receives until the flow has `size` bytes, acknowledging."""
        while len(flow.received) < size:
            frame = await self.want(M_DATA, cid=flow.cid)
            assert frame.epoch == self.epoch and frame.seq <= len(flow.received), frame
            flow.received += frame.payload[len(flow.received) - frame.seq :]
            self.send(M_ACK, flow=flow)

    def close(self, code: int) -> None:
        self.leaving = True
        if not self.gone:
            self._writer.write(ws_header(2, CLOSE, masked=False) + code.to_bytes(2))

    def cut(self) -> None:
        self.leaving = True
        self._writer.transport.abort()

    def received(self, frame: Frame) -> None:
        if frame.type == PING:
            self.pings += 1
            self.send(PONG, seq=frame.seq)
        elif frame.type != PONG:
            self.frames.append(frame)
            if frame.type == HELLO:
                self.hub.on_hello(self, frame.body)
            elif frame.type == AUTH:
                self.token = frame.payload.decode()
                self.send(AUTH)


class Hub:
    """Listens on a port of its own; `urls` more lead here if the test says so."""

    def __init__(self, world: World, replica_id: str) -> None:
        self.world = world
        self.replica_id = replica_id
        self.cluster = True
        self.says: dict[str, Any] = {}  # more in each HELLO_ACK
        self.frozen = False  # as after SIGSTOP: the kernel accepts, nobody reads or answers
        self.down = False  # as without a process: connects are reset
        self.refuses = b""  # an answer to each handshake instead of 101
        self.tunnels: list[Tunnel] = []
        self.connects = 0
        self.on_hello: Callable[[Tunnel, dict[str, Any]], None] = self.grant
        self.server: asyncio.Server

    async def start(self, listening: bool) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, start_serving=listening)

    @property
    def url(self) -> str:
        return "ws://127.0.0.1:%d/tunnel" % self.server.sockets[0].getsockname()[1]

    def grant(self, tunnel: Tunnel, hello: dict[str, Any]) -> None:
        """Answers as a hub should."""
        tunnel.standby = hello["standby"]
        tunnel.answer(0 if tunnel.standby else self.world.ownership.grant(self.replica_id, hello["last_epoch"]))

    @property
    def live(self) -> list[Tunnel]:
        return [one for one in self.tunnels if not one.gone]

    async def owner(self) -> Tunnel:
        """The tunnel that owns, when there is one and the agent knows."""

        def found() -> Tunnel | None:
            known = self.world.agent.tunnels.owner
            return next((one for one in self.live if known is not None and one.owns and one.epoch == known.epoch), None)

        return await until(found, f"{self.replica_id} owns")

    async def standby(self) -> Tunnel:
        """The tunnel that stands by, when there is one and the agent knows."""

        def found() -> Tunnel | None:
            known = self.world.agent.tunnels.standby
            return next(
                (
                    one
                    for one in self.live
                    if known is not None and known.replica_id == self.replica_id and not one.epoch
                ),
                None,
            )

        return await until(found, f"{self.replica_id} stands by")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnel = None
        self.connects += 1
        try:
            if self.down:
                return
            head = await reader.readuntil(b"\r\n\r\n")
            headers = {
                key.lower(): value
                for key, value in (line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
            }
            await self._thawed()
            if self.refuses:
                writer.write(self.refuses)
                return
            accept = base64.b64encode(
                hashlib.sha1(headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            )
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                b"Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            tunnel = Tunnel(self, writer, headers["authorization"].removeprefix("Bearer "))
            self.tunnels.append(tunnel)
            stream = b""
            while tunnel.code is None:
                opcode, payload = await self._message(reader)
                await self._thawed()
                if opcode == CLOSE:
                    tunnel.code = int.from_bytes(payload[:2])
                elif opcode == BINARY:
                    stream += payload
                    while (read := reference.decode(stream)) is not None:
                        *fields, end = read
                        stream = stream[end:]
                        tunnel.received(Frame(*fields))
        except (asyncio.IncompleteReadError, ConnectionError, BrokenPipeError):
            pass
        finally:
            if tunnel is not None:
                tunnel.gone = True
            writer.transport.abort()

    async def _thawed(self) -> None:
        while self.frozen:
            await asyncio.sleep(0.01)

    @staticmethod
    async def _message(reader: asyncio.StreamReader) -> tuple[int, bytes]:
        first, second = await reader.readexactly(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8))
        key = await reader.readexactly(4)
        payload = await reader.readexactly(size)
        pad = (key * (size // 4 + 1))[:size]
        return first & 15, (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


class Service:
    """The target: it records what comes, and says what the test has it say; `answer` at once, on each connection."""

    answer = b""

    def __init__(self) -> None:
        self.received: list[bytearray] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.ends: list[str] = []
        self.server: asyncio.Server

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    @property
    def port(self) -> int:
        return self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = bytearray()
        self.received.append(got)
        self.writers.append(writer)
        writer.write(self.answer)
        try:
            while data := await reader.read(65536):
                got += data
            self.ends.append("eof")
        except ConnectionResetError:
            self.ends.append("reset")
        finally:
            writer.close()


class World:
    """Hubs named by letters, one service, one agent. `connector`, and sections of the agent's file, come from the
    test. Hubs that are not `listening` have a port that refuses, until the test serves it."""

    def __init__(
        self,
        directory: Path,
        names: str = "ab",
        urls: str | None = None,
        *,
        connector: dict[str, Any] | None = None,
        seed: int = 7,
        listening: bool = True,
        **options: Any,
    ) -> None:
        self.ownership = Ownership()
        self.hubs = {name: Hub(self, f"hub-{name}") for name in names}
        self.service = Service()
        self.agent: Agent
        self.token_file = directory / "token"
        self.token_file.write_text("first")
        self._urls = names if urls is None else urls
        self._connector = connector or {}
        self._options = options
        self._seed = seed
        self._listening = listening
        self._flows = 0
        self._log = io.StringIO()
        self._running: asyncio.Task[None]

    def __getitem__(self, name: str) -> Hub:
        return self.hubs[name]

    async def __aenter__(self) -> Self:
        log.setup("info", "json", stream=self._log)
        await self.service.start()
        for hub in self.hubs.values():
            await hub.start(self._listening)
        tunnel = {"ping_interval_sec": 0.1, "ping_timeout_sec": PATIENCE, **self._options.pop("tunnel", {})}
        reconnect = {"min_sec": 0.01, "max_sec": 0.1, "connect_timeout_sec": PATIENCE}
        reconnect |= self._options.pop("reconnect", {})
        config = AgentConfig.model_validate(
            {
                "hubs": [self.hubs[name].url for name in self._urls],
                "agent_id": "canary",
                "token_file": str(self.token_file),
                "connectors": [{"name": "echo", "target": f"127.0.0.1:{self.service.port}", **self._connector}],
                "http_proxy": "off",
                "tunnel": tunnel,
                "reconnect": reconnect,
                **self._options,
            }
        )
        loop = asyncio.get_running_loop()
        self.agent = Agent(config, Net(loop, rng=random.Random(self._seed)))
        self._running = loop.create_task(self.agent.run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self.agent.stop()
        for hub in self.hubs.values():
            hub.frozen = False
        for flow in list(self.agent.flows.values()):
            flow.reset(DRAINING)
        await self._running
        await until(lambda: not any(hub.live for hub in self.hubs.values()), "every tunnel closed")
        await until(lambda: self.agent.net.sockets == 0, "every socket given back")
        assert self.agent.ground.context.held == 0
        for server in (self.service.server, *(hub.server for hub in self.hubs.values())):
            server.close()
        log.setup()
        assert error[0] is not None or not self.events("task_failed", "timers_failed", "library_message"), self.events()

    def flow(self) -> Flow:
        self._flows += 1
        return Flow(b"12345678" + self._flows.to_bytes(8), bytes(15) + self._flows.to_bytes())

    async def opened(self, tunnel: Tunnel) -> Flow:
        """A flow by this tunnel, whose target is connected."""
        flow, accepted = self.flow(), len(self.service.writers)
        tunnel.open(flow)
        await tunnel.want(M_OPEN_ACK, cid=flow.cid)
        await until(lambda: len(self.service.writers) > accepted, "the target's accept")  # connected it is before
        return flow

    async def beside(self) -> tuple[str, str]:
        """Of the hubs a, b and c, where a owns the agent: the one that stands by, and the one without a tunnel."""
        ready = (await until(lambda: self.agent.tunnels.standby, "a standby")).replica_id.removeprefix("hub-")
        return ready, "c" if ready == "b" else "b"

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The agent's log."""
        assert log.flush(PATIENCE)
        lines = [json.loads(line) for line in self._log.getvalue().splitlines()]
        return [line for line in lines if not names or line["event"] in names]

    def names(self, *names: str) -> list[str]:
        return [line["event"] for line in self.events(*names)]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """On the loop that the agent has in production."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario)
