"""What a scenario is played on: two hubs' doors, a service, a token, flows; and what all its steps have in common."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ncfast._frames import FrameType
from ncfast.auth import mint
from ncfast.conformance.broken import Broken
from ncfast.conformance.referee import ACKNOWLEDGES, Flow, Referee
from ncfast.conformance.scenario import Scenario, ScenarioError
from ncfast.conformance.service import Service, Target
from ncfast.conformance.tunnel import Frame, Tunnel
from ncfast.core.errors import Reason, RemoteError
from ncfast.core.messages import VERSION, Hello, HelloAck

AGENT, CONNECTOR = "agent-1", "service"
HUBS = ("a", "b")
SAID = ("seq", "ack", "limit", "epoch")  # of a step: what its frame says instead of what is right
F = FrameType


class Stage:
    """The hubs, the service and the token of one scenario, and the step that it is at."""

    def __init__(self, scenario: Scenario, directory: Path, patience: float) -> None:
        self.scenario = scenario
        self.patience = patience
        self.service = Service()
        self.token_file = directory / "token"
        self.urls: dict[str, str] = {}
        self._key = secrets.token_bytes(32)
        self._token = ""
        self._servers: list[asyncio.Server] = []
        self._epoch = 0  # the highest granted, or told of
        self._claimed = -1  # the highest `last_epoch` that a HELLO which claims has said
        self._instance = ""
        self._flows: dict[bytes, Flow] = {}
        self._named: dict[str, Flow] = {}
        self._referee = Referee(self._flows)
        self._tunnels: dict[str, Tunnel] = {}
        self._tunnel: Tunnel | None = None
        self._dialled: asyncio.Queue[Tunnel | Broken] = asyncio.Queue()
        self._refusal: tuple[int, dict[str, str]] | None = None  # the answer to the next handshake
        self._window, self._packed_open = 0, False  # of the last HELLO
        self._step: dict[str, Any] = {}

    async def start(self) -> None:
        """Listens everywhere, and writes the first token."""
        self._renew()
        for hub in HUBS:
            server = await asyncio.start_server(self._accepting(hub), "127.0.0.1", 0)
            self._servers.append(server)
            self.urls[hub] = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/tunnel"

    def close(self) -> None:
        """Ends everything."""
        for server in self._servers:
            server.close()
        for tunnel in self._tunnels.values():
            tunnel.cut()
        self.service.close()

    # the hub's doors

    def _accepting(self, hub: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
        async def accepting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tunnel = Tunnel(hub, reader, writer, self._referee.judge)
            try:
                request = await tunnel.handshake(self._token)
                if self._refusal is not None:
                    tunnel.refuse(*self._refusal)
                    self._dialled.put_nowait(tunnel)
                    return
                tunnel.accept(request)
            except Broken as exc:
                self._dialled.put_nowait(exc)
                writer.close()
                return
            except ConnectionError:
                return
            self._dialled.put_nowait(tunnel)
            await tunnel.run()

        return accepting

    def _renew(self) -> None:
        self._token = mint(self._key, AGENT, None)
        fresh = self.token_file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(self._token)
        os.replace(fresh, self.token_file)

    # what steps have in common

    @property
    def _rule(self) -> str:
        return self._step.get("rule", "15")

    def _look(self) -> None:
        """Raises what a tunnel has found."""
        for tunnel in self._tunnels.values():
            if tunnel.broken is not None:
                raise tunnel.broken

    def _on(self, step: dict[str, Any]) -> Tunnel:
        """The tunnel of a step: `owner` or `standby` as it says, or the last that was spoken of."""
        if "on" in step:
            self._tunnel = self._tunnels[step["on"]]
        if self._tunnel is None:
            raise ScenarioError(f"{self.scenario.name}: no tunnel stands at {step}")
        return self._tunnel

    def _flow(self, step: dict[str, Any]) -> Flow:
        """The flow of a step: the one it names, or `f`."""
        name = step.get("flow", "f")
        if name not in self._named:
            self._named[name] = flow = Flow(name)
            self._flows[flow.cid] = flow
        return self._named[name]

    def _target(self, step: dict[str, Any]) -> Target:
        target = self._flow(step).target
        if target is None:
            raise ScenarioError(f"{self.scenario.name}: the target is not connected at {step}")
        return target

    async def _dials(self, name: str) -> Tunnel:
        """The agent's next dial, of whichever hub; the tunnel has this name from then on."""
        found = await self._dialled.get()
        if isinstance(found, Broken):
            raise found
        self._tunnels[name] = self._tunnel = found
        return found

    async def _next(self, tunnel: Tunnel, wanted: Callable[[Frame], bool], *, alive: bool = True) -> Frame:
        """The first frame that is wanted; those before it are passed over."""
        while True:
            while tunnel.frames:
                frame = tunnel.frames.pop(0)
                if wanted(frame):
                    return frame
            self._look()
            if tunnel.ended and alive:
                raise Broken(self._rule, f"the tunnel has ended (close code {tunnel.close_code})")
            tunnel.changed.clear()
            await tunnel.changed.wait()

    async def _until(self, flow: Flow, tunnel: Tunnel, condition: Callable[[], bool]) -> None:
        """Frames are judged, and passed over, until the condition holds; not beyond the flow's end."""
        while not condition():
            frame = await self._next(tunnel, lambda one: True)
            if frame.type == F.M_RST and frame.cid == flow.cid and not condition():
                raise Broken(self._rule, f"the flow has ended by M_RST {reason_name(frame.code)}")

    def _say(self, tunnel: Tunnel, type: FrameType, flow: Flow, step: dict[str, Any], **fields: Any) -> None:
        """A frame of a flow, with what the step says otherwise."""
        fields = {"epoch": tunnel.epoch, "cid": flow.cid, **fields}
        if type in ACKNOWLEDGES:
            fields = {"ack": flow.ack, "limit": flow.limit, **fields}
        for name in SAID:
            if name in step:
                fields[name] = step[name]
        if "older" in step:
            fields["epoch"] = tunnel.epoch - step["older"]
        flow.limit = max(flow.limit, fields.get("limit", 0))
        tunnel.frame(type, **fields)

    async def _hello(self, tunnel: Tunnel) -> Hello:
        frame = await self._next(tunnel, lambda one: one.type != F.PING and one.type != F.PONG)
        if frame.type != F.HELLO:
            raise Broken("5.HELLO", f"{frame.name} comes, and not HELLO")
        try:
            hello = Hello.unpack(frame.payload)
        except RemoteError as exc:
            raise Broken("4.HELLO", exc.detail) from None
        if hello.version != VERSION:
            raise Broken("4.HELLO", f"version is {hello.version}")
        if hello.agent_id != AGENT:
            raise Broken("4.HELLO", "agent_id is not the token's sub")
        if CONNECTOR not in hello.connectors:
            raise Broken("4.HELLO", f"the connector {CONNECTOR} is not served")
        if self._instance and hello.instance != self._instance and "resume" in self.scenario.needs:
            raise Broken("8.5", "instance is another than before")
        self._instance = hello.instance
        self._window, self._packed_open = hello.window, hello.packed_open
        return hello

    def _acknowledge(self, tunnel: Tunnel, epoch: int, step: dict[str, Any]) -> None:
        body = HelloAck(
            version=step.get("version", VERSION),
            replica_id=step.get("replica", f"hub-{tunnel.hub}"),
            session=secrets.token_hex(16),
            epoch=epoch,
            cluster=step.get("cluster", False),
        )
        tunnel.frame(F.HELLO_ACK, epoch=epoch, payload=body.pack())


def reason_name(code: int) -> str:
    """As section 12 names it; unknown ones by their number."""
    return Reason(code).label if code in Reason.__members__.values() else str(code)
