"""What a hub is put between: ports for its two doors, its key, clients; tunnels as an agent dials them."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from pathlib import Path
from typing import Any, ClassVar

import jwt
from websockets.http11 import Response

from ncfast.conformance.broken import Broken
from ncfast.conformance.farside import AHEAD, SLOW, FarSide
from ncfast.conformance.flow import Flow
from ncfast.conformance.hubs.dialled import LINE, Dialled, Headers
from ncfast.conformance.hubs.referee import HubReferee
from ncfast.conformance.player import Player
from ncfast.conformance.scenario import Scenario, ScenarioError
from ncfast.conformance.stage import AGENT, CONNECTOR, Places
from ncfast.conformance.tunnel import Tunnel

AUDIENCE, LIFETIME = "nowconnect", 3600  # of tokens; seconds
LOOK_SEC = 0.1  # between two attempts to reach a hub that starts
LOOPBACK = "127.0.0.1"


class HubStage(Player):
    """The way to the hub, and clients."""

    OPTIONAL: ClassVar[tuple[str, ...]] = ("drain", "tls", "client_certificates")
    SCENARIOS = "hub_scenarios.json"
    BROKEN = "1"
    _referee: HubReferee

    def __init__(self, scenario: Scenario, directory: Path, patience: float) -> None:
        super().__init__(scenario, directory, patience)
        self._key_file = directory / "key"
        self._doors = [kept_port(), kept_port()]
        self._instances: dict[str, str] = {}  # by agent
        self._claimed: dict[str, int] = {}  # the last `last_epoch` that a HELLO which claims has said, by agent
        self._clients: list[FarSide] = []
        self._reading: list[asyncio.Task[None]] = []

    @staticmethod
    def _referees(flows: dict[bytes, Flow]) -> HubReferee:
        return HubReferee(flows)

    @property
    def places(self) -> Places:
        edge, listener = (str(door.getsockname()[1]) for door in self._doors[:2])
        return {
            "edge": f"{LOOPBACK}:{edge}",
            "edge_port": edge,
            "listener": f"{LOOPBACK}:{listener}",
            "listener_port": listener,
            "connector": CONNECTOR,
            "key_file": str(self._key_file),
            "audience": AUDIENCE,
            "directory": str(self._directory),
        }

    async def start(self) -> None:
        """Writes the key, in letters."""
        self._key = secrets.token_hex(32).encode()
        self._key_file.touch(mode=0o600)
        self._key_file.write_bytes(self._key)

    def close(self) -> None:
        for task in self._reading:
            task.cancel()
        super().close()
        for client in self._clients:
            client.close()
        for door in self._doors:
            door.close()

    # tokens

    def _token(self, claims: dict[str, Any], agent: str) -> str:
        """Signed with the hub's key. `claims` are in place of those that are right, None for without one; `exp`, `iat`
        and `nbf` count from now. `key`, which is no claim: signed with another. `bound`, which is none either: to this
        certificate."""
        now = int(time.time())
        if "bound" in claims:
            claims = {**claims, "bound": None, "cnf": {"x5t#S256": self._thumbprint(claims["bound"])}}
        right = {"sub": agent, "aud": AUDIENCE, "iat": 0, "exp": LIFETIME, "jti": secrets.token_hex(8)}
        said = {name: value for name, value in {**right, **claims}.items() if value is not None and name != "key"}
        for name in ("iat", "exp", "nbf"):
            if isinstance(said.get(name), int):
                said[name] += now
        return jwt.encode(said, secrets.token_bytes(32) if "key" in claims else self._key, algorithm="HS256")

    def _thumbprint(self, certificate: str) -> str:
        """Of one that we may show."""
        raise ScenarioError(f"{self.scenario.name}: without TLS there are no certificates")

    # the way to the hub

    async def _connect(self, door: int, flow: Flow | None = None, *, slow: bool = False) -> socket.socket:
        """To the edge (0), the listener (1) or another door, as soon as the hub listens there. A client's flow is known
        by its address before the hub can see it."""
        while True:
            sock = socket.socket()
            sock.setblocking(False)
            if slow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW)
            if flow is not None:
                sock.bind((LOOPBACK, 0))
                self._referee.clients[sock.getsockname()] = flow
            try:
                await asyncio.get_running_loop().sock_connect(sock, self._doors[door].getsockname())
            except ConnectionRefusedError:
                sock.close()
                await asyncio.sleep(LOOK_SEC)
                continue
            return sock

    async def _edge(self, step: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to it."""
        return await asyncio.open_connection(sock=await self._connect(0))

    async def _ask(self, step: dict[str, Any]) -> tuple[Dialled, Response]:
        """A handshake as the step says (`request`, `headers`, `token`, `early`, `part`), and what is answered."""
        token = step.get("token", {})
        shown: Headers = {}
        if token != "none":
            bearer = f"Bearer {self._token(token if isinstance(token, dict) else {}, step.get('agent', AGENT))}"
            shown["Authorization"] = [bearer, bearer] if token == "twice" else bearer
        tunnel = Dialled(f"ws://{self.places['edge']}/tunnel", *await self._edge(step), self._referee.judge)
        headers = {**shown, **step.get("headers", {})}
        end = b"" if step.get("part") else b"\r\n" + bytes.fromhex(step.get("early", ""))
        return tunnel, await tunnel.ask(step.get("request", LINE), headers, end)

    async def _dial(self, step: dict[str, Any], status: list[int]) -> Tunnel:
        """A handshake, and one of these answers, which has the headers of `has`."""
        tunnel, answer = await self._ask(step)
        if answer.status_code not in status:
            expected = " or ".join(map(str, status))
            raise Broken(self._rule, f"the answer to the handshake is {answer.status_code}, and not {expected}")
        for name in step.get("has", ()):
            if name not in answer.headers:
                raise Broken(self._rule, f"the answer {answer.status_code} has no {name}")
        if answer.status_code == 101:
            self._tunnels[step.get("on", "owner")] = self._tunnel = tunnel
            self._reading.append(asyncio.create_task(tunnel.run()))
        else:
            tunnel.cut()
        return tunnel

    async def _client(self, flow: Flow, *, slow: bool) -> FarSide:
        """A client at the listener; a hub may reset it at once, which a connect may see already."""
        who = ("client", flow.ours, flow.theirs, 0 if slow else AHEAD)
        try:
            client = await FarSide.on(await self._connect(1, flow, slow=slow), *who)
        except ConnectionResetError as exc:
            client = FarSide(*who)
            client.connection_lost(exc)
            return client
        self._clients.append(client)
        return client


def kept_port() -> socket.socket:
    """A loopback port that nobody else is given. It is bound and does not listen, so that a program which sets
    SO_REUSEADDR, as servers do, may bind it as well."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((LOOPBACK, 0))
    return sock
