"""The predecessor is killed in the middle of an upgrade: each flow is at exactly one of the two, or has ended for both
ends, and the successor serves."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.ncfast_process import ACCESS
from support.peer import Both, Peer, byte_exact, run_flow
from support.script import Gates
from support.successor import OperatedAgent, OperatedHub, second_generation
from support.topology import Topology
from support.until import until, wait_until
from support.upgrading import TO_CLIENT, TO_SERVICE, conversation

from ncfast.hub.giving import BATCH

FLOWS = 70  # more than one message of either has room for


@pytest.fixture(scope="module")
def hubs(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Topology]:
    """A hub whose successor is each test's next predecessor."""
    with closing(Topology(tmp_path_factory.mktemp("hubs"), {"peer": peer.address}, make_hub=OperatedHub)) as made:
        second_generation(made.hub)
        yield made


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Topology]:
    """The same of an agent."""
    with closing(Topology(tmp_path_factory.mktemp("agents"), {"peer": peer.address}, make_agent=OperatedAgent)) as made:
        second_generation(made.agent)
        yield made


def through(
    made: Topology, peer: Peer, of: OperatedHub | OperatedAgent, fault: str, told: str = "upgrade_cut"
) -> tuple[int, int]:
    """Flows that were open when the predecessor died in the middle of an upgrade: how many went on, byte by byte, and
    how many ended, for both ends."""
    gates = Gates()
    gate = f"go {peer.next_seed()}"

    async def scenario() -> list[Both]:
        running = [asyncio.create_task(conversation(peer, made.address("peer"), gates, gate)) for _ in range(FLOWS)]
        await until(lambda: made.hub.status()["flows"]["active"] == FLOWS, "all are open")
        mark = of.log.mark()
        of.plant(fault)
        of.program.signal(signal.SIGUSR2)
        started = await asyncio.to_thread(of.log.wait, "upgrade_started", after=mark)
        await asyncio.to_thread(of.log.wait, told, after=mark)
        of.plant("")
        gates["go"].set()
        peer.open_gate(gate)
        return [*await asyncio.gather(*running), started["pid"]]

    *seen, pid = asyncio.run(scenario())
    whole = [both for both in seen if both.client.error is None and both.service.error is None]
    for both in whole:
        byte_exact(both.service, TO_SERVICE)
        byte_exact(both.client, TO_CLIENT)
    for both in seen:
        assert both in whole or both.client.error is not None and both.service.error is not None, both
    both = asyncio.run(run_flow(peer, made.address("peer"), client=[["send", 10], ["fin"]], service=[["drain"]]))
    byte_exact(both.service, 10)
    assert of.program.exit_code() is None and Path(f"/proc/{pid}").exists(), "the successor serves"
    return len(whole), len(seen) - len(whole)


# the last that a predecessor does, and how many flows go on
OF_A_HUB = {
    "is killed after heritage": 0,
    "is killed after flows": BATCH,
    "is killed before over": FLOWS,
}


@pytest.mark.parametrize("fault", OF_A_HUB)
def test_a_hub(hubs: Topology, peer: Peer, fault: str) -> None:
    mark = hubs.agent.log.mark()
    whole, ended = through(hubs, peer, hubs.hub, fault)
    assert whole == OF_A_HUB[fault], (whole, ended)
    wait_until(lambda: len(hubs.agent.log.events(ACCESS, after=mark)) == FLOWS + 1, "all lines")
    reasons = Counter(line["reason"] for line in hubs.agent.log.events(ACCESS, after=mark))
    assert reasons == +Counter(closed=whole + 1, unknown_flow=ended)


OF_AN_AGENT = {
    "is killed after heritage": 0,
    "is killed after flows": 0,
    "is killed after commit": FLOWS,
}


@pytest.mark.parametrize("fault", OF_AN_AGENT)
def test_an_agent(agents: Topology, peer: Peer, fault: str) -> None:
    mark = agents.hub.log.mark()
    whole, ended = through(agents, peer, agents.agent, fault, "upgrade_done" if OF_AN_AGENT[fault] else "upgrade_cut")
    assert whole == OF_AN_AGENT[fault], (whole, ended)
    wait_until(lambda: len(agents.hub.log.events(ACCESS, after=mark)) == FLOWS + 1, "all lines")
    reasons = Counter(line["reason"] for line in agents.hub.log.events(ACCESS, after=mark))
    assert reasons == +Counter(closed=whole + 1, agent_restarted=ended)


@pytest.mark.parametrize("which", ["hub", "agent"])
def test_before_it_has_said_who_it_is(hubs: Topology, agents: Topology, which: str) -> None:
    """The successor has nothing to go on with, and ends; whoever supervises them starts another. The last test of these
    fixtures."""
    of = hubs.hub if which == "hub" else agents.agent
    of.plant("is killed before doors")
    of.program.signal(signal.SIGUSR2)
    assert of.program.wait() == 1
    assert "the process that this one was to succeed has given up" in of.program.err_path.read_text()
