"""Plays one scenario: a method for each verb. Each waits for what it expects, and raises Broken with the step's rule if
something else comes; nothing within `patience` seconds is broken as well. Here are the verbs that both sides have: of
flows, of what the tunnel does, and of who is at the far side of the program under test."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import orjson

from ncfast._frames import IGNORABLE, MAX_CONTROL, FrameType
from ncfast.conformance.broken import Broken
from ncfast.conformance.flow import Flow
from ncfast.conformance.scenario import ScenarioError
from ncfast.conformance.stage import Stage, code_of, reason_name
from ncfast.conformance.tunnel import Frame, Tunnel

WINDOW = 262144  # bytes that the other end may send on a flow unless a step says otherwise
PIECE = 16384  # bytes of an M_DATA, unless a step says otherwise
LARGEST = 1 << 24  # bytes of a window that is filled to see whether it ends
STRANGE = 99  # a type of frame that nobody knows
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
            except ConnectionError as exc:
                self._look()
                raise Broken(self._rule, f"a connection is gone: {exc}") from None
            except Broken:
                self._look()  # what a frame broke is the cause
                raise
            self._look()

    # verbs: tunnels

    async def _do_cut(self, _: bool, step: dict[str, Any]) -> None:
        """The tunnel's TCP connection ends without a word."""
        self._on(step).cut()

    async def _do_ends(self, codes: list[int | None], step: dict[str, Any]) -> None:
        """The other end closes the tunnel with one of these close codes; null: without a close frame,
        which is lost when TCP ends under bytes of ours. With none given, in any way."""
        tunnel = self._on(step)
        while not tunnel.ended:
            tunnel.changed.clear()
            await tunnel.changed.wait()
        self._look()
        if codes and tunnel.close_code not in codes:
            raise Broken(self._rule, f"the tunnel ends with close code {tunnel.close_code}, not {codes}")

    async def _do_fence(self, times: int, step: dict[str, Any]) -> None:
        """PING, and the wait for its PONG, so many times: what came before has been read by then. `epoch`: what its
        header says."""
        tunnel = self._on(step)
        for _ in range(times):
            tunnel.pings += 1
            tunnel.frame(F.PING, epoch=step.get("epoch", tunnel.epoch), seq=tunnel.pings)
            while tunnel.ponged < tunnel.pings:
                if tunnel.ended:
                    raise Broken(step.get("rule", "9.1"), f"the tunnel has ended (close code {tunnel.close_code})")
                self._look()
                tunnel.changed.clear()
                await tunnel.changed.wait()

    async def _do_wait(self, seconds: float, step: dict[str, Any]) -> None:
        """Time passes. `silent`: of these frame types none may come meanwhile; who has much patience waits longer."""
        await asyncio.sleep(max(seconds, self.patience / 20) if "silent" in step else seconds)
        self._quiet(step)

    async def _do_silent(self, types: list[str], step: dict[str, Any]) -> None:
        """None of these frame types has come since the last step."""
        self._quiet({"silent": types, **step})

    def _quiet(self, step: dict[str, Any]) -> None:
        tunnel = self._on(step)
        for frame in tunnel.frames:
            if frame.name in step.get("silent", ()):
                raise Broken(self._rule, f"{frame.name} comes")

    async def _do_comes(self, name: str, step: dict[str, Any]) -> None:
        """A frame of the tunnel's own, of this type; `times`: so many of them. `code`: its reason."""
        for _ in range(step.get("times", 1)):
            frame = await self._next(self._on(step), lambda one: one.type == FrameType[name])
            self._says(name, frame, step)

    async def _do_wsping(self, _: bool, step: dict[str, Any]) -> None:
        """A ping of WebSocket's own is answered."""
        await self._on(step).ping()

    async def _do_raw(self, data: str, step: dict[str, Any]) -> None:
        """Bytes as they are, in hexadecimal, on the stream of frames; `times` over, each in a message of its own."""
        for _ in range(step.get("times", 1)):
            self._on(step).send(bytes.fromhex(data))

    async def _do_filler(self, count: int, step: dict[str, Any]) -> None:
        """So many bytes at least, in frames of a type that nobody knows and that may be ignored."""
        for _ in range(0, count, MAX_CONTROL):
            self._on(step).frame(STRANGE, flags=IGNORABLE, payload=bytes(MAX_CONTROL))

    async def _do_text(self, words: str, step: dict[str, Any]) -> None:
        """A text message."""
        self._on(step).text(words)

    async def _do_wire(self, data: str, step: dict[str, Any]) -> None:
        """Bytes below WebSocket, in hexadecimal."""
        self._on(step).wire(bytes.fromhex(data))

    async def _do_close(self, code: int, step: dict[str, Any]) -> None:
        """We close the tunnel, with this code."""
        self._on(step).close(code)

    async def _do_deaf(self, _: bool, step: dict[str, Any]) -> None:
        """From now on nothing is sent unless the script says so: PINGs get no answer."""
        self._on(step).deaf = True

    async def _do_gather(self, _: bool, step: dict[str, Any]) -> None:
        """What is sent waits, until `pass_on`."""
        self._on(step).gather()

    async def _do_pass_on(self, how: str, step: dict[str, Any]) -> None:
        """What was gathered goes, in `messages`, or in `fragments` of one, of `size` bytes each."""
        self._on(step).pass_on(step["size"], fragments=how == "fragments")

    async def _do_stop(self, _: bool, step: dict[str, Any]) -> None:
        """The program under test is asked to stop in order, by SIGTERM."""
        self.program.stop()

    # verbs: what we send of a flow

    async def _do_data(self, count: int | str, step: dict[str, Any]) -> None:
        """So many bytes of ours, from `seq` on, or those behind what was sent; `over`: one more than is granted, `all`:
        as many. `seq` may be `limit`, the first number that is not granted."""
        tunnel, flow = self._on(step), self._flow(step)
        start = step.get("seq", flow.sent)
        start = flow.granted if start == "limit" else start
        if isinstance(count, str):
            count = min(flow.granted - start, LARGEST) + (count == "over")
        end = start + count
        for at in range(start, end, PIECE):
            payload = flow.ours.part(at, min(at + PIECE, end))
            self._say(tunnel, F.M_DATA, flow, {**step, "seq": at}, payload=payload)
        flow.sent = max(flow.sent, end)

    async def _do_fin(self, _: bool, step: dict[str, Any]) -> None:
        """Our direction ends."""
        flow = self._flow(step)
        self._say(self._on(step), F.M_FIN, flow, step, seq=flow.sent)
        flow.fin_sent = True

    async def _do_pour(self, count: int, step: dict[str, Any]) -> None:
        """Our first so many bytes, as fast as they are granted; the far side hears each."""
        tunnel, flow = self._on(step), self._flow(step)
        while flow.sent < count:
            await self._do_data(min(flow.granted, count) - flow.sent, step)
            await self._far(step).hear(flow.sent, self._rule)
            await self._until(flow, tunnel, lambda: flow.sent == count or flow.granted > flow.sent)

    async def _do_rst(self, reason: str | int, step: dict[str, Any]) -> None:
        """We reset the flow; a reason that nobody knows is a number."""
        flow = self._flow(step)
        self._on(step).frame(F.M_RST, epoch=self._on(step).epoch, cid=flow.cid, code=code_of(reason))
        flow.closed = True

    async def _do_send(self, name: str, step: dict[str, Any]) -> None:
        """Any other frame of a flow, M_ACK for one; `seq`, `ack`, `limit`, `code` as said. `older`: of an epoch so much
        below the tunnel's. `secret`: another one. `times`: so often."""
        flow = self._flow(step)
        more: dict[str, Any] = {"code": code_of(step["code"])} if "code" in step else {}
        if FrameType[name] == F.M_RESUME:
            more["payload"] = bytes.fromhex(step["secret"]) if "secret" in step else flow.secret
        for _ in range(step.get("times", 1)):
            self._say(self._on(step), FrameType[name], flow, step, **more)

    async def _do_lose(self, received: int, step: dict[str, Any]) -> None:
        """As if of the other end's bytes only so many had come before the cut, and `sent` more had gone and were
        lost."""
        flow = self._flow(step)
        flow.received, flow.fin_received = min(flow.received, received), False
        flow.sent += step.get("sent", 0)

    async def _do_ask(self, _: bool, step: dict[str, Any]) -> None:
        """We send M_RESUME, and are answered; the other end sends everything from our `ack` on again."""
        await self._asked(self._on(step), self._flow(step), step)

    async def _asked(self, tunnel: Tunnel, flow: Flow, step: dict[str, Any]) -> Frame:
        if flow.way is not tunnel:
            flow.come(tunnel)
        flow.again = flow.received
        self._say(tunnel, F.M_RESUME, flow, step, payload=flow.secret)
        return await self._next(tunnel, self._of(flow, F.M_RESUME_ACK))

    def _again(self, tunnel: Tunnel, flow: Flow, ack: int) -> None:
        """All of ours from `ack` on."""
        for at in range(min(ack, flow.sent), flow.sent, PIECE):
            payload = flow.ours.part(at, min(at + PIECE, flow.sent))
            self._say(tunnel, F.M_DATA, flow, {}, seq=at, payload=payload)
        if flow.fin_sent:
            self._say(tunnel, F.M_FIN, flow, {}, seq=flow.sent)

    # verbs: what is to come of a flow

    async def _do_resumed(self, answer: bool, step: dict[str, Any]) -> None:
        """The other end sends M_RESUME; it is answered if `answer`, and gets everything from its `ack` on again."""
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

    async def _do_expect(self, name: str, step: dict[str, Any]) -> None:
        """A frame of the flow of this type. `code`: its reason, or one of them. `ack`: exactly that one."""
        frame = await self._next(self._on(step), self._of(self._flow(step), FrameType[name]))
        self._says(name, frame, step)
        if "ack" in step and frame.ack != step["ack"]:
            raise Broken(self._rule, f"{name} acknowledges {frame.ack}, and not {step['ack']}")

    def _of(self, flow: Flow, wanted: FrameType) -> Callable[[Frame], bool]:
        """Of the flow, and of this type; it raises Broken for the flow's end."""

        def fits(frame: Frame) -> bool:
            if frame.cid != flow.cid:
                return False
            if frame.type == F.M_RST and wanted != F.M_RST:
                raise Broken(self._rule, f"M_RST {reason_name(frame.code)} comes, and not {wanted.name}")
            return frame.type == wanted

        return fits

    def _says(self, name: str, frame: Frame, step: dict[str, Any]) -> None:
        codes = step.get("code", [])
        codes = [codes] if isinstance(codes, str) else codes
        if codes and reason_name(frame.code) not in codes:
            raise Broken(self._rule, f"{name} says {reason_name(frame.code)}, and not {' or '.join(codes)}")

    async def _do_acked(self, number: int, step: dict[str, Any]) -> None:
        """The other end has acknowledged below this number."""
        flow = self._flow(step)
        await self._until(flow, self._on(step), lambda: flow.acked >= number)

    async def _do_granted_up_to(self, number: int, step: dict[str, Any]) -> None:
        """The other end has granted numbers up to this one."""
        flow = self._flow(step)
        await self._until(flow, self._on(step), lambda: flow.granted >= number)

    async def _do_receive(self, count: int, step: dict[str, Any]) -> None:
        """The first so many bytes of the far side's have come through. They are acknowledged as they come, unless `ack`
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
        """The end of the far side's direction has come through. It is acknowledged, unless `ack` is false."""
        tunnel, flow = self._on(step), self._flow(step)
        await self._until(flow, tunnel, lambda: flow.fin_received)
        if step.get("ack", True):
            self._say(tunnel, F.M_ACK, flow, {"ack": flow.ack, "limit": flow.limit})

    # verbs: the far side

    async def _do_say(self, count: int, step: dict[str, Any]) -> None:
        """The far side says so many bytes more."""
        await self._far(step).say(count)

    async def _do_end(self, _: bool, step: dict[str, Any]) -> None:
        """It ends its direction."""
        self._far(step).end()

    async def _do_break(self, _: bool, step: dict[str, Any]) -> None:
        """It resets its connection."""
        self._far(step).reset()

    async def _do_hear(self, count: int, step: dict[str, Any]) -> None:
        """It has been given the first so many of our bytes."""
        await self._far(step).hear(count, self._rule)

    async def _do_hear_end(self, _: bool, step: dict[str, Any]) -> None:
        """It sees our end, behind what it has heard."""
        await self._far(step).hear_end(self._rule)

    async def _do_hear_reset(self, _: bool, step: dict[str, Any]) -> None:
        """Its connection is reset. `pings`: before so many PINGs have come, by which the other end's own clock is read:
        a slow machine makes nobody late."""
        reset = asyncio.ensure_future(self._far(step).hear_reset(self._rule))
        late = asyncio.ensure_future(self._do_comes("PING", {"times": step.get("pings", sys.maxsize)}))
        try:
            await asyncio.wait((reset, late), return_when=asyncio.FIRST_COMPLETED)
            if not reset.done():
                await late  # raises what has gone wrong on the tunnel
                raise Broken(self._rule, f"the connection stands after {step['pings']} PINGs")
            await reset
        finally:
            reset.cancel()
            late.cancel()
