"""The demo's fault proxy in a process of its own, with faults on request or after a number of bytes."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvloop

from ncfast.demo.faultproxy import FaultProxy, Way

RESTART_SEC = 0.2


class FaultProxyProgram:
    """Carries connections that come to one address to an upstream, until told to misbehave."""

    def __init__(self, upstream: tuple[str, int], address: tuple[str, int]) -> None:
        self._proxy = FaultProxy(upstream, address)
        self._forwarded = 0  # by directions that have been replaced
        self._faults = 0
        self._planned: asyncio.Task[None] | None = None

    async def up(self) -> None:
        """Listen, on the same port as before."""
        await self._proxy.__aenter__()

    async def _fault(self, kind: str) -> None:
        proxy = self._proxy
        match kind:
            case "rst":
                proxy.cut()
            case "down":
                await proxy.__aexit__()
            case "restart":
                await proxy.__aexit__()
                await asyncio.sleep(RESTART_SEC)
                await self.up()
            case "silence":
                proxy.stall()
                self._leave_ways()
            case "drop_up":
                proxy.up.drop()
                self._leave_ways()
            case "drop_down":
                proxy.down.drop()
                self._leave_ways()
            case _:
                raise ValueError(f"no fault is called {kind!r}")
        self._faults += 1

    def _shape(self, way: str, delay: float, trickle: float, slice_: int) -> None:
        for name in ("up", "down") if way == "both" else (way,):
            one: Way = getattr(self._proxy, name)
            one.resume()
            one.delay(delay)
            if slice_:
                one.slice(slice_)
            if trickle:
                one.trickle(trickle)

    def _leave_ways(self) -> None:
        """The present connections keep their fault for ever; later ones go through new directions."""
        self._forwarded += self._proxy.up.bytes + self._proxy.down.bytes
        self._proxy.up, self._proxy.down = Way(), Way()

    def _bytes(self) -> int:
        return self._forwarded + self._proxy.up.bytes + self._proxy.down.bytes

    async def _carry_out(self, plan: list[tuple[int, str]]) -> None:
        start = self._bytes()
        for after, kind in plan:
            while self._bytes() < start + after:
                await asyncio.sleep(0.001)
            await self._fault(kind)

    async def _answer(self, request: dict[str, Any]) -> Any:
        match request["do"]:
            case "fault":
                await self._fault(request["kind"])
            case "plan":
                self._planned = asyncio.create_task(self._carry_out(request["plan"]))
            case "up":
                await self.up()
            case "shape":
                self._shape(request["way"], request["delay"], request["trickle"], request["slice"])
            case "freeze":
                self._proxy.stall()
            case "thaw":
                self._proxy.resume()
        return {
            "forwarded": self._bytes(),
            "accepted": self._proxy.accepted,
            "active": self._proxy.connections,
            "faults": self._faults,
        }

    async def serve(self) -> None:
        """Listen, say so, then answer requests until standard input ends."""
        await self.up()
        print(json.dumps({}), flush=True)
        requests = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
        while line := await requests.readline():
            print(json.dumps(await self._answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    upstream, address = (sys.argv[1], int(sys.argv[2])), (sys.argv[3], int(sys.argv[4]))
    uvloop.run(FaultProxyProgram(upstream, address).serve())
