"""The demo: its parts tell intact from damaged, and the whole of it plays, tidies up and says so."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.until import PATIENCE, SCENARIO_SEC

from ncfast.demo import upgrade
from ncfast.demo.children import Child, ChildEnded
from ncfast.demo.clients import Conversations, Transfer
from ncfast.demo.cluster import Standstill
from ncfast.demo.faultproxy import FaultProxy
from ncfast.demo.service import Service, stream
from ncfast.demo.view import View, progress, talk, verdict


def run(scenario):
    async def bounded():
        async with asyncio.timeout(PATIENCE), Service() as service:
            await scenario(service)

    asyncio.run(bounded())


def test_a_stream_is_reproducible_and_never_repeats():
    chunks = list(stream(7, 200_000))
    assert chunks == list(stream(7, 200_000)) != list(stream(8, 200_000))
    assert len(b"".join(chunks)) == 200_000 and len(set(chunks)) == len(chunks)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_transfer_is_intact_when_nothing_happens(direction):
    async def scenario(service):
        transfer = Transfer(direction, 300_001, seed=1)
        await transfer.run(service.address)
        assert transfer.intact and transfer.moved == 300_001
        assert "intact" in verdict(transfer) and "100%" in progress(transfer)

    run(scenario)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_transfer_that_is_cut_without_anybody_to_resume_it_is_not_intact(direction):
    async def scenario(service):
        async with FaultProxy(service.address) as proxy:
            transfer = Transfer(direction, 50_000_000, seed=1)
            running = asyncio.create_task(transfer.run(proxy.address))
            while transfer.moved < 1_000_000:
                await asyncio.sleep(0)
            proxy.cut()
            with pytest.raises(ConnectionError):
                await running
            assert not transfer.intact and "DIFFERENT" in verdict(transfer)

    run(scenario)


def test_conversations_notice_a_flow_that_breaks():
    async def scenario(service):
        async with FaultProxy(service.address) as proxy:
            conversations, stop = Conversations(3), asyncio.Event()
            talking = asyncio.create_task(conversations.run(proxy.address, stop))
            while conversations.round_trips < 6:
                await asyncio.sleep(0)
            assert "none lost" in talk(conversations)
            proxy.cut()
            await talking
            assert len(conversations.faults) == 3 and "3 FAILED" in talk(conversations)

    run(scenario)


def test_a_child_that_ends_is_told_with_its_last_words():
    async def scenario():
        async with asyncio.timeout(PATIENCE), Child("hub", "--config", "/nowhere/hub.yaml") as child:
            with pytest.raises(ChildEnded, match="(?s)the hub ended too early.*/nowhere/hub.yaml: cannot be read"):
                await child.event("hub_ready")
            with pytest.raises(ChildEnded):
                await child.ended()

    asyncio.run(scenario())


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_live_block_is_for_terminals_only():
    for out, live in ((io.StringIO(), False), (Terminal(), True)):
        view = View(out, lambda: ["block"])
        view.refresh()
        view.line("event")
        view.refresh()
        view.close()
        assert ("block" in out.getvalue()) == ("\x1b" in out.getvalue()) == live
        assert "event\n" in out.getvalue()


def test_a_child_may_be_any_program_and_be_frozen_and_killed():
    async def scenario():
        async with asyncio.timeout(PATIENCE):
            script = "echo ready; exec sleep 60"
            async with Child("-c", script, program=["sh"], name="sleeper") as child:
                await child.line("eady")
                child.signal(signal.SIGSTOP)  # it is ended all the same
            assert await child.exit_code() == -signal.SIGTERM
            async with Child("-c", script, program=["sh"], name="sleeper") as child:
                await child.line("eady")
                child.signal(signal.SIGKILL)
                assert await child.exit_code() == -signal.SIGKILL
                with pytest.raises(ChildEnded, match="(?s)the sleeper ended too early.*ready"):
                    await child.line("never")

    asyncio.run(scenario())


def test_the_longest_standstill_counts(monkeypatch):
    now = 0.0
    monkeypatch.setattr("ncfast.demo.cluster.time.monotonic", lambda: now)
    transfer = Transfer("up", 100, seed=1, moved=50)
    standstill = Standstill(transfer)
    for moment, transfer.moved in ((0.1, 50), (0.4, 60), (0.5, 60), (0.6, 70), (0.7, 100)):
        now = moment
        standstill.look()
    assert standstill.seconds == pytest.approx(0.4)


def test_without_redis_server_it_says_what_to_install():
    done = subprocess.run(
        [sys.executable, "-m", "ncfast", "demo", "--cluster"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PATH": "/nowhere"},
    )
    assert (done.returncode, done.stdout) == (69, "")
    assert "redis-server" in done.stderr and done.stderr.count("\n") == 1


SMALL = ("--size", "24", "--cuts", "2")

PATIENT = f"""
import sys
from ncfast.cli import program
from ncfast.demo import cluster, scenario, stage
stage.START_SEC = cluster.DEADLINE_SEC = scenario.Demo.deadline_sec = {PATIENCE}
sys.exit(program.main(sys.argv[1:]))
"""


def play(*arguments: str, **options) -> subprocess.Popen[str]:
    """A demo that gives up no earlier than a test does: some seconds are usual, on a machine without other work."""
    return subprocess.Popen(
        [sys.executable, "-c", PATIENT, "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_the_whole_demo_ends_by_itself_and_leaves_nothing_behind(tmp_path):
    with play(*SMALL, env={**os.environ, "TMPDIR": str(tmp_path)}) as demo:
        out, err = demo.communicate(timeout=SCENARIO_SEC)
    assert (demo.returncode, err) == (0, ""), out
    assert out.count("cut the tunnel") == out.count("tunnel is back") == 2
    assert out.count("intact") == 2 and "none lost or out of order" in out
    assert out.endswith("Nothing was lost, repeated or reordered.\n")
    assert "\x1b" not in out and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_stays_ends_well_by_a_signal(number):
    with play(*SMALL, "--stay") as demo:
        lines = []
        while "watch the hub" not in "".join(lines[-1:]):
            lines.append(demo.stdout.readline())
            assert lines[-1], "".join(lines)
        children = children_of(demo.pid)
        assert len(children) == 2
        demo.send_signal(number)
        assert demo.wait(PATIENCE) == 0
        assert not any(Path("/proc", child).exists() for child in children)


def test_a_demo_interrupted_half_way_reaps_its_children():
    with play("--size", "4000") as demo:
        while "traffic" not in demo.stdout.readline():
            assert demo.poll() is None
        children = children_of(demo.pid)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(PATIENCE) == 130
        assert len(children) == 2 and not any(Path("/proc", child).exists() for child in children)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_the_whole_demo_of_a_cluster(tmp_path):
    with play("--cluster", "--size", "24", env={**os.environ, "TMPDIR": str(tmp_path)}) as demo:
        out, err = demo.communicate(timeout=SCENARIO_SEC)
    assert (demo.returncode, err) == (0, ""), out
    assert out.count("intact") == 6 and out.count("bytes stood still for") == 3
    for word in ("killed", "frozen", "drained"):
        assert f"  owner {word}" in out
    assert "drained, exit code 0" in out and "none lost or out of order" in out
    assert out.endswith("Nothing was lost, repeated or reordered.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_a_demo_of_a_cluster_interrupted_half_way_reaps_its_children():
    with play("--cluster", "--size", "100") as demo:  # at the middle of it the first hub is killed, of three
        while "is killed" not in demo.stdout.readline():
            assert demo.poll() is None
        children = children_of(demo.pid)
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(PATIENCE) == 130
        assert len(children) >= 4 and not any(Path("/proc", child).exists() for child in children)


def test_the_demo_of_upgrades(monkeypatch):
    monkeypatch.setattr(upgrade, "EACH", 1)
    out = io.StringIO()
    assert asyncio.run(upgrade.run(out, megabytes=1, stay=False)), out.getvalue()
    said = out.getvalue()
    assert "the hub is process" in said and "the agent is process" in said and "  2 upgrades\n" in said
    assert " 0 of them not intact" in said and said.endswith("Nothing was lost, repeated or reordered.\n")
