"""The scripted hub: the verbs that only an agent is played with."""

from __future__ import annotations

import asyncio
from typing import Any

from ncfast._frames import FrameType, encode
from ncfast.conformance.agents.stage import AgentStage
from ncfast.conformance.broken import Broken
from ncfast.conformance.player import WINDOW
from ncfast.conformance.stage import CONNECTOR, code_of
from ncfast.conformance.tunnel import Tunnel
from ncfast.core.messages import Move
from ncfast.core.opening import Opening

F = FrameType


class ScriptedHub(AgentStage):
    """The verbs, each with its value and the whole step."""

    # verbs: tunnels

    async def _do_own(self, _: bool, step: dict[str, Any]) -> None:
        """The agent dials and claims, and is granted an epoch: `epoch` above its last one, if that is said. `cluster`:
        there are other hubs. `answer` none: it waits for HELLO_ACK in vain. `not_before`: seconds from the last refusal
        until then. `anew`: above nothing, for the last claim was not believed. What HELLO_ACK says otherwise has
        `_acknowledge`."""
        tunnel = await self._dials("owner")
        took = asyncio.get_running_loop().time() - self._refused_at
        if took < step.get("not_before", 0):
            raise Broken(self._rule, f"a hub is dialled after {took:.2f} s")
        await self._claimed_on(tunnel, step)

    async def _do_claim(self, _: bool, step: dict[str, Any]) -> None:
        """The agent claims over its standby, or over the tunnel that `on` names."""
        await self._claimed_on(self._on({"on": "standby", **step}), step)

    async def _do_dial(self, name: str, step: dict[str, Any]) -> None:
        """The agent dials the owner's hub once more; the tunnel has that name from now on."""
        tunnel = await self._dials(name)
        if tunnel.hub != self._tunnels["owner"].hub:
            raise Broken("8.39", "another hub is dialled than the owner's")
        self._tunnels["owner"].left = True

    async def _claimed_on(self, tunnel: Tunnel, step: dict[str, Any]) -> None:
        hello = await self._hello(tunnel)
        if hello.standby:
            raise Broken("8.17", "a HELLO that should claim says standby")
        if step.get("anew"):
            self._epoch, self._claimed = 0, -1
            if hello.last_epoch:
                raise Broken(self._rule, f"last_epoch is {hello.last_epoch}, which no hub believes")
        if hello.last_epoch < self._epoch:
            raise Broken("4.HELLO", f"last_epoch is {hello.last_epoch}, and {self._epoch} was granted")
        if hello.last_epoch <= self._claimed:
            raise Broken("4.HELLO", f"last_epoch is {hello.last_epoch}, as an earlier HELLO that claims has said")
        self._claimed = hello.last_epoch
        if step.get("answer") == "none":
            return
        epoch = max(self._epoch, hello.last_epoch) + 1
        if "epoch" in step:
            epoch = hello.last_epoch + step["epoch"]
        self._acknowledge(tunnel, epoch, step)
        self._epoch = max(epoch, self._epoch)
        tunnel.epoch = epoch
        tunnel.owns = True
        for flow in self._flows.values():
            flow.leave(tunnel, "8.24")

    async def _do_stand(self, _: bool, step: dict[str, Any]) -> None:
        """The agent dials another hub than the owner's for a standby. `epoch`: what it is granted, wrongly."""
        while True:
            tunnel = await self._dials("standby")
            if not (await self._hello(tunnel)).standby:
                raise Broken("8.16", "a second tunnel claims although the owner's stands")
            self._acknowledge(tunnel, step.get("epoch", 0), step)
            if tunnel.hub != self._tunnels["owner"].hub:
                return

    async def _do_flap(self, seconds: float, step: dict[str, Any]) -> None:
        """For so long the agent is granted what it claims, and each tunnel is cut at once. More than `most` are too
        many."""
        loop, count = asyncio.get_running_loop(), 0
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    tunnel = await self._dials("owner")
            except TimeoutError:
                return
            await self._claimed_on(tunnel, step)
            tunnel.cut()
            count += 1
            if count > step["most"]:
                raise Broken(self._rule, f"{count} tunnels within {seconds} s, although none has stood")

    async def _do_tell(self, _: bool, step: dict[str, Any]) -> None:
        """HELLO_ACK again, with what of it is otherwise than before."""
        tunnel = self._on(step)
        self._acknowledge(tunnel, tunnel.epoch + step.get("epoch", 0), step)

    async def _do_undialled(self, _: bool, step: dict[str, Any]) -> None:
        """The agent has not dialled since."""
        if not self._dialled.empty():
            raise Broken(self._rule, "the agent dials")

    async def _do_refuse(self, status: int, step: dict[str, Any]) -> None:
        """The agent's next handshake gets this HTTP status, with `headers`; then the doors are open again."""
        self._refusal = (status, step.get("headers", {}))
        self._elsewhere = step.get("headers", {}).get("Location", "")
        await self._dials("owner")

    async def _do_distrust(self, kinds: list[str], step: dict[str, Any]) -> None:
        """The agent's next dials meet certificates of these kinds, or `TLS 1.1`, and each ends before a request."""
        self._certificates.extend(kinds)
        for kind in kinds:
            await self._turned_away(f"the agent shows its token to a hub whose certificate or TLS is: {kind}")

    async def _do_connect(self, statuses: list[int], step: dict[str, Any]) -> None:
        """The proxy answers the agent's next CONNECTs with these, and does not connect it."""
        self._connects.extend(statuses)
        for status in statuses:
            await self._turned_away(f"a hub is dialled although the proxy answers {status}")

    async def _turned_away(self, otherwise: str) -> None:
        """A dial that has ended before a request was made."""
        found = await self._dialled.get()
        if found is not None:
            raise found if isinstance(found, Broken) else Broken(self._rule, otherwise)

    async def _do_token(self, _: str, step: dict[str, Any]) -> None:
        """The token file is replaced, as tokens are."""
        await asyncio.sleep(1.1)  # a token is drawn by the second
        self._renew()

    async def _do_auth(self, code: int, step: dict[str, Any]) -> None:
        """The agent shows the new token, and is told that it is taken (0), or not."""
        tunnel = self._on(step)
        frame = await self._next(tunnel, lambda one: one.type == F.AUTH)
        if frame.payload != self._token.encode():
            raise Broken(self._rule, "AUTH is not the token of the file")
        tunnel.frame(F.AUTH, epoch=tunnel.epoch, code=code)

    async def _do_goaway(self, reason: str | int, step: dict[str, Any]) -> None:
        """The hub says GOAWAY; a reason that nobody knows is a number."""
        tunnel = self._on(step)
        tunnel.frame(F.GOAWAY, epoch=tunnel.epoch, code=code_of(reason))

    async def _do_move(self, name: str, step: dict[str, Any]) -> None:
        """The hub asks the agent to be owned by the hub of that tunnel."""
        tunnel = self._on(step)
        replica = f"hub-{self._tunnels[name].hub}"
        tunnel.frame(F.MOVE, epoch=tunnel.epoch, payload=Move(replica_id=replica).pack())

    # verbs: of a flow

    async def _do_open(self, connector: str, step: dict[str, Any]) -> None:
        """M_OPEN. `limit`: the agent's credit. `data`, `fin`: so many bytes, and the end, in the very same message.
        `packed`: in that form, if the agent reads it. `body`: another one, in hexadecimal. `origin`: another hub.
        `pieces`, `fragments`: cut into messages, or fragments of one, of so many bytes."""
        tunnel, flow = self._on(step), self._flow(step)
        flow.limit = max(flow.limit, step.get("limit", WINDOW))
        flow.granted = max(flow.granted, self._window)
        if "older" not in step:
            flow.come(tunnel)
        opening = Opening(
            connector or CONNECTOR,
            "conformance",
            flow.secret,
            step.get("origin", f"hub-{tunnel.hub}"),
            ("192.0.2.7", 50123, "192.0.2.1", 389),
        )
        body = opening.pack() if step.get("packed") and self._packed_open else opening.json()
        body = bytes.fromhex(step["body"]) if "body" in step else body
        early = flow.ours.part(0, step.get("data", 0))
        fields: dict[str, Any] = {"epoch": tunnel.epoch - step.get("older", 0), "cid": flow.cid, "limit": flow.limit}
        message = encode(F.M_OPEN, **fields, payload=body)
        if early:
            message += encode(F.M_DATA, **fields, payload=early)
            flow.sent = max(flow.sent, len(early))
        if step.get("fin"):
            message += encode(F.M_FIN, **fields, seq=flow.sent)
            flow.fin_sent = True
        size = step.get("pieces", step.get("fragments", len(message)))
        tunnel.send_in([message[at : at + size] for at in range(0, len(message), size)], "fragments" in step)

    async def _do_detach(self, reason: str, step: dict[str, Any]) -> None:
        """M_DETACH, and the wait until the agent has read it. `above`: the newest epoch is so much above the
        tunnel's; then the agent is to leave. On a tunnel that was left the agent says the same."""
        tunnel, flow = self._on(step), self._flow(step)
        newest = {"seq": tunnel.epoch + step["above"]} if "above" in step else {}
        tunnel.frame(F.M_DETACH, epoch=tunnel.epoch, cid=flow.cid, code=code_of(reason), **newest)
        if "above" in step:
            self._epoch = max(self._epoch, tunnel.epoch + step["above"])
            return
        if tunnel.left:
            flow.leave(tunnel, "8.40")
            await self._next(tunnel, lambda one: one.type == F.M_DETACH and one.cid == flow.cid)
            return
        await self._do_fence(2, {})
        tunnel.frames.clear()
        flow.leave(tunnel, "8.18")

    # verbs: the service

    async def _do_service(self, what: str, step: dict[str, Any]) -> None:
        """`hold` and `release` connects, `refuse` them, or `accept` one as the flow's target."""
        flow = self._flow(step)
        if what == "hold":
            self.service.hold()
            self._referee.connectable = False
        elif what == "release":
            self._referee.connectable = True
            await self.service.release()
        elif what == "refuse":
            self.service.refuse()
        else:
            flow.far = await self.service.accept(flow.ours, flow.theirs)
