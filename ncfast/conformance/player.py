"""Plays one scenario: a method for each verb. Each waits for what it expects, and raises Broken with the step's rule if
something else comes; nothing within `patience` seconds is broken as well."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from ncfast._frames import FrameType, encode
from ncfast.conformance.broken import Broken
from ncfast.conformance.referee import Flow
from ncfast.conformance.scenario import ScenarioError
from ncfast.conformance.stage import CONNECTOR, Stage, reason_name
from ncfast.conformance.tunnel import Frame, Tunnel
from ncfast.core.errors import Reason
from ncfast.core.messages import Move
from ncfast.core.opening import Opening

WINDOW = 262144  # bytes that an agent may send on a flow unless a step says otherwise
PIECE = 16384  # bytes of an M_DATA, unless a step says otherwise
LARGEST = 1 << 24  # bytes of a window that is filled to see whether it ends
F = FrameType


class Player(Stage):
    """The verbs, each with its value and the whole step."""

    async def play(self) -> None:
        """All steps. Raises Broken, and ScenarioError for a step that is none."""
        for step in self.scenario.steps:
            self._step = step
            verb = next(iter(step))
            do = getattr(self, f"_do_{verb}", None)
            if do is None:
                raise ScenarioError(f"{self.scenario.name}: there is no verb {verb}")
            try:
                async with asyncio.timeout(self.patience):
                    await do(step[verb], step)
            except TimeoutError:
                self._look()
                raise Broken(self._rule, f"nothing came for {orjson.dumps(step).decode()}") from None
            except Broken:
                self._look()  # what a frame broke is the cause
                raise
            self._look()

    # verbs: tunnels

    async def _do_own(self, _: bool, step: dict[str, Any]) -> None:
        """The agent dials and claims, and is granted an epoch: `epoch` above its last one, if that is said. `cluster`:
        there are other hubs. `answer` none: it waits for HELLO_ACK in vain. `not_before`: seconds until then, unless
        another hub is dialled than the last time."""
        before, since = self._tunnels.get("owner"), asyncio.get_running_loop().time()
        tunnel = await self._dials("owner")
        took = asyncio.get_running_loop().time() - since
        if before is not None and tunnel.hub == before.hub and took < step.get("not_before", 0):
            raise Broken(self._rule, f"the hub is dialled again after {took:.2f} s")
        await self._claimed_on(tunnel, step)

    async def _do_claim(self, _: bool, step: dict[str, Any]) -> None:
        """The agent claims over its standby, or over the tunnel that `on` names."""
        await self._claimed_on(self._on({"on": "standby", **step}), step)

    async def _do_dial(self, name: str, step: dict[str, Any]) -> None:
        """The agent dials the owner's hub once more; the tunnel has that name from now on."""
        tunnel = await self._dials(name)
        if tunnel.hub != self._tunnels["owner"].hub:
            raise Broken(self._rule, "another hub is dialled than the owner's")

    async def _claimed_on(self, tunnel: Tunnel, step: dict[str, Any]) -> None:
        hello = await self._hello(tunnel)
        if hello.standby:
            raise Broken("8.17", "a HELLO that should claim says standby")
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
            flow.leave(tunnel, "8.8")

    async def _do_stand(self, _: bool, step: dict[str, Any]) -> None:
        """The agent dials another hub than the owner's for a standby. `epoch`: what it is granted, wrongly."""
        while True:
            tunnel = await self._dials("standby")
            if not (await self._hello(tunnel)).standby:
                raise Broken("8.16", "a second tunnel claims although the owner's stands")
            self._acknowledge(tunnel, step.get("epoch", 0), step)
            if tunnel.hub != self._tunnels["owner"].hub:
                return

    async def _do_refuse(self, status: int, step: dict[str, Any]) -> None:
        """The agent's next handshake gets this HTTP status, with `headers`; then the doors are open again."""
        self._refusal = (status, step.get("headers", {}))
        await self._dials("owner")
        self._refusal = None

    async def _do_cut(self, _: bool, step: dict[str, Any]) -> None:
        """The tunnel's TCP connection ends without a word."""
        self._on(step).cut()

    async def _do_ends(self, codes: list[int], step: dict[str, Any]) -> None:
        """The agent ends the tunnel with one of these close codes; with none given, in any way."""
        tunnel = self._on(step)
        while not tunnel.ended:
            tunnel.changed.clear()
            await tunnel.changed.wait()
        self._look()
        if codes and tunnel.close_code not in codes:
            raise Broken(self._rule, f"the tunnel ends with close code {tunnel.close_code}, not {codes}")

    async def _do_fence(self, times: int, step: dict[str, Any]) -> None:
        """PING, and the wait for its PONG, so many times: what came before has been read by then."""
        tunnel = self._on(step)
        for _ in range(times):
            tunnel.pings += 1
            tunnel.frame(F.PING, epoch=tunnel.epoch, seq=tunnel.pings)
            while tunnel.ponged < tunnel.pings:
                if tunnel.ended:
                    raise Broken(step.get("rule", "9.1"), f"the tunnel has ended (close code {tunnel.close_code})")
                self._look()
                tunnel.changed.clear()
                await tunnel.changed.wait()

    async def _do_wait(self, seconds: float, step: dict[str, Any]) -> None:
        """Time passes. `silent`: of these frame types none may come meanwhile."""
        await asyncio.sleep(seconds)
        self._quiet(step)

    async def _do_silent(self, types: list[str], step: dict[str, Any]) -> None:
        """None of these frame types has come since the last step."""
        self._quiet({"silent": types, **step})

    def _quiet(self, step: dict[str, Any]) -> None:
        tunnel = self._on(step)
        for frame in tunnel.frames:
            if frame.name in step.get("silent", ()):
                raise Broken(self._rule, f"{frame.name} comes")

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

    async def _do_wsping(self, _: bool, step: dict[str, Any]) -> None:
        """A ping of WebSocket's own is answered."""
        await self._on(step).ping()

    async def _do_goaway(self, reason: str, step: dict[str, Any]) -> None:
        """The hub says GOAWAY."""
        tunnel = self._on(step)
        tunnel.frame(F.GOAWAY, epoch=tunnel.epoch, code=Reason[reason.upper()])

    async def _do_move(self, name: str, step: dict[str, Any]) -> None:
        """The hub asks the agent to be owned by the hub of that tunnel."""
        tunnel = self._on(step)
        replica = f"hub-{self._tunnels[name].hub}"
        tunnel.frame(F.MOVE, epoch=tunnel.epoch, payload=Move(replica_id=replica).pack())

    async def _do_raw(self, data: str, step: dict[str, Any]) -> None:
        """Bytes as they are, in hexadecimal, on the stream of frames."""
        self._on(step).send(bytes.fromhex(data))

    # verbs: what the hub sends of a flow

    async def _do_open(self, connector: str, step: dict[str, Any]) -> None:
        """M_OPEN. `limit`: the agent's credit. `data`, `fin`: so many bytes, and the end, in the very same message.
        `packed`: in that form, if the agent reads it. `pieces`, `fragments`: cut into messages, or fragments of one, of
        so many bytes."""
        tunnel, flow = self._on(step), self._flow(step)
        flow.limit = max(flow.limit, step.get("limit", WINDOW))
        flow.granted = max(flow.granted, self._window)
        if "older" not in step:
            flow.come(tunnel)
        opening = Opening(
            connector or CONNECTOR,
            "conformance",
            flow.secret,
            f"hub-{tunnel.hub}",
            ("192.0.2.7", 50123, "192.0.2.1", 389),
        )
        body = opening.pack() if step.get("packed") and self._packed_open else opening.json()
        early = flow.client.part(0, step.get("data", 0))
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

    async def _do_data(self, count: int | str, step: dict[str, Any]) -> None:
        """So many bytes of the client's, from `seq` on, or those behind what was sent; `over`: one more than the agent
        allows."""
        tunnel, flow = self._on(step), self._flow(step)
        start = step.get("seq", flow.sent)
        if isinstance(count, str):
            count = min(flow.granted - start, LARGEST) + 1
        end = start + count
        for at in range(start, end, PIECE):
            payload = flow.client.part(at, min(at + PIECE, end))
            self._say(tunnel, F.M_DATA, flow, {**step, "seq": at}, payload=payload)
        flow.sent = max(flow.sent, end)

    async def _do_fin(self, _: bool, step: dict[str, Any]) -> None:
        """The client's direction ends."""
        flow = self._flow(step)
        self._say(self._on(step), F.M_FIN, flow, step, seq=flow.sent)
        flow.fin_sent = True

    async def _do_rst(self, reason: str, step: dict[str, Any]) -> None:
        """The hub resets the flow."""
        flow = self._flow(step)
        self._on(step).frame(F.M_RST, epoch=self._on(step).epoch, cid=flow.cid, code=Reason[reason.upper()])
        flow.closed = True

    async def _do_send(self, name: str, step: dict[str, Any]) -> None:
        """Any other frame of a flow, M_ACK for one; `seq`, `ack`, `limit`, `code` as said. `older`: of an epoch so much
        below the tunnel's."""
        flow = self._flow(step)
        more: dict[str, Any] = {"code": Reason[step["code"].upper()]} if "code" in step else {}
        if FrameType[name] == F.M_RESUME:
            more["payload"] = flow.secret
        self._say(self._on(step), FrameType[name], flow, step, **more)

    async def _do_lose(self, received: int, step: dict[str, Any]) -> None:
        """As if of the agent's bytes only so many had come before the cut, and `sent` more had gone and were lost."""
        flow = self._flow(step)
        flow.received, flow.fin_received = min(flow.received, received), False
        flow.sent += step.get("sent", 0)

    async def _do_detach(self, reason: str, step: dict[str, Any]) -> None:
        """M_DETACH, and the wait until the agent has read it. `above`: the newest epoch is so much above the
        tunnel's; then the agent is to leave."""
        tunnel, flow = self._on(step), self._flow(step)
        newest = {"seq": tunnel.epoch + step["above"]} if "above" in step else {}
        tunnel.frame(F.M_DETACH, epoch=tunnel.epoch, cid=flow.cid, code=Reason[reason.upper()], **newest)
        if "above" in step:
            self._epoch = max(self._epoch, tunnel.epoch + step["above"])
            return
        await self._do_fence(2, {})
        tunnel.frames.clear()
        flow.leave(tunnel, "8.18")

    async def _do_ask(self, _: bool, step: dict[str, Any]) -> None:
        """The hub sends M_RESUME, is answered; the agent sends everything from our `ack` on again."""
        tunnel, flow = self._on(step), self._flow(step)
        if flow.way is not tunnel:
            flow.come(tunnel)
        flow.again = flow.received
        self._say(tunnel, F.M_RESUME, flow, step, payload=flow.secret)
        await self._next(tunnel, lambda one: one.type == F.M_RESUME_ACK and one.cid == flow.cid)

    # verbs: what the agent is to do

    async def _do_resumed(self, answer: bool, step: dict[str, Any]) -> None:
        """The agent sends M_RESUME; it is answered if `answer`, and gets everything from its `ack` on again."""
        tunnel, flow = self._on(step), self._flow(step)
        asked = await self._next(tunnel, lambda one: one.type == F.M_RESUME and one.cid == flow.cid)
        if asked.ack > flow.end or asked.ack < flow.acked:
            raise Broken("8.8", f"M_RESUME says ack {asked.ack}, and {flow.acked} was acknowledged before")
        if not answer:
            return
        if flow.way is not tunnel:
            flow.come(tunnel)
        self._say(tunnel, F.M_RESUME_ACK, flow, step)
        self._again(tunnel, flow, asked.ack)

    def _again(self, tunnel: Tunnel, flow: Flow, ack: int) -> None:
        for at in range(min(ack, flow.sent), flow.sent, PIECE):
            payload = flow.client.part(at, min(at + PIECE, flow.sent))
            self._say(tunnel, F.M_DATA, flow, {}, seq=at, payload=payload)
        if flow.fin_sent:
            self._say(tunnel, F.M_FIN, flow, {}, seq=flow.sent)

    async def _do_expect(self, name: str, step: dict[str, Any]) -> None:
        """A frame of the flow of this type. `code`: its reason, or one of them. `ack`: exactly that one."""
        tunnel, flow = self._on(step), self._flow(step)
        wanted = FrameType[name]

        def fits(frame: Frame) -> bool:
            if frame.cid != flow.cid:
                return False
            if frame.type == F.M_RST and wanted != F.M_RST:
                raise Broken(self._rule, f"M_RST {reason_name(frame.code)} comes, and not {name}")
            return frame.type == wanted

        frame = await self._next(tunnel, fits)
        codes = step.get("code", [])
        codes = [codes] if isinstance(codes, str) else codes
        if codes and reason_name(frame.code) not in codes:
            raise Broken(self._rule, f"{name} says {reason_name(frame.code)}, and not {' or '.join(codes)}")
        if "ack" in step and frame.ack != step["ack"]:
            raise Broken(self._rule, f"{name} acknowledges {frame.ack}, and not {step['ack']}")

    async def _do_acked(self, number: int, step: dict[str, Any]) -> None:
        """The agent has acknowledged below this number."""
        flow = self._flow(step)
        await self._until(flow, self._on(step), lambda: flow.acked >= number)

    async def _do_receive(self, count: int, step: dict[str, Any]) -> None:
        """The first so many bytes of the service's have come through. They are acknowledged as they come, unless `ack`
        is false, and in the end a whole window is granted, unless `grant` is."""
        tunnel, flow = self._on(step), self._flow(step)
        while flow.received < count:
            await self._some(flow, tunnel)
            if step.get("ack", True):
                self._say(tunnel, F.M_ACK, flow, {})
        if step.get("ack", True) and step.get("grant", True):
            self._say(tunnel, F.M_ACK, flow, {"limit": flow.received + WINDOW})

    async def _some(self, flow: Flow, tunnel: Tunnel) -> None:
        """More bytes of the flow have come."""
        before = flow.received
        await self._until(flow, tunnel, lambda: flow.received > before)

    async def _do_ended(self, _: bool, step: dict[str, Any]) -> None:
        """The end of the service's direction has come through. It is acknowledged, unless `ack` is false."""
        tunnel, flow = self._on(step), self._flow(step)
        await self._until(flow, tunnel, lambda: flow.fin_received)
        if step.get("ack", True):
            self._say(tunnel, F.M_ACK, flow, {"ack": flow.ack, "limit": flow.limit})

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
            flow.target = await self.service.accept(flow.client, flow.service)

    async def _do_say(self, count: int, step: dict[str, Any]) -> None:
        """The service says so many bytes more."""
        await self._target(step).say(count)

    async def _do_end(self, _: bool, step: dict[str, Any]) -> None:
        """The service ends its direction."""
        self._target(step).end()

    async def _do_break(self, _: bool, step: dict[str, Any]) -> None:
        """The service resets its connection."""
        self._target(step).reset()

    async def _do_hear(self, count: int, step: dict[str, Any]) -> None:
        """The service has been given the client's first so many bytes."""
        await self._target(step).hear(count, self._rule)

    async def _do_hear_end(self, _: bool, step: dict[str, Any]) -> None:
        """The service sees the client's end, behind what it has heard."""
        await self._target(step).hear_end(self._rule)

    async def _do_hear_reset(self, _: bool, step: dict[str, Any]) -> None:
        """The service's connection is reset."""
        await self._target(step).hear_reset(self._rule)
