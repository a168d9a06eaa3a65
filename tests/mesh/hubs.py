"""A hub as far as its mesh knows it, and what to wait for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from support.until import PATIENCE, SCENARIO_SEC, until

from ncfast.config.hub import HubConfig
from ncfast.core.context import FlowContext
from ncfast.mesh.manager import Mesh
from ncfast.mesh.peer import Peer
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.seam import Net
from ncfast.observe.stats import Stats

FAST = {"ping_interval_sec": 0.1, "ping_timeout_sec": PATIENCE, "connect_backoff_max_sec": 0.2}
TICK = 0.05
SECRET = str(Path(__file__).parents[1] / "support" / "mesh.secret")


def run(main: Callable[[], Coroutine[Any, Any, None]], timeout: float = SCENARIO_SEC) -> None:
    """`main()` on the product's loop."""
    defects: list[dict[str, Any]] = []

    def on_error(loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")  # aiofastnet 1.2 passes a bare ConnectionResetError; see serve.py
        if not issubclass(error if isinstance(error, type) else type(error), OSError):
            defects.append(context)

    async def limited() -> None:
        asyncio.get_running_loop().set_exception_handler(on_error)
        async with asyncio.timeout(timeout):
            await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())
    assert not defects


class Hub:
    """PeerHost that writes down what it is told."""

    def __init__(
        self,
        name: str,
        mesh: dict[str, Any] | None = None,
        *,
        cluster: str = "ncfast",
        instance: bytes | None = None,
        net: Net | None = None,
    ) -> None:
        self.net = net or Net(asyncio.get_running_loop(), rng=random.Random())
        self.replica_id = name
        self.instance = instance or self.net.entropy(8)
        proof = {} if "tls" in (mesh or {}) else {"secret_file": SECRET}
        self.config = HubConfig.model_validate(
            {
                "listeners": [],
                "auth": {"jwt": {"key_file": "unused"}},
                "ha": {
                    "enabled": True,
                    "mode": "active",
                    "replica_id": name,
                    "cluster": cluster,
                    "mesh": FAST | {"listen": "127.0.0.1:0", "require_mtls": False} | proof | (mesh or {}),
                },
            }
        )
        self.stats = Stats()
        self.context = FlowContext(self.net.clock, budget=1 << 28, window_initial=65536, window_max=1 << 20, seed=1)
        self.context.owner = self
        self.receive_buffer = ReceiveBuffer()
        self.events: list[tuple[Any, ...]] = []
        self.mesh = Mesh(self, self)
        self._timer: asyncio.TimerHandle | None = None

    # PeerHost

    def peer_up(self, peer: Peer) -> None:
        assert self.mesh.peer(peer.replica_id) is peer
        self.events.append(("up", peer.replica_id))

    def peer_down(self, peer: Peer, reason: Any) -> None:
        self.events.append(("down", peer.replica_id, reason.label))

    def mesh_open(self, peer: Peer, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        self.events.append(("open", peer.replica_id, cid, epoch, limit, body))

    def mesh_resume(self, peer: Peer, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> bool:
        self.events.append(("resume", peer.replica_id, cid, epoch, payload))
        return False

    def mesh_stale(self, peer: Peer, cid: bytes, epoch: int) -> None:
        self.events.append(("stale", peer.replica_id, cid, epoch))

    # the test's

    async def start(self) -> Hub:
        await self.mesh.start()
        self._tick()
        return self

    def _tick(self) -> None:
        self._timer = self.net.call_later(TICK, self._tick)
        self.mesh.tick(self.net.clock())

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self.mesh.stop()
        await until(lambda: not self.net.sockets, f"{self.replica_id}: {self.net.sockets} connections left")
        assert not self.mesh.door.pending and not self.mesh._handshakes and not self.mesh._peers

    @property
    def port(self) -> int:
        return int(self.mesh.address.rpartition(":")[2])

    def linked(self, other: Hub | str) -> Peer | None:
        """The established link to another hub."""
        return self.mesh.peer(other if isinstance(other, str) else other.replica_id)

    def dial(self, *urls: str) -> None:
        """Replaces the list of peers, as a reload does."""
        mesh = self.mesh.config.model_copy(update={"peers": list(urls)})
        self.config = self.config.model_copy(update={"ha": self.config.ha.model_copy(update={"mesh": mesh})})
        self.mesh.configure(self.config)

    def reached_by(self, *urls: str) -> None:
        """Something stands in between at these URLs; call before others are dialled."""
        mesh = self.mesh.config.model_copy(update={"aliases": list(urls)})
        self.config = self.config.model_copy(update={"ha": self.config.ha.model_copy(update={"mesh": mesh})})
        self.mesh.configure(self.config)

    def refused(self) -> dict[str, int]:
        return dict(self.stats.mesh_refused)


@asynccontextmanager
async def hubs(*made: Hub):
    """Started hubs, stopped at the end, with nothing left over."""
    try:
        for hub in made:
            await hub.start()
        yield made
    finally:
        for hub in made:
            await hub.stop()


async def linked(*some: Hub) -> None:
    """Until there is one link for each pair, both ends agree, and it is the one that stays."""

    def settled() -> bool:
        for one in some:
            for other in some:
                if one is not other:
                    peer = one.linked(other)
                    if peer is None or peer.link.closed or peer.instance != other.instance:
                        return False
                    back = other.linked(one)
                    if back is None or back.dialled == peer.dialled:
                        return False
        return True

    await until(settled, "hubs linked")


def secret_file(path: Path, text: str = "0123456789abcdef" * 4) -> str:
    path.write_text(text)
    return str(path)
