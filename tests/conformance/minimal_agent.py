"""An agent with nothing in it but the protocol: dials, serves one connector, resumes; no standby. With faults, each of
which breaks one rule of docs/protocol.md."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from conformance.minimal_end import WINDOW, End, abort
from ncfast._frames import FrameError, FrameType, decode, encode
from ncfast.conformance.stage import Launched, Places
from ncfast.core.errors import Reason
from ncfast.core.opening import Opening

F = FrameType

# fault: the rule that it breaks, and the scenario that shows it
FAULTS = {
    "offers extensions": ("1.2", "hello and ping"),
    "never waits as it is told": ("1.6", "a hub that asks to wait"),
    "takes each message for a frame": ("1.8", "frames cut anywhere"),
    "ends the tunnel at an unknown frame that may be ignored": ("3", "frames that may be ignored"),
    "does not look at lengths": ("3", "a frame that is too long"),
    "claims above nothing": ("4.HELLO", "claims grow"),
    "sends before M_OPEN_ACK": ("5.M_OPEN_ACK", "early bytes"),
    "does not show a fresh token": ("5.AUTH", "a fresh token"),
    "delivers duplicates": ("6.4", "duplicates"),
    "does not ask for what is missing": ("6.5", "a gap"),
    "takes any acknowledgement": ("6.6", "an acknowledgement of what was never sent"),
    "acknowledges before the target is connected": ("6.8", "early bytes"),
    "acknowledges nothing": ("6.10", "bytes both ways"),
    "sends without credit": ("6.12", "credit"),
    "closes both directions at one end": ("7.1", "the service ends first"),
    "closes in order when it is reset": ("7.2", "the client resets"),
    "drops what came before a reset": ("7.4", "the service resets behind bytes"),
    "is silent about unknown flows": ("7.5", "flows that the agent does not have"),
    "takes any epoch": ("8.1", "an epoch that is not above the last"),
    "sends no epoch": ("8.2", "hello and ping"),
    "acts upon old epochs": ("8.3", "an epoch that is over"),
    "is another process after a cut": ("8.5", "a cut under bytes"),
    "sends before M_RESUME is answered": ("8.8", "a cut before M_RESUME is answered"),
    "goes on where it was": ("8.11", "a cut under bytes"),
    "sends while it is detached": ("8.18", "M_DETACH, and the hub asks"),
    "does not claim above a newer owner": ("8.19", "a newer owner is known"),
    "answers no PING": ("9.1", "hello and ping"),
    "answers PING with a number of its own": ("9.1", "hello and ping"),
}


class Flow(End):
    """The agent's end."""

    LOST = Reason.TARGET_RESET
    side: MinimalAgent

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
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self._shown = ""

    async def run(self) -> None:
        pause = 0.05
        while True:
            wait = 0.0
            try:
                await self._tunnel()
            except InvalidStatus as exc:
                wait = float(exc.response.headers.get("Retry-After", "0"))
            except (OSError, InvalidHandshake, ConnectionClosed):
                pass
            for flow in self.flows.values():
                flow.attached = flow.resumed = False
            if "never waits as it is told" in self.faults:
                wait = 0
            await asyncio.sleep(max(wait, random.uniform(0, pause)))
            pause = min(2 * pause, 1.0)

    def send(self, type: F, **fields: Any) -> None:
        if type != F.HELLO and "sends no epoch" not in self.faults:
            fields.setdefault("epoch", self.epoch)
        self._out.put_nowait(encode(type, **fields))

    def forget(self, flow: Flow) -> None:
        self.flows.pop(flow.cid, None)
        self.gone.add(flow.cid)

    async def _tunnel(self) -> None:
        self._shown = Path(self.places["token_file"]).read_text()
        compression = "deflate" if "offers extensions" in self.faults else None
        async with connect(
            self.places["hub"],
            additional_headers={"Authorization": f"Bearer {self._shown}"},
            compression=compression,
            ping_interval=None,
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
            tasks = [asyncio.create_task(self._write(self.ws)), asyncio.create_task(self._show_tokens())]
            try:
                await self._read(self.ws)
            finally:
                for task in tasks:
                    task.cancel()

    async def _write(self, ws: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                await ws.send(await self._out.get())

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
            assert isinstance(message, bytes)
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
            self._open(cid, limit, payload)
            return None
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
        if said["epoch"] <= self.said and "takes any epoch" not in self.faults:
            return 1002
        self.epoch = self.last_epoch = said["epoch"]
        for flow in self.flows.values():
            flow.attached, flow.resumed = True, flow.writer is None
            flow.gap = False
            flow.rewind()
            if flow.writer is not None:
                flow.send(F.M_RESUME, payload=flow.secret)
                flow.pump()
        return None

    def _open(self, cid: bytes, limit: int, payload: bytes) -> None:
        if (flow := self.flows.get(cid)) is not None:
            if not flow.attached:
                flow.attached, flow.resumed = True, False
                flow.send(F.M_RESUME, payload=flow.secret)
            return
        opening = Opening.unpack(payload)
        if cid in self.gone:
            self.send(F.M_RST, cid=cid, code=Reason.LINK_LOST)
        elif opening.connector != self.places["connector"]:
            self.send(F.M_RST, cid=cid, code=Reason.NO_SUCH_CONNECTOR)
        else:
            self.flows[cid] = Flow(self, cid, opening.secret, limit)

    def _of_flow(self, flow: Flow, type: F, code: int, seq: int, ack: int, limit: int, payload: bytes) -> int | None:
        if type == F.M_RST:
            flow.reset(Reason.CLOSED, told=True)
            return None
        if type == F.M_OPEN_ACK:
            flow.reset(Reason.FLOW_CONTROL)
            return None
        if type == F.M_DETACH:
            flow.attached = flow.resumed = False
            flow.rewind()
            if code == Reason.STALE_EPOCH and "does not claim above a newer owner" not in self.faults:
                self.said = max(self.said, seq)
                return 1001
            return None
        if type == F.M_GAP:
            if flow.writer is None:
                flow.gap = True
            else:
                asyncio.get_running_loop().call_later(1.0, flow.ask)
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
            flow.attached = flow.resumed = True
            flow.rewind()
            flow.send(F.M_RESUME_ACK)
        elif type == F.M_RESUME_ACK:
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
                abort(flow.writer)
