"""The scripted agent and the clients: the verbs that only a hub is played with."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import orjson

from ncfast._frames import FrameType
from ncfast.conformance.broken import Broken
from ncfast.conformance.hubs.stage import HubStage
from ncfast.conformance.player import WINDOW
from ncfast.conformance.stage import AGENT, CONNECTOR
from ncfast.conformance.tunnel import Tunnel
from ncfast.core.errors import Reason
from ncfast.core.messages import VERSION, Announce, Hello, Move

F = FrameType


class ScriptedAgent(HubStage):
    """The verbs, each with its value and the whole step."""

    # verbs: tunnels

    async def _do_dial(self, status: int | list[int], step: dict[str, Any]) -> None:
        """A handshake, and its answer's status, or one of them. `request`: its first line. `headers`: of its headers
        those that are otherwise, null for without. `token`: of its claims the same; `none`, `twice`. `early`: bytes
        behind it. `has`: headers of the answer. `agent`: who dials. `on`: the tunnel's name, or `owner`."""
        await self._dial(step, [status] if isinstance(status, int) else status)

    async def _do_crowd(self, count: int, step: dict[str, Any]) -> None:
        """So many handshakes of an agent at once: some are refused, by 429 and with Retry-After."""
        asked = await asyncio.gather(*(self._ask(step) for _ in range(count)))
        for tunnel, _ in asked:
            tunnel.cut()
        refused = [answer for _, answer in asked if answer.status_code == 429]
        if not refused:
            raise Broken(self._rule, f"{count} tunnels of an agent at once are all granted")
        if not all("Retry-After" in answer.headers for answer in refused):
            raise Broken("1.6", "the answer 429 has no Retry-After")

    async def _do_hello(self, more: dict[str, Any], step: dict[str, Any]) -> None:
        """HELLO, with these members otherwise, null for without; `instance` true: another process."""
        self._hello(self._on(step), more, step)

    async def _do_granted(self, _: bool, step: dict[str, Any]) -> None:
        """HELLO_ACK comes. `refused`: exactly these connectors are said to be."""
        tunnel = self._on(step)
        await self._next(tunnel, lambda one: one.type == F.HELLO_ACK)
        if tunnel.granted is not None and tunnel.granted.refused != step.get("refused", []):
            raise Broken(self._rule, f"refused is {tunnel.granted.refused}")

    async def _do_own(self, _: bool, step: dict[str, Any]) -> None:
        """The agent dials and claims: `dial`, `hello` and `granted` in one. `hello`: members that are otherwise."""
        tunnel = await self._dial({"on": "owner", **step}, [101])
        self._hello(tunnel, step.get("hello", {}), step)
        await self._do_granted(True, {**step, "on": step.get("on", "owner")})

    async def _do_stand(self, _: bool, step: dict[str, Any]) -> None:
        """The same for a standby."""
        await self._do_own(True, {"on": "standby", **step, "hello": {"standby": True, **step.get("hello", {})}})

    async def _do_claim(self, _: bool, step: dict[str, Any]) -> None:
        """The agent claims over its standby."""
        self._hello(self._on({"on": "standby"}), step.get("hello", {}), step)
        await self._do_granted(True, {**step, "on": "standby"})

    def _hello(self, tunnel: Tunnel, more: dict[str, Any], step: dict[str, Any]) -> None:
        agent = step.get("agent", AGENT)
        last = max(self._referee.epochs.get(agent, 0), self._claimed.get(agent, -1) + 1)
        if more.get("instance") is True:
            self._instances.pop(agent, None)
        body = {
            "version": VERSION,
            "agent_id": agent,
            "connectors": [CONNECTOR],
            "last_epoch": last,
            "window": WINDOW,
            **more,
            "instance": self._instances.setdefault(agent, secrets.token_hex(16)),
        }
        body = {name: value for name, value in body.items() if value is not None}
        said = Hello.model_construct(**{"connectors": [], **body})
        if not said.standby:
            self._claimed[agent] = body.get("last_epoch", 0)
        tunnel.hello = said
        self._referee.served[tunnel] = frozenset(said.connectors) - frozenset(step.get("refused", ()))
        tunnel.frame(F.HELLO, payload=orjson.dumps(body))

    async def _do_announce(self, connectors: list[str], step: dict[str, Any]) -> None:
        """ANNOUNCE, and the wait until the hub has read it."""
        tunnel = self._on(step)
        served = self._referee.served
        served[tunnel] = served[tunnel] | frozenset(connectors)
        tunnel.frame(F.ANNOUNCE, epoch=tunnel.epoch, payload=Announce(connectors=connectors).pack())
        await self._do_fence(2, {})
        served[tunnel] = frozenset(connectors)

    async def _do_auth(self, code: int | None, step: dict[str, Any]) -> None:
        """AUTH with a token (as in `dial`), and the answer's code; none is waited for if that is null."""
        tunnel = self._on(step)
        token = self._token(step.get("token", {}), step.get("agent", AGENT))
        tunnel.frame(F.AUTH, epoch=tunnel.epoch, payload=token.encode())
        if code is None:
            return
        answer = await self._next(tunnel, lambda one: one.type == F.AUTH)
        if answer.code != code or (code == 0 and answer.payload):
            raise Broken(self._rule, f"AUTH answers {answer.code}, with {len(answer.payload)} bytes")

    async def _do_goaway(self, reason: str, step: dict[str, Any]) -> None:
        """The agent says GOAWAY, and the hub has read it."""
        tunnel = self._on(step)
        tunnel.frame(F.GOAWAY, epoch=tunnel.epoch, code=Reason[reason.upper()])
        await self._do_fence(1, {})

    async def _do_move(self, replica: str, step: dict[str, Any]) -> None:
        """The agent says that it does not get to that hub."""
        tunnel = self._on(step)
        tunnel.frame(F.MOVE, epoch=tunnel.epoch, payload=Move(replica_id=replica).pack())

    # verbs: of a flow

    async def _do_client(self, how: str, step: dict[str, Any]) -> None:
        """A client comes to the listener. `slow`: the kernel holds little for it, and it reads when it is to hear."""
        flow = self._flow(step)
        flow.far = await self._client(flow, slow=how == "slow")

    async def _do_opened(self, _: bool, step: dict[str, Any]) -> None:
        """M_OPEN comes for the client."""
        tunnel, flow = self._on(step), self._flow(step)
        await self._next(tunnel, lambda one: one.type == F.M_OPEN and one.cid == flow.cid)

    async def _do_accept(self, _: bool, step: dict[str, Any]) -> None:
        """M_OPEN_ACK: the target is connected."""
        flow = self._flow(step)
        flow.opened = True
        self._say(self._on(step), F.M_OPEN_ACK, flow, step)

    async def _do_resume(self, _: bool, step: dict[str, Any]) -> None:
        """We send M_RESUME, are answered, and send everything from that `ack` on again, as the hub does."""
        tunnel, flow = self._on(step), self._flow(step)
        flow.opened = True
        answer = await self._asked(tunnel, flow, step)
        if answer.ack < flow.acked:
            raise Broken("8.10", f"M_RESUME_ACK says ack {answer.ack}, and {flow.acked} was acknowledged before")
        self._again(tunnel, flow, answer.ack)
