"""What an agent is put between: two hubs' doors, and the service; its token."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from ncfast._frames import FrameType
from ncfast.auth import mint
from ncfast.conformance.agents.accepted import Accepted
from ncfast.conformance.agents.referee import AgentReferee
from ncfast.conformance.agents.service import Service
from ncfast.conformance.broken import Broken
from ncfast.conformance.flow import Flow
from ncfast.conformance.player import Player
from ncfast.conformance.scenario import Scenario
from ncfast.conformance.stage import AGENT, CONNECTOR, Places
from ncfast.conformance.tunnel import Tunnel
from ncfast.core.errors import RemoteError
from ncfast.core.features import PACKED_OPEN
from ncfast.core.messages import VERSION, Hello, HelloAck

HUBS = ("a", "b")
F = FrameType


class AgentStage(Player):
    """The doors, and what of HELLO and HELLO_ACK steps have in common."""

    OPTIONAL = ("resume", "standby", "moves", "moves_again", "drain")
    SCENARIOS = "scenarios.json"
    BROKEN = "15"
    _referee: AgentReferee

    def __init__(self, scenario: Scenario, directory: Path, patience: float) -> None:
        super().__init__(scenario, directory, patience)
        self.service = Service()
        self._token_file = directory / "token"
        self._token = ""
        self._urls: dict[str, str] = {}
        self._servers: list[asyncio.Server] = []
        self._claimed = -1  # the highest `last_epoch` that a HELLO which claims has said
        self._instance = ""
        self._dialled: asyncio.Queue[Accepted | Broken] = asyncio.Queue()
        self._refusal: tuple[int, dict[str, str]] | None = None  # the answer to the next handshake
        self._elsewhere = ""  # where a redirect has led
        self._window, self._packed_open = 0, False  # of the last HELLO

    @staticmethod
    def _referees(flows: dict[bytes, Flow]) -> AgentReferee:
        return AgentReferee(flows)

    @property
    def places(self) -> Places:
        host, port = self.service.address
        return {
            "hub": self._urls["a"],
            "other_hub": self._urls["b"],
            "agent_id": AGENT,
            "connector": CONNECTOR,
            "token_file": str(self._token_file),
            "target": f"{host}:{port}",
            "target_host": host,
            "target_port": str(port),
        }

    async def start(self) -> None:
        """Listens everywhere, and writes the first token."""
        self._renew()
        for hub in HUBS:
            server = await asyncio.start_server(self._accepting(hub), "127.0.0.1", 0)
            self._servers.append(server)
            self._urls[hub] = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/tunnel"

    def close(self) -> None:
        for server in self._servers:
            server.close()
        super().close()
        self.service.close()

    # the hub's doors

    def _accepting(self, hub: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
        async def accepting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tunnel = Accepted(hub, reader, writer, self._referee.judge)
            try:
                request = await tunnel.handshake(self._token, self._elsewhere)
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
        fresh = self._token_file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(self._token)
        os.replace(fresh, self._token_file)

    # what steps have in common

    async def _dials(self, name: str) -> Accepted:
        """The agent's next dial, of whichever hub; the tunnel has this name from then on."""
        found = await self._dialled.get()
        if isinstance(found, Broken):
            raise found
        self._tunnels[name] = self._tunnel = found
        return found

    async def _hello(self, tunnel: Tunnel) -> Hello:
        frame = await self._next(tunnel, lambda one: one.type != F.PING and one.type != F.PONG)
        if frame.type != F.HELLO:
            raise Broken("5.HELLO", f"{frame.name} comes, and not HELLO")
        try:
            hello: Hello = Hello.unpack(frame.payload)
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
        self._window, self._packed_open = hello.window, PACKED_OPEN in hello.known
        return hello

    def _acknowledge(self, tunnel: Tunnel, epoch: int, step: dict[str, Any]) -> None:
        """HELLO_ACK. `says`: more members. `header`: the epoch that its header has. `doubled`: a member stands twice,
        and the last is right."""
        session = secrets.token_hex(16) if tunnel.granted is None else tunnel.granted.session
        tunnel.granted = HelloAck(
            version=step.get("version", VERSION),
            replica_id=step.get("replica", f"hub-{tunnel.hub}"),
            session=session,
            epoch=epoch,
            cluster=step.get("cluster", False),
        )
        says = step.get("says", {})
        tunnel.most = says.get("max_message", tunnel.most)
        body = orjson.dumps(orjson.loads(tunnel.granted.pack()) | says)
        body = b'{"epoch":0,' + body[1:] if step.get("doubled") else body
        tunnel.frame(F.HELLO_ACK, epoch=step.get("header", epoch), payload=body)
