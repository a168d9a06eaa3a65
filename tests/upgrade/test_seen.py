"""What people see of an agent that is upgraded: how far it is, and an admin edge that answers all the time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.peer import Peer
from support.successor import OperatedAgent
from support.topology import Topology
from support.until import wait_until
from support.upgrading import Steady

from ncfast.cli import standing
from ncfast.observe import adminclient


@pytest.fixture
def made(tmp_path: Path, peer: Peer) -> Iterator[Topology]:
    topology = Topology(tmp_path, {"peer": peer.address}, make_agent=OperatedAgent)
    yield topology
    topology.close()


class Asking:
    """Asks again and again; `failed` says what was not answered."""

    def __init__(self, url: str) -> None:
        self.answers = 0
        self.failed: list[str] = []
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                adminclient.status(self._url, "agent")
                self.answers += 1
            except Exception as error:
                self.failed.append(str(error))

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()


def test_the_admin_edge_answers_all_the_time(made: Topology) -> None:
    agent = made.agent
    port = agent.log.wait("admin_ready")["admin"]
    with Asking(f"unix:{agent.socket}") as one, Asking(f"http://{port}") as other:
        for _ in range(2):
            before = one.answers, other.answers
            assert agent.upgrade().returncode == 0
            wait_until(lambda before=before: one.answers > before[0] and other.answers > before[1], "answers")
    assert (one.failed, other.failed) == ([], [])


def test_how_far_it_is(made: Topology, peer: Peer) -> None:
    agent, at = made.agent, f"unix:{made.agent.socket}"
    agent.expected_errors = frozenset({"upgrade_failed", "upgrade_taken_back"})
    assert adminclient.status(at, "agent")["upgrade"] is None
    with Steady(peer, made.address("peer")) as transfer:
        transfer.wait_under_way()
        agent.plant("says nothing of dialled")
        agent.program.signal(signal.SIGUSR2)
        former = agent.program.pid
        status = wait_until(
            lambda: (now := adminclient.status(at, "agent"))["pid"] != former and now, "the successor to answer"
        )
        assert status["upgrade"].pop("seconds") >= 0
        assert status["upgrade"] == {"role": "taking", "passed": 0, "longest_pause_sec": 0.0, "left": {"flows": 1}}
        assert "upgrade 0 flows have passed, 1 are left at the former process" in standing.render(status)
        transfer.wait_moved(1)
