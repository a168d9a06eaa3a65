"""Who is told to end in the middle of an upgrade ends with its successor, which drains; and what a supervisor learns
when a successor dies early."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.peer import Peer
from support.successor import OperatedAgent, OperatedHub
from support.topology import Topology
from support.until import wait_until
from support.upgrading import Steady

Make = Callable[[str], tuple[Topology, OperatedHub | OperatedAgent]]


@pytest.fixture
def make(tmp_path: Path, peer: Peer) -> Iterator[Make]:
    """A hub and an agent, one of which is to be upgraded."""
    made: list[Topology] = []

    def of(which: str) -> tuple[Topology, OperatedHub | OperatedAgent]:
        operated = {"make_hub": OperatedHub} if which == "hub" else {"make_agent": OperatedAgent}
        topology = Topology(tmp_path, {"peer": peer.address}, **operated)
        made.append(topology)
        return topology, topology.hub if which == "hub" else topology.agent  # type: ignore[return-value]

    yield of
    for topology in made:
        topology.close()


@pytest.mark.parametrize(("which", "phase"), [("hub", "serving"), ("hub", "taken"), ("agent", "taken")])
def test_while_it_hands_over(make: Make, peer: Peer, which: str, phase: str) -> None:
    """The transfer comes to its end in the successor, which then ends in order; so does the process that was told."""
    made, of = make(which)
    with Steady(peer, made.address("peer")) as transfer:
        transfer.wait_under_way()
        of.plant(f"waits before {phase}")
        of.program.signal(signal.SIGUSR2)
        successor = of.log.wait("upgrade_started")["pid"]
        wait_until((made.directory / f"waits.{successor}").exists, "the successor to come to it")
        of.program.signal(signal.SIGTERM)
        of.plant("")
        of.log.wait("draining")
    assert of.program.wait() == 0
    assert not Path(f"/proc/{successor}").exists()
    assert of.log.events("upgrade_failed") == []


def test_an_agent_while_its_successor_starts(make: Make) -> None:
    _, of = make("agent")
    of.plant("is silent")
    of.program.signal(signal.SIGUSR2)
    successor = of.log.wait("upgrade_started")["pid"]
    of.program.signal(signal.SIGTERM)
    assert of.program.wait() == 0
    assert not Path(f"/proc/{successor}").exists()
    failed = of.log.wait("upgrade_failed")
    assert "told to end" in failed["reason"] and failed["detail"] == "this process ends, as it was told"


def test_a_successor_that_dies_before_its_predecessor_has_ended(make: Make) -> None:
    """Its code is what the supervisor learns: nobody serves."""
    made, of = make("hub")
    of.plant("waits before main")
    of.program.signal(signal.SIGUSR2)
    successor = of.log.wait("upgraded")["pid"]
    wait_until((made.directory / f"waits.{of.program.pid}").exists, "the predecessor to be about to part")
    os.kill(successor, signal.SIGKILL)
    of.plant("")
    assert of.program.wait() == 128 + signal.SIGKILL
