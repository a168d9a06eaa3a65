"""An agent with nothing in it but the protocol: dials, serves one connector, resumes; no standby. With faults, each of
which breaks one rule of docs/protocol.md."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from conformance.minimal_end import PIECE, WINDOW, End
from conformance.minimal_way import way
from ncfast._frames import FrameError, FrameType, decode, encode
from ncfast.conformance.stage import Launched, Places
from ncfast.core.errors import Reason, RemoteError, close_code
from ncfast.core.opening import Opening

F = FrameType
EPOCH_2026, TEN_YEARS = 1_767_225_600_000_000, 315_360_000_000_000  # microseconds
GRACE, PING_EVERY, PING_TIMEOUT, STOOD, CONFLICT = 30.0, 2.0, 5.0, 10.0, 30.0  # seconds

Following = connect  # as the library has it


class Dial(Following):
    """What answers with a redirect is no hub."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Flow(End):
    """The agent's end."""

    LOST = Reason.TARGET_RESET
    side: MinimalAgent
    giving_up: asyncio.TimerHandle | None = None

    async def serve(self) -> None:
        host, _, port = self.side.places["target"].rpartition(":")
        if "sends before M_OPEN_ACK" in self.side.faults:
            self.send(F.M_FIN)
        try:
            reader, self.writer = await asyncio.open_connection(host, int(port))
        except OSError:
            self.reset(Reason.TARGET_REFUSED)
            return
        if self.attached:
            self.send(F.M_OPEN_ACK)
        self.writer.write(self.early)
        if self.peer_ended:
            self.writer.write_eof()
        if self.gap:
            self.ask()
        await self.read(reader)

    def tell(self, type: F, **fields: Any) -> None:
        self.side.send(type, cid=self.cid, **fields)

    def leave(self) -> None:
        """It waits, for the grace."""
        self.attached = self.resumed = False
        if self.giving_up is None:
            loop = asyncio.get_running_loop()
            self.giving_up = loop.call_later(self.side.grace, lambda: self.reset(Reason.LINK_LOST, told=True))

    def come(self, *, resumed: bool) -> None:
        self.attached, self.resumed = True, resumed
        self.wait_no_more()

    def wait_no_more(self) -> None:
        if self.giving_up is not None:
            self.giving_up.cancel()
            self.giving_up = None


