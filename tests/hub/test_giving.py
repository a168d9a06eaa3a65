"""The predecessor's side of an upgrade, with a successor that says what the test has it say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.ports import free_port
from hub.doors import key, run
from hub.rooms import Rooms
from ncfast._frames import FrameType
from ncfast.config.hub import HubConfig
from ncfast.hub.client import ClientFlow
from ncfast.hub.giving import Giving
from ncfast.hub.hub import Hub
from ncfast.hub.taking import Heritage
from ncfast.net.channel import Channel, Message
from ncfast.net.seam import Net


class Successor:
    """Takes everything, and keeps nothing open."""

    def __init__(self, net: Net) -> None:
        ours, theirs = net.pair()
        self.heard: list[str] = []
        self.given = Channel(net, ours, lambda message: None, lambda reason: None)
        self._channel = Channel(net, theirs, self._hear, lambda reason: None)

    def _hear(self, message: Message) -> None:
        message.close()
        self.heard.append(message.kind)
        answer = {"heritage": "serving", "over": "done"}.get(message.kind)
        if answer is not None:
            self._channel.send(answer, {})


CONFIG = {
    "edge": {"bind": "127.0.0.1:0"},
    "admin": {"bind": "127.0.0.1:0"},
    "listeners": [{"name": "ldap", "bind": "127.0.0.1:0", "connector": "ldap"}],
}


def test_who_has_handed_over_listens_no_more(tmp_path: Path) -> None:
    """It may linger over last bytes for long: if the successor is gone by then, clients are to be refused, and the
    next process is to have the ports."""

    async def scene() -> None:
        net = Net(asyncio.get_running_loop())
        config = HubConfig.model_validate(CONFIG)
        hub = Hub(config, key(tmp_path), net)
        await hub.start()
        places = [hub.listeners["ldap"].address, hub.edge.address, hub.admin_address]
        successor = Successor(net)
        await hub.hand_over(successor.given)
        assert "over" in successor.heard
        for place in places:
            host, _, port = place.rpartition(":")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, int(port))
        await hub.stop()

    run(scene)


def test_agents_wait_until_a_successor_serves(tmp_path: Path) -> None:
    """Whoever comes while it is on its way there is not told that it starts, but waits in the kernel's queue."""

    async def scene() -> None:
        net = Net(asyncio.get_running_loop())
        heritage = Heritage("hub", b"12345678", 5, {"agents": []}, [], [])
        hub = Hub(HubConfig.model_validate(CONFIG), key(tmp_path), net, heritage=heritage)
        start, asked = hub.admin.start, asyncio.Event()
        answer: list[bytes] = []

        async def ask() -> None:
            host, _, port = hub.edge.address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /tunnel HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
            asked.set()
            answer.append(await reader.read())
            writer.close()

        async def ask_and_start(*arguments: Any) -> None:
            asking.append(asyncio.create_task(ask()))
            await asked.wait()
            for _ in range(20):  # turns of the loop, in which it would be answered
                await asyncio.sleep(0)
            await start(*arguments)

        asking: list[asyncio.Task[None]] = []
        hub.admin.start = ask_and_start  # type: ignore[method-assign]
        await hub.start()
        await asking[0]
        assert not answer[0].startswith(b"HTTP/1.1 503"), answer
        await hub.stop()

    run(scene)


@pytest.mark.parametrize("later", [False, True], ids=["before it was here", "since"])
def test_a_flow_that_its_agent_asks_for_elsewhere_leaves_its_tunnel(later: bool) -> None:
    """Which another process of the agent may have left, or one that stands still: nobody would let go of it."""
    rooms = Rooms()
    agent = rooms.agent()
    client = rooms.client()
    agent.accept(agent.only(FrameType.M_OPEN))
    passed: list[ClientFlow] = []
    channel = SimpleNamespace(send=lambda *words, **more: None)
    passing = SimpleNamespace(flow=passed.append)
    giving = Giving(SimpleNamespace(ground=rooms.ground, net=rooms.net, passing=passing), channel)  # type: ignore[arg-type]
    giving._successor.heard["serving"] = {}
    giving.moved_on(client.flow.cid, agent.session.epoch + later)
    rooms.run()
    assert client.flow.attached is not later and passed == [client.flow] * later
    giving.moved_on(b"?" * 16, 1 << 40)  # of one that is over


def test_a_successor_opens_its_mesh_once(tmp_path: Path) -> None:
    """A reload comes while it is about to: the name where it listens is looked up."""

    async def scene() -> None:
        net, jwt = Net(asyncio.get_running_loop()), key(tmp_path)
        secret = tmp_path / "mesh.secret"
        secret.write_text("s" * 40)
        mesh = {"listen": f"localhost:{free_port()}", "require_mtls": False, "secret_file": str(secret)}
        ha = {"enabled": True, "mode": "active", "replica_id": "hub", "mesh": mesh}
        config = HubConfig.model_validate({**CONFIG, "ha": ha})
        heritage = Heritage("hub", b"12345678", 5, {"agents": []}, [], [])
        hub = Hub(config, jwt, net, heritage=heritage)
        await hub.start()
        assert hub.ways.mesh is None and hub.ways.active
        await asyncio.gather(hub.join_mesh(), hub.reload(config, jwt))
        assert hub.ways.mesh is not None and hub.ways.active
        await hub.stop()

    run(scene)
