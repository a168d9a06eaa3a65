"""What an agent is put between: two hubs' doors, and the service; its token."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import ssl
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ncfast._frames import FrameType
from ncfast.auth import mint
from ncfast.conformance.agents.accepted import Accepted
from ncfast.conformance.agents.doors import LOOPBACK, Door, Secured, connected, streams
from ncfast.conformance.agents.referee import AgentReferee
from ncfast.conformance.agents.service import Service
from ncfast.conformance.broken import Broken
from ncfast.conformance.certificates import authority
from ncfast.conformance.flow import Flow
from ncfast.conformance.player import Player
from ncfast.conformance.scenario import Scenario
from ncfast.conformance.stage import AGENT, CONNECTOR, Places
from ncfast.conformance.tunnel import Tunnel
from ncfast.core.errors import RemoteError
from ncfast.core.features import PACKED_OPEN
from ncfast.core.messages import VERSION, Hello, HelloAck

HUBS = ("a", "b")
RIGHT = "right"  # the certificate that a hub is to have
F = FrameType


class AgentStage(Player):
    """The doors, and what of HELLO and HELLO_ACK steps have in common. Where a scenario needs `tls`, the doors speak
    it; where it needs `proxy`, too, they are behind one, and the hubs' names are known to it alone."""

    OPTIONAL = ("resume", "standby", "moves", "moves_again", "drain", "tls", "proxy")
    SCENARIOS = "scenarios.json"
    BROKEN = "15"
    _referee: AgentReferee

    def __init__(self, scenario: Scenario, directory: Path, patience: float) -> None:
        super().__init__(scenario, directory, patience)
        self.service = Service()
        self._token_file = directory / "token"
        self._token = ""
        self._ca_file = directory / "ca.pem"
        self._secure, self._proxied = "tls" in scenario.needs, "proxy" in scenario.needs
        self._doors = {hub: Door(partial(self._came, hub)) for hub in HUBS}
        self._proxy = Door(self._came_by_proxy)
        self._certificates: deque[str] = deque()  # of the next dials; then the right one
        self._connects: deque[int] = deque()  # what the proxy answers to the next ones; then 200
        self._claimed = -1  # the highest `last_epoch` that a HELLO which claims has said
        self._instance = ""
        self._dialled: asyncio.Queue[Accepted | Broken | None] = asyncio.Queue()  # None: ended before a request
        self._refusal: tuple[int, dict[str, str]] | None = None  # the answer to the next handshake
        self._refused_at = 0.0  # when the last was answered so, on the loop's clock
        self._elsewhere = ""  # where a redirect has led
        self._window, self._packed_open = 0, False  # of the last HELLO

    @staticmethod
    def _referees(flows: dict[bytes, Flow]) -> AgentReferee:
        return AgentReferee(flows)

    @property
    def places(self) -> Places:
        host, port = self.service.address
        return {
            "hub": self._url("a"),
            "other_hub": self._url("b"),
            "ca_file": str(self._ca_file),
            "proxy": f"http://{LOOPBACK}:{self._proxy.port}" if self._proxied else "",
            "agent_id": AGENT,
            "connector": CONNECTOR,
            "token_file": str(self._token_file),
            "target": f"{host}:{port}",
            "target_host": host,
            "target_port": str(port),
        }

    async def start(self) -> None:
        """Writes the first token, and the authority's certificate."""
        self._renew()
        self._ca_file.write_bytes(authority().pem)

    async def play(self) -> None:
        for door in (*self._doors.values(), self._proxy):
            door.open()
        await super().play()

    def close(self) -> None:
        for door in (*self._doors.values(), self._proxy):
            door.close()
        super().close()
        self.service.close()

    # the ways to the hubs

    def _place(self, hub: str) -> tuple[str, int]:
        """Host and port of its URL."""
        if self._proxied:
            return f"hub-{hub}.test", 443
        return "localhost" if self._secure else LOOPBACK, self._doors[hub].port

    def _url(self, hub: str) -> str:
        host, port = self._place(hub)
        return f"{'wss' if self._secure else 'ws'}://{host}:{port}/tunnel"

    async def _came_by_proxy(self, taken: socket.socket) -> None:
        status = self._connects.popleft() if self._connects else 200
        try:
            asked = await connected(taken, status)
            if status != 200:
                taken.close()
                self._dialled.put_nowait(None)
                return
            hubs = [hub for hub in HUBS if asked == "{}:{}".format(*self._place(hub))]
            if not hubs:
                raise Broken("1.20", f"CONNECT is for {asked}, and no hub is there")
        except Broken as exc:
            self._dialled.put_nowait(exc)
            taken.close()
        except ConnectionError:
            taken.close()
        else:
            await self._came(hubs[0], taken)

    async def _came(self, hub: str, taken: socket.socket) -> None:
        kind = self._certificates.popleft() if self._certificates else RIGHT
        secured = Secured(kind, self._place(hub)[0]) if self._secure else None
        try:
            reader, writer = await streams(taken, None if secured is None else secured.context)
        except OSError as exc:
            if kind != RIGHT:
                self._dialled.put_nowait(None)
            elif isinstance(exc, ssl.SSLError):
                told = "the authority is in {ca_file} and SSL_CERT_FILE"
                self._dialled.put_nowait(Broken("1.14", f"TLS does not come about: {exc.reason}; {told}"))
            return
        tunnel = Accepted(hub, reader, writer, self._referee.judge)
        try:
            if secured is not None:
                secured.judge(writer)
            request = await tunnel.handshake(self._token, self._elsewhere)
            if self._refusal is not None:
                refusal, self._refusal = self._refusal, None
                self._refused_at = asyncio.get_running_loop().time()
                tunnel.refuse(*refusal)
                self._dialled.put_nowait(tunnel)
                return
            tunnel.accept(request)
        except Broken as exc:
            self._dialled.put_nowait(exc)
            writer.close()
            return
        except ConnectionError:
            if kind != RIGHT:
                self._dialled.put_nowait(None)
            return
        self._dialled.put_nowait(tunnel)
        await tunnel.run()

    def _renew(self) -> None:
        self._token = mint(self._key, AGENT, None)
        fresh = self._token_file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(self._token)
        os.replace(fresh, self._token_file)

    # what steps have in common

    async def _dials(self, name: str) -> Accepted:
        """The agent's next dial, of whichever hub; the tunnel has this name from then on."""
        found = None
        while found is None:
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
