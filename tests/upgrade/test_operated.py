"""`ncfast upgrade`, SIGUSR2 and what else an operator does to a hub that is upgraded; real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.cluster import Cluster
from support.peer import Peer, byte_exact, run_flow
from support.successor import OperatedHub, operate
from support.topology import Topology
from support.until import wait_until
from support.upgrading import Steady

FAILED = "upgrade_failed"


@pytest.fixture
def hub(request: pytest.FixtureRequest, tmp_path: Path, peer: Peer) -> Iterator[Topology]:
    options = getattr(request, "param", {})
    made = Topology(tmp_path, {"peer": peer.address}, make_hub=OperatedHub, **options)
    made.hub.expected_errors = frozenset({FAILED, "upgrade_taken_back"})
    yield made
    made.close()


def serves(hub: Topology, peer: Peer) -> None:
    """A client that comes now gets its bytes."""
    script = [["send", 10], ["fin"], ["drain"]]
    both = asyncio.run(run_flow(peer, hub.address("peer"), seed=peer.next_seed(), client=script, service=script))
    byte_exact(both.client, 10)


def state(hub: OperatedHub) -> dict[str, Any]:
    return json.loads(hub.get("/upgrade/state", admin=True)[1])


def test_one_upgrade_after_another_under_a_transfer(hub: Topology, peer: Peer) -> None:
    pids = [hub.hub.status()["pid"]]
    assert pids == [hub.hub.program.pid]
    with Steady(peer, hub.address("peer")) as transfer:
        transfer.wait_under_way()
        for _ in range(3):
            done = hub.hub.upgrade()
            assert done.returncode == 0 and done.stdout.startswith("upgraded in "), done.stderr
            pids.append(hub.hub.status()["pid"])
            transfer.wait_moved(1)
    assert len(set(pids)) == 4 and hub.hub.program.exit_code() is None
    for pid in pids[1:-1]:
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "the predecessor to end, and to be reaped")
    assert hub.hub.log.events(FAILED) == []
    serves(hub, peer)
    assert hub.hub.stop() == 0, "its parent ends with the last one's code"


def test_signals_reach_the_process_that_serves(hub: Topology) -> None:
    ours, mark = hub.hub, hub.hub.log.mark()
    ours.program.signal(signal.SIGUSR2)
    ours.log.wait("upgraded", after=mark)
    wait_until(lambda: ours.status()["pid"] != ours.program.pid, "the successor to answer")
    mark = ours.log.mark()
    ours.program.signal(signal.SIGUSR2)
    pid = ours.log.wait("upgraded", after=mark)["pid"]
    wait_until(lambda: ours.status()["pid"] == pid, "the second to answer")
    mark = ours.log.mark()
    ours.program.signal(signal.SIGHUP)
    ours.log.wait("config_reloaded", after=mark)
    os.kill(pid, signal.SIGKILL)
    assert ours.program.wait() == 128 + signal.SIGKILL


def test_the_end_of_a_successor_is_seen_while_its_predecessor_is_not_gone(hub: Topology) -> None:
    ours = hub.hub
    assert ours.upgrade().returncode == 0
    frozen, mark = ours.status()["pid"], ours.log.mark()
    ours.plant("is frozen before main")
    ours.program.signal(signal.SIGUSR2)
    pid = ours.log.wait("upgraded", after=mark)["pid"]
    wait_until(lambda: " T " in Path(f"/proc/{frozen}/stat").read_text(), "the predecessor to be frozen")
    os.kill(pid, signal.SIGKILL)
    os.kill(frozen, signal.SIGCONT)
    assert ours.program.wait() == 128 + signal.SIGKILL


WRONG = {
    "dies at once": "it ended with exit code 3",
    "dies before ready": "it ended with exit code 3",
    "dies after ready": "it ended with exit code 3",
    "dies before serving": "it ended with exit code 3",
    "speaks another format": "ncfast 0.0.1 does not read what this release hands over (format 1): drain",
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_successor_that_fails_changes_nothing(hub: Topology, peer: Peer, fault: str) -> None:
    ours = hub.hub
    with Steady(peer, hub.address("peer")) as transfer:
        transfer.wait_under_way()
        ours.plant(fault)
        done = ours.upgrade()
        assert done.returncode == 1 and "the old process goes on: " in done.stderr and WRONG[fault] in done.stderr
        transfer.wait_moved(1)
        assert ours.status()["pid"] == ours.program.pid
        ours.plant("")
        assert ours.upgrade().returncode == 0
        transfer.wait_moved(1)


@pytest.mark.parametrize("hub", [{"hub": {"upgrade": {"timeout_sec": 2}}}], indirect=True)
@pytest.mark.parametrize("fault", ["is silent", "says nothing of serving"])
def test_a_successor_that_is_silent_is_ended(hub: Topology, peer: Peer, fault: str) -> None:
    hub.hub.plant(fault)
    done = hub.hub.upgrade()
    assert done.returncode == 1 and "within 2 s (upgrade.timeout_sec)" in done.stderr, done.stderr
    pid = hub.hub.log.wait("upgrade_started")["pid"]
    assert not Path(f"/proc/{pid}").exists()
    serves(hub, peer)


def test_a_configuration_with_mistakes_takes_nothing_down(hub: Topology, peer: Peer) -> None:
    hub.hub.config_path.write_text("listeners: 7\n")
    done = hub.hub.upgrade()
    assert done.returncode == 1 and "its configuration was refused (exit code 78)" in done.stderr, done.stderr
    serves(hub, peer)
    hub.hub.write_config(hub.hub.config)
    assert hub.hub.upgrade().returncode == 0


def test_a_second_upgrade_during_the_first_is_refused(hub: Topology) -> None:
    ours = hub.hub
    ours.plant("is silent")
    ours.program.signal(signal.SIGUSR2)
    child = ours.log.wait("upgrade_started")["pid"]
    done = ours.upgrade()
    assert done.returncode == 1 and "an upgrade is under way" in done.stderr
    assert state(ours)["state"] == "starting"
    os.kill(child, signal.SIGKILL)
    assert "signal" not in ours.log.wait(FAILED)["reason"]
    assert state(ours)["state"] == "failed"


def test_none_begins_before_the_hub_serves(tmp_path: Path, peer: Peer) -> None:
    """It waits for Redis, and would open its doors in the middle of the hand-over."""
    slow = {"ha": {"redis_timeout_sec": 10}}
    options = {"names": ("hub-a",), "agents": False, "hub": slow, "make_hub": OperatedHub}
    with closing(Cluster(tmp_path, {"peer": peer.address}, **options)) as made, ThreadPoolExecutor(1) as beside:
        hub = made.hubs["hub-a"]
        assert hub.stop() == 0 and made.redis is not None
        made.redis.freeze()
        mark = hub.log.mark()
        starts = beside.submit(hub.start)
        try:
            wait_until(lambda: hub.log.events("mesh_ready", after=mark), "it to be bound")
            hub.program.signal(signal.SIGUSR2)
            answer = wait_until(
                lambda: hub.log.events("upgrade_refused", after=mark) or hub.log.events("upgrade_started", after=mark),
                "an answer",
            )
        finally:
            made.redis.thaw()
        assert answer[0].get("reason") == "the hub does not serve yet"
        starts.result()
        assert hub.upgrade().returncode == 0
        assert hub.stop() == 0


def test_who_is_told_to_end_while_a_successor_starts_ends_with_it(hub: Topology) -> None:
    ours = hub.hub
    ours.plant("is silent")
    ours.program.signal(signal.SIGUSR2)
    child = ours.log.wait("upgrade_started")["pid"]
    ours.program.signal(signal.SIGTERM)
    assert ours.program.wait() == 0
    assert not Path(f"/proc/{child}").exists()
    assert "told to end" in ours.log.wait(FAILED)["reason"]


def test_a_process_that_nobody_has_summoned_gets_nothing(tmp_path: Path) -> None:
    config = tmp_path / "hub.yaml"
    key = tmp_path / "key"
    key.write_text("k" * 32)
    config.write_text(f"{{listeners: [], auth: {{jwt: {{algorithms: [HS256], key_file: {key}}}}}}}")
    os.environ["NCFAST_HANDOVER"] = "0"
    try:
        done = operate("hub", "--config", str(config), directory=tmp_path)
    finally:
        del os.environ["NCFAST_HANDOVER"]
    assert done.returncode == 1 and "does not name a socket of the process that has started this one" in done.stderr
