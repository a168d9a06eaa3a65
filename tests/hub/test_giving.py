"""The predecessor's side of an upgrade, with a successor that says what the test has it say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hub.doors import key, run
from ncfast.config.hub import HubConfig
from ncfast.hub.hub import Hub
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


def test_who_has_handed_over_listens_no_more(tmp_path: Path) -> None:
    """It may linger over last bytes for long: if the successor is gone by then, clients are to be refused, and the
    next process is to have the ports."""

    async def scene() -> None:
        net = Net(asyncio.get_running_loop())
        config = HubConfig.model_validate(
            {
                "edge": {"bind": "127.0.0.1:0"},
                "admin": {"bind": "127.0.0.1:0"},
                "listeners": [{"name": "ldap", "bind": "127.0.0.1:0", "connector": "ldap"}],
            }
        )
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
