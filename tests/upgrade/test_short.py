"""Upgrades when something is short: descriptors at either process, disk, memory, and a successor's time. What fails
leaves each flow where it was; what does not loses nothing."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.peer import Both, Peer, byte_exact, run_flow
from support.script import Gates
from support.successor import OperatedAgent, OperatedHub
from support.topology import Topology
from support.until import until, wait_until
from support.upgrading import TO_CLIENT, TO_SERVICE, Steady, conversation

MIB = 1 << 20
LEAST = 16 * MIB  # of limits.memory_bytes
FLOWS = 100  # more than a successor that is short of descriptors has room for
FAILED = frozenset({"upgrade_failed", "upgrade_taken_back"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Topology]:
    """A hub and an agent that no upgrade of these tests replaces."""
    directory = tmp_path_factory.mktemp("short")
    topology = Topology(directory, {"peer": peer.address}, make_hub=OperatedHub, make_agent=OperatedAgent)
    yield topology
    topology.close()


@pytest.fixture(params=["hub", "agent"])
def of(request: pytest.FixtureRequest, made: Topology) -> OperatedHub | OperatedAgent:
    return made.hub if request.param == "hub" else made.agent


def fails(of: OperatedHub | OperatedAgent, fault: str) -> str:
    """Why an upgrade has failed."""
    mark = of.log.mark()
    of.plant(fault)
    of.program.signal(signal.SIGUSR2)
    reason: str = of.log.wait("upgrade_failed", after=mark)["reason"]
    of.plant("")
    return reason


async def unharmed(made: Topology, peer: Peer, of: OperatedHub | OperatedAgent, fault: str) -> str:
    """Why an upgrade failed, under many flows that all went on afterwards."""
    gates, gate = Gates(), f"go {peer.next_seed()}"

    running = [asyncio.create_task(conversation(peer, made.address("peer"), gates, gate)) for _ in range(FLOWS)]
    await until(lambda: made.hub.status()["flows"]["active"] == FLOWS, "all are open")
    reason = await asyncio.to_thread(fails, of, fault)
    gates["go"].set()
    peer.open_gate(gate)
    for both in await asyncio.gather(*running):
        assert both.client.error is None and both.service.error is None, both
        byte_exact(both.service, TO_SERVICE)
        byte_exact(both.client, TO_CLIENT)
    return reason


def test_a_successor_without_descriptors_enough_says_so_first(
    made: Topology, peer: Peer, of: OperatedHub | OperatedAgent
) -> None:
    reason = asyncio.run(unharmed(made, peer, of, "has few descriptors"))
    assert "it may have 120 descriptors, and needs 13" in reason


def test_a_successor_that_gets_no_tunnel_is_none(made: Topology, peer: Peer) -> None:
    """The token is the next one, and nobody has looked at it yet."""
    agent = made.agent
    token = agent.token_file.read_text()
    agent.token_file.write_text(f"{token.rpartition('.')[0]}.{'A' * 43}")
    reason = asyncio.run(unharmed(made, peer, agent, ""))
    agent.token_file.write_text(token)
    assert "it got no tunnel" in reason and "http_401" in reason


@pytest.mark.parametrize("from_", ["serving", "dialled"])
def test_a_successor_whose_descriptors_run_out_takes_nothing(made: Topology, peer: Peer, from_: str) -> None:
    of = made.hub if from_ == "serving" else made.agent
    asyncio.run(unharmed(made, peer, of, f"has no descriptors left from {from_}"))


def test_a_predecessor_without_descriptors_for_a_pair(
    made: Topology, peer: Peer, of: OperatedHub | OperatedAgent
) -> None:
    pid = of.program.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with Steady(peer, made.address("peer")) as transfer:
        transfer.wait_under_way()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")), hard))
        try:
            assert "Too many open files" in fails(of, "")
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        transfer.wait_moved(1)


def test_a_full_disk_and_less_memory_than_before(tmp_path: Path, peer: Peer) -> None:
    """Nobody can write a line of its log any more, and the new file allows less than what is held."""
    made = Topology(tmp_path, {"peer": peer.address}, make_hub=OperatedHub, make_agent=OperatedAgent)
    both_kinds = made.hub, made.agent
    gates = Gates()

    async def flow() -> Both:
        return await run_flow(
            peer,
            made.address("peer"),
            client=[["wait", "go"], ["drain"], ["fin"]],
            service=[["send", MIB], ["fin"], ["drain"]],
            gates=gates,
            receive_buffer=8192,
        )

    async def scenario() -> list[Both]:
        running = [asyncio.create_task(flow()) for _ in range(FLOWS)]
        await until(lambda: made.hub.status()["memory"]["held_bytes"] > LEAST, "much is held")
        made.hub.write_config({**made.hub.config, "limits": {"memory_bytes": LEAST}})
        for of in both_kinds:
            size = os.path.getsize(of.log.path)
            resource.prlimit(of.program.pid, resource.RLIMIT_FSIZE, (size, size))
            done = await asyncio.to_thread(of.upgrade)
            assert done.returncode == 0, done
            assert os.path.getsize(of.log.path) == size
        assert made.hub.status()["memory"]["budget_bytes"] == LEAST
        gates["go"].set()
        return await asyncio.gather(*running)

    try:
        with Steady(peer, made.address("peer")) as transfer:
            transfer.wait_under_way()
            seen = asyncio.run(scenario())
            transfer.wait_moved(1)
        whole = [both for both in seen if both.client.error is None]
        for both in whole:
            byte_exact(both.client, MIB)
        wait_until(lambda: made.hub.status()["flows"]["active"] == 0, "all have ended")
        closed = made.hub.status()["flows"]["closed"]
        assert closed == {"closed": len(whole) + 1, "overloaded": FLOWS - len(whole)}, "as ever when memory is spent"
        assert [of.stop() for of in both_kinds] == [0, 0]
    finally:
        made.close()