class MinimalAgent:
    """`run()` until it is cancelled."""

    def __init__(self, places: Places, faults: Collection[str] = ()) -> None:
        self.places, self.faults = places, faults
        self.instance = os.urandom(16).hex()
        self.last_epoch, self.said = 0, -1
        self.epoch = 0
        self.flows: dict[bytes, Flow] = {}
        self.gone: set[bytes] = set()
        self.ws: ClientConnection | None = None
        self.grace = GRACE
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self._shown = ""
        self._ping_every = PING_EVERY
        self._heard_at = 0.0
        self._granted_at: float | None = None
        self._session = ("", 0)  # and epoch, of the last HELLO_ACK

    async def run(self) -> None:
        pause = 0.05
        while True:
            wait = 0.0
            self._granted_at = None
            try:
                await self._tunnel()
            except InvalidStatus as exc:
                refused = exc.response.status_code >= 400 or "waits as a redirect says" in self.faults
                wait = self._told(exc.response.headers.get("Retry-After", "0")) if refused else 0.0
            except ConnectionClosed as exc:
                superseded = exc.rcvd is not None and exc.rcvd.code == 4003
                wait = CONFLICT if superseded and "comes back at once when it is superseded" not in self.faults else 0
                if exc.rcvd is not None and exc.rcvd.code == 1002 and not self.epoch:
                    self.last_epoch, self.said = 0, -1  # nobody believes what was granted
            except (OSError, InvalidHandshake):
                pass
            for flow in list(self.flows.values()):
                flow.leave()
            stood = self._granted_at is not None and asyncio.get_running_loop().time() - self._granted_at >= STOOD
            if stood or (self._granted_at is not None and "begins anew with each HELLO_ACK" in self.faults):
                pause = 0.05
            await asyncio.sleep(max(wait, random.uniform(0, pause)))
            pause = min(2 * pause, 30.0)

    def _told(self, after: str) -> float:
        if "never waits as it is told" in self.faults:
            return 0.0
        if "believes a date" in self.faults and not after.isdecimal():
            return parsedate_to_datetime(after).timestamp() - time.time()
        return float(after) if after.isdecimal() else 0.0

    def send(self, type: F, **fields: Any) -> None:
        if type != F.HELLO and "sends no epoch" not in self.faults:
            fields.setdefault("epoch", self.epoch)
        self._out.put_nowait(encode(type, **fields))

    def forget(self, flow: Flow) -> None:
        self.flows.pop(flow.cid, None)
        flow.wait_no_more()
        self.gone.add(flow.cid)

    async def _tunnel(self) -> None:
        self._shown = Path(self.places["token_file"]).read_text()
        compression = "deflate" if "offers extensions" in self.faults else None
        async with (Following if "follows redirects" in self.faults else Dial)(
            self.places["hub"],
            additional_headers={"Authorization": f"Bearer {self._shown}"},
            compression=compression,
            ping_interval=None,
            **await way(self.places, self._shown, self.faults),
        ) as self.ws:
            if "is another process after a cut" in self.faults:
                self.instance = os.urandom(16).hex()
            self.said = max(self.last_epoch, self.said + 1)
            hello = {
                "version": 1,
                "agent_id": self.places["agent_id"],
                "instance": self.instance,
                "connectors": [self.places["connector"]],
                "last_epoch": 0 if "claims above nothing" in self.faults else self.said,
                "window": WINDOW,
            }
            self.epoch, self._out = 0, asyncio.Queue()
            self.send(F.HELLO, payload=json.dumps(hello).encode())
            tasks = [
                asyncio.create_task(one) for one in (self._write(self.ws), self._show_tokens(), self._ping(self.ws))
            ]
            try:
                await self._read(self.ws)
            finally:
                for task in tasks:
                    task.cancel()

    async def _write(self, ws: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = await self._out.get()
                if "sends long messages" in self.faults and len(message) > PIECE:
                    await asyncio.sleep(0.5)
                    while not self._out.empty():
                        message += self._out.get_nowait()
                await ws.send(message)

    async def _ping(self, ws: ClientConnection) -> None:
        clock = asyncio.get_running_loop().time
        self._heard_at = clock()
        for number in itertools.count(1):
            await asyncio.sleep(PING_EVERY if "pings when it likes" in self.faults else self._ping_every)
            if clock() - self._heard_at >= PING_TIMEOUT and "does not hear a hub's silence" not in self.faults:
                ws.transport.abort()
                return
            self.send(F.PING, seq=number)

    async def _show_tokens(self) -> None:
        while "does not show a fresh token" not in self.faults:
            await asyncio.sleep(0.2)
            token = Path(self.places["token_file"]).read_text()
            if token != self._shown and self.epoch:
                self._shown = token
                self.send(F.AUTH, payload=token.encode())

    async def _read(self, ws: ClientConnection) -> None:
        stream = b""
        async for message in ws:
            if isinstance(message, str):
                await ws.close(1002)
                return
            self._heard_at = asyncio.get_running_loop().time()
            stream = message if "takes each message for a frame" in self.faults else stream + message
            while True:
                try:
                    found = decode(stream)
                except FrameError:
                    if "does not look at lengths" in self.faults:
                        stream = b""
                        break
                    await ws.close(1002)
                    return
                if found is None:
                    break
                stream = stream[found[-1] :]
                if code := self._frame(*found[:-1]):
                    await ws.close(code)
                    return

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
        if type == F.HELLO_ACK:
            return self._granted(json.loads(payload))
        if type == F.PING:
            if "answers no PING" not in faults:
                self.send(F.PONG, seq=seq + ("answers PING with a number of its own" in faults))
            return None
        if type in (F.HELLO, F.ANNOUNCE):
            return 1002
        if type in (F.PONG, F.GOAWAY, F.AUTH, F.MOVE):
            return None
        if epoch != self.epoch and "acts upon old epochs" not in faults:
            if type in (F.M_OPEN, F.M_RESUME):
                self.send(F.M_RST, cid=cid, epoch=epoch, code=Reason.STALE_EPOCH)
            return None
        if type == F.M_OPEN:
            if not self.epoch and "serves before it is owned" not in faults:
                return 1002
            return self._open(cid, limit, payload)
        flow = self.flows.get(cid)
        if flow is None:
            told = type in (F.M_RESUME, F.M_OPEN_ACK) or (type in (F.M_DATA, F.M_FIN) and cid not in self.gone)
            if told and "is silent about unknown flows" not in faults:
                self.send(F.M_RST, cid=cid, code=Reason.UNKNOWN_FLOW)
            return None
        return self._of_flow(flow, F(type), code, seq, ack, limit, payload)

    def _granted(self, said: dict[str, Any]) -> int | None:
        if said["version"] != 1:
            return 4007
        if self.epoch and "takes a HELLO_ACK at any time" not in self.faults:
            return None if self._session == (said["session"], said["epoch"]) else 1002
        if said["epoch"] <= self.said and "takes any epoch" not in self.faults:
            return 1002
        self.epoch = self.last_epoch = said["epoch"]
        self._session = (said["session"], said["epoch"])
        self._granted_at = asyncio.get_running_loop().time()
        self.grace = GRACE if "takes its own grace alone" in self.faults else min(GRACE, said.get("grace", GRACE))
        self._ping_every = min(PING_EVERY, said.get("ping_timeout", PING_TIMEOUT) / 2)
        for flow in self.flows.values():
            flow.come(resumed=flow.writer is None)
            flow.gap = False
            flow.rewind()
            if flow.writer is not None:
                flow.send(F.M_RESUME, payload=flow.secret)
                flow.pump()
        return None

    def _open(self, cid: bytes, limit: int, payload: bytes) -> int | None:
        if (flow := self.flows.get(cid)) is not None:
            if not flow.attached:
                flow.come(resumed=False)
                flow.send(F.M_RESUME, payload=flow.secret)
            return None
        try:
            opening = Opening.unpack(payload)
        except RemoteError:
            return 1002
        if cid in self.gone:
            self.send(F.M_RST, cid=cid, code=Reason.LINK_LOST)
        elif opening.connector != self.places["connector"]:
            self.send(F.M_RST, cid=cid, code=Reason.NO_SUCH_CONNECTOR)
        else:
            self.flows[cid] = Flow(self, cid, opening.secret, limit)
        return None

    def _of_flow(self, flow: Flow, type: F, code: int, seq: int, ack: int, limit: int, payload: bytes) -> int | None:
        if type == F.M_RST:
            known = code in Reason.__members__.values()
            if known or "ignores a reset whose reason it does not know" not in self.faults:
                flow.reset(Reason.CLOSED, told=True)
            return None
        if type == F.M_OPEN_ACK:
            flow.reset(Reason.FLOW_CONTROL)
            return None
        if type == F.M_DETACH:
            flow.leave()
            flow.rewind()
            beyond = seq > max(self.epoch, EPOCH_2026) + TEN_YEARS
            if code == Reason.STALE_EPOCH and not beyond and "does not claim above a newer owner" not in self.faults:
                self.said = max(self.said, seq)
                return 1001
            return None
        if type == F.M_GAP:
            if flow.writer is None:
                flow.gap = True
            else:
                asyncio.get_running_loop().call_later(1.0, flow.ask)
            return None
        if type == F.M_RESUME and payload != flow.secret and "takes any secret" not in self.faults:
            self.send(F.M_RST, cid=flow.cid, code=Reason.UNKNOWN_FLOW)
            return None
        if not flow.acknowledged(ack, limit):
            return None
        if flow.ended and ack == flow.una + 1 and not flow.out:
            flow.fin_acked = True
        if type == F.M_DATA:
            flow.data(seq, payload)
        elif type == F.M_FIN:
            flow.fin(seq)
        elif type == F.M_RESUME:
            flow.come(resumed=True)
            flow.rewind()
            flow.send(F.M_RESUME_ACK)
        elif type == F.M_RESUME_ACK:
            if flow.resumed and "takes a late answer for a flood" in self.faults:
                return close_code(Reason.FLOOD)
            flow.resumed, flow.gap = True, False
        if flow.over():
            self.forget(flow)
        else:
            flow.pump()
        return None


@asynccontextmanager
async def minimal(places: Places, faults: Collection[str] = ()) -> AsyncIterator[Launched]:
    """The agent in this very process."""
    agent = MinimalAgent(places, faults)
    task = asyncio.create_task(agent.run())
    try:
        yield Launched()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        for flow in agent.flows.values():
            flow.task.cancel()
            if flow.writer is not None:
                flow.writer.transport.abort()
