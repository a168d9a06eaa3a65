"""An upgrade's watch over the successor: a real process that comes to be ready, and then says nothing more."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from support.until import until

from ncfast.core.errors import NcfastError
from ncfast.core.record import FORMAT
from ncfast.net.channel import Channel
from ncfast.net.seam import Net
from ncfast.observe.log import Logger
from ncfast.serve.heir import Heir
from ncfast.serve.process import network
from ncfast.serve.upgrade import Upgrading

# says `ready` as `ncfast.net.channel` has it, and stands still
SUCCESSOR = f"""
import json, os, socket, struct, time
said = json.dumps(["ready", {{"formats": [{FORMAT}], "version": "4711"}}]).encode()
with socket.socket(fileno=int(os.environ["NCFAST_HANDOVER"])) as channel:
    channel.sendall(struct.pack("<III", len(said), 0, 0) + said)
    time.sleep(3600)
"""


MORTAL = SUCCESSOR.replace("time.sleep(3600)", "pass")
SILENT_SEC = 0.2
STANDING = {"id": "4711", "state": "passing", "reason": ""}


class Gone(NcfastError):
    """As of a hub whose successor has gone."""


class Waiting:
    """What is handed over, of which the successor never says that it has it."""

    failed = False

    async def hand_over(self, channel: Channel) -> None:
        gone = asyncio.Event()
        channel.on_closed = lambda reason: gone.set()
        await gone.wait()
        raise Gone("the far end has closed")

    async def linger(self) -> None:
        raise AssertionError("it was not handed over")

    def upgrade_failed(self) -> None:
        self.failed = True


class Deaf:
    """Takes over, and does nothing with it."""

    def take_over(self, channel: Channel) -> None:
        channel.on_message = channel.on_closed = lambda said: None


async def following(net: Net) -> tuple[Channel, Heir]:
    """The predecessor's end of a hand-over, and what it hands over to, which has bound everything."""
    ours, theirs = net.pair()
    before = Channel(net, ours, lambda message: None, lambda reason: None)
    heir = Heir(net, theirs.detach())
    before.send("upgrade", {"has_parent": False, **STANDING})
    before.send("heritage", {})
    await heir.heritage()
    heir.take_over(Deaf())
    return before, heir


def test_a_successor_that_stands_still_is_ended() -> None:
    async def scenario() -> None:
        subject = Waiting()
        upgrading = Upgrading(network(), subject, lambda: patience(), None, False)

        def patience() -> float:
            return SILENT_SEC if upgrading.standing()["state"] == "passing" else 600

        upgrading._command = [sys.executable, "-c", SUCCESSOR]
        upgrading.begin()
        await until(lambda: upgrading.standing()["state"] == "failed", "it to be given up")
        assert "nothing was heard of it for 0.2 s (upgrade.timeout_sec)" in upgrading.standing()["reason"]
        assert subject.failed

    asyncio.run(scenario())


def test_a_successor_that_dies_as_soon_as_it_is_ready_is_not_waited_for() -> None:
    async def scenario() -> None:
        upgrading = Upgrading(network(), subject := Waiting(), lambda: patience(), None, False)

        def patience() -> float:
            assert upgrading._child is not None
            upgrading._child.wait()  # so that its word and its end are there at once
            return 600

        upgrading._command = [sys.executable, "-c", MORTAL]
        upgrading.begin()
        await until(lambda: upgrading.standing()["state"] == "failed", "it to be given up")
        assert subject.failed

    asyncio.run(scenario())


def test_once_it_has_handed_over_a_reload_is_the_successors(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        net, heard, told = network(), [], []
        monkeypatch.setattr(Logger, "_emit", lambda logger, level, *what: told.append(what))
        ours, theirs = net.pair()
        upgrading = Upgrading(net, Waiting(), lambda: 1.0, None, False)
        assert not await upgrading.reload()
        upgrading._channel = Channel(net, ours, lambda message: None, lambda reason: None)
        Channel(net, theirs, lambda message: heard.append(message.kind), lambda reason: None)
        upgrading._child = subprocess.Popen([sys.executable, "-c", ""])
        upgrading.handed_over.set()
        assert await upgrading.reload(), "or it would open its doors again"
        await until(lambda: heard == ["reload"], "the successor is told")
        upgrading._channel.close()
        assert await upgrading.reload()
        assert told == [("reload_ignored", {"detail": f"process {upgrading.pid} is the one that serves now"})]
        upgrading._child.wait()

    asyncio.run(scenario())


def test_a_reload_waits_until_all_has_come_from_the_predecessor() -> None:
    """Until then that listens wherever we do."""

    async def scenario() -> None:
        net = network()
        before, heir = await following(net)
        upgrading = Upgrading(net, Waiting(), lambda: 1.0, heir, False)
        reload = asyncio.create_task(upgrading.reload())
        before.send("over", {})
        await until(lambda: heir.standing["state"] == "done", "its last word")
        assert not reload.done() and not heir.over.is_set()
        before.send("main", {})
        before.close()
        assert await reload is False and heir.over.is_set()
        await net.cancel_all()

    asyncio.run(scenario())


def test_a_successor_is_not_upgraded_before_its_predecessor_is_over() -> None:
    """That may not have told the supervisor yet who is the main process, and would name one that has gone."""

    async def scenario() -> None:
        net = network()
        before, heir = await following(net)
        upgrading = Upgrading(net, subject := Waiting(), lambda: 600, heir, False)
        upgrading._command = [sys.executable, "-c", MORTAL]
        before.send("over", {})
        await until(lambda: upgrading.standing()["state"] == "done", "its last word")
        assert upgrading.begin()["state"] == "starting"
        for _ in range(10):
            await asyncio.sleep(0)
        assert upgrading._child is None
        before.send("main", {})
        before.close()
        await until(lambda: upgrading.standing()["state"] == "failed", "it to go on, as far as it goes here")
        assert subject.failed
        await net.cancel_all()

    asyncio.run(scenario())


def test_an_end_that_is_asked_for_in_the_moment_of_the_hand_over_is_the_successors() -> None:
    """The signal was taken while all was ours, and is looked at when all is the successor's."""

    async def scenario() -> None:
        net, heard = network(), []
        ours, theirs = net.pair()
        upgrading = Upgrading(net, Waiting(), lambda: 1.0, None, False)
        upgrading._channel = Channel(net, ours, lambda message: None, lambda reason: None)
        Channel(net, theirs, lambda message: heard.append((message.kind, message.body)), lambda reason: None)
        asked, upgrading.at_once = asyncio.Event(), True
        ended = asyncio.create_task(upgrading.until(asked))
        await asyncio.sleep(0)
        asked.set()
        upgrading.handed_over.set()
        assert await ended
        await until(lambda: heard == [("stop", {"at_once": True})], "the successor is told")
        upgrading._channel.close()

    asyncio.run(scenario())
