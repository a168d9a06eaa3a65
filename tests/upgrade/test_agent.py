"""An agent is upgraded, and clients and services see a pause: nothing is lost, repeated, out of order or refused."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.cluster import Cluster
from support.ncfast_process import ACCESS, Agent
from support.peer import Both, Peer, byte_exact, run_flow
from support.process import child_env
from support.script import Gates
from support.topology import MakeTopology, topologies
from support.until import until, wait_until
from support.upgrading import Steady
from upgrade.test_hub import AT, EACH

KIB = 1 << 10
FAILED = frozenset({"upgrade_failed", "upgrade_taken_back"})

# what the successor does not live to say; in the environment of all, read at the start of each
PLANT = """
import os
if "NCFAST_HANDOVER" in os.environ and (said := open(os.environ["PLANT"]).read()):
    from ncfast.net.channel import Channel
    send = Channel.send
    def send_or_die(channel, kind, *more):
        if kind == said:
            os._exit(3)
        send(channel, kind, *more)
    Channel.send = send_or_die
"""


def children(parent: int) -> list[int]:
    """Processes whose parent it is."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


class UpgradingAgent(Agent):
    """One agent in the test's eyes, whichever process it is."""

    flags = ("--stay-parent",)

    def start(self, *, wait: bool = True) -> None:
        plants = self._directory / "plants"
        plants.mkdir()
        (plants / "sitecustomize.py").write_text(PLANT)
        self._plant = self._directory / "plant"
        self._plant.write_text("")
        path = os.pathsep.join([str(plants), child_env()["PYTHONPATH"]])
        self._env = {**(self._env or {}), "PYTHONPATH": path, "PLANT": str(self._plant)}
        self.config["admin"] = {"unix": str(self._directory / "agent.sock")}
        super().start(wait=wait)

    def begin(self, dies: str = "") -> int:
        mark = self.log.mark()
        self._plant.write_text(dies)
        self.program.signal(signal.SIGUSR2)
        return mark

    def upgrade(self, flows: int) -> None:
        """One from beginning to end."""
        mark = self.begin()
        assert self.log.wait("upgrade_taken", after=mark)["flows"] == flows
        self.wait_upgraded(mark)

    def wait_upgraded(self, mark: int) -> None:
        """Until the predecessor has ended, and signals are the successor's."""
        successor = self.log.wait("upgraded", after=mark)["pid"]
        wait_until(lambda: children(self.program.pid) == [successor], "the predecessor has ended")
        self.log.wait("upgrade_done", after=mark)


@pytest.fixture
def topology(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeTopology]:
    with topologies(request, tmp_path, make_agent=UpgradingAgent) as make:
        yield make


def test_transfers_each_way_go_on_through_five_upgrades(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    with Steady(peer, made.address("peer")) as transfer:
        transfer.wait_under_way()
        for _ in range(5):
            made.agent.upgrade(1)
            transfer.wait_moved(1)
    line = made.agent.log.wait(ACCESS)
    assert line["handovers"] == 5 and line["reason"] == "closed", line
    assert made.hub.log.wait(ACCESS)["resumes"] >= 5
    assert not made.hub.log.events("flow_refused")


def test_whatever_flows_are_at(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    gates = Gates()

    async def one(kind: str) -> Both:
        client, service, _, _ = AT[kind]
        return await run_flow(
            peer,
            made.address("peer"),
            client=client,
            service=[["wait", f"{kind} go"] if step == ["wait", "go"] else step for step in service],
            gates=gates,
            receive_buffer=8 * KIB if "read" in kind else None,
        )

    async def scenario() -> dict[str, list[Both]]:
        running = {kind: [asyncio.create_task(one(kind)) for _ in range(EACH)] for kind in AT}
        count = EACH * len(AT)
        await until(lambda: made.hub.status()["flows"]["active"] == count, "all are open")
        await until(lambda: made.hub.status()["memory"]["held_bytes"] > 256 * KIB, "much is held")
        for _ in range(2):
            await asyncio.to_thread(made.agent.upgrade, count)
        gates["go"].set()
        for kind in AT:
            peer.open_gate(f"{kind} go")
        return {kind: await asyncio.gather(*tasks) for kind, tasks in running.items()}

    for kind, seen in asyncio.run(scenario()).items():
        for both in seen:
            assert both.client.error is None and both.service.error is None, (kind, both)
            byte_exact(both.client, AT[kind][2])
            byte_exact(both.service, AT[kind][3])
    made.hub.wait_idle()
    lines = made.hub.access_lines()
    assert {line["reason"] for line in lines} == {"closed"}, lines


def test_connects_meet_nobody_who_refuses(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, hub={"limits": {"opens_per_source_per_sec": 0}})
    size = 5000

    async def scenario() -> list[Both]:
        over = asyncio.Event()
        running: list[asyncio.Task[Both]] = []

        async def connect() -> None:
            while not over.is_set():
                flow = run_flow(
                    peer,
                    made.address("peer"),
                    client=[["send", size], ["read", size], ["fin"], ["drain"]],
                    service=[["read", size], ["send", size], ["drain"], ["fin"]],
                )
                running.append(asyncio.create_task(flow))
                await asyncio.sleep(0.005)

        connecting = asyncio.create_task(connect())
        await until(lambda: sum(one.done() for one in running) > 20, "some have come through")
        for _ in range(2):
            mark = made.agent.begin()
            await asyncio.to_thread(made.agent.log.wait, "upgrade_taken", after=mark)
            await asyncio.to_thread(made.agent.wait_upgraded, mark)
        before = len(running)
        await until(lambda: len(running) > before + 20, "some have come since")
        over.set()
        await connecting
        return await asyncio.gather(*running)

    for both in asyncio.run(scenario()):
        assert both.client.error is None and both.service.error is None, both
        byte_exact(both.client, size)
        byte_exact(both.service, size)


@pytest.mark.parametrize("unsaid", ["ready", "dialled", "resting", "taken"])
def test_a_successor_that_dies_changes_nothing(topology: MakeTopology, peer: Peer, unsaid: str) -> None:
    made = topology({"peer": peer.address})
    made.agent.expected_errors = FAILED
    with Steady(peer, made.address("peer")) as transfer:
        transfer.wait_under_way()
        mark = made.agent.begin(dies=unsaid)
        made.agent.log.wait("upgrade_failed", after=mark)
        transfer.wait_moved(1)
        made.agent.begin()
        made.agent.log.wait("upgrade_taken", after=mark)
        transfer.wait_moved(1)
    assert made.agent.log.wait(ACCESS)["handovers"] == 1
    assert made.hub.log.wait(ACCESS)["reason"] == "closed"


def test_a_successor_that_dies_with_the_flows_ends_them_by_name(topology: MakeTopology, peer: Peer) -> None:
    """What it has taken is gone with it; the predecessor serves whoever comes."""
    made = topology({"peer": peer.address})
    made.agent.expected_errors = FAILED

    async def scenario() -> Both:
        flow = asyncio.create_task(
            run_flow(peer, made.address("peer"), client=[["send", 10], ["drain"]], service=[["read", 10], ["drain"]])
        )
        await until(lambda: made.hub.status()["flows"]["active"] == 1, "open")
        mark = made.agent.begin(dies="owner")
        await asyncio.to_thread(made.agent.log.wait, "upgrade_failed", after=mark)
        return await flow

    both = asyncio.run(scenario())
    assert both.client.error is not None and both.service.error is not None, both
    assert made.hub.log.wait(ACCESS)["reason"] == "agent_restarted"
    again = asyncio.run(run_flow(peer, made.address("peer"), client=[["send", 10], ["fin"]], service=[["drain"]]))
    byte_exact(again.service, 10)


def test_one_right_behind_another_whose_flows_wait_for_a_hub(tmp_path: Path, peer: Peer) -> None:
    """Each successor says what became of its own, also one that hands over before they have gone on."""
    options = {"names": ("hub-a", "hub-b"), "make_agent": UpgradingAgent}
    with closing(Cluster(tmp_path, {"peer": peer.address}, hub={"flow": {"flow_grace_sec": 8}}, **options)) as made:
        (agent,) = made.agents
        (other,) = set(made.names) - {agent.log.wait("tunnel_up")["replica"]}
        hub = made.hubs[other]

        def upgrade() -> None:
            mark = agent.begin()
            assert agent.log.wait("upgrade_taken", after=mark)["flows"] == 1
            successor = agent.log.wait("upgraded", after=mark)["pid"]
            wait_until(lambda: children(agent.program.pid) == [successor], "the predecessor has ended")

        async def scenario() -> None:
            script = [["send", 10], ["read", 10], ["drain"]]
            flow = asyncio.create_task(run_flow(peer, hub.listener("peer"), client=script, service=script))
            await until(lambda: hub.status()["flows"]["active"] == 1, "open")
            hub.program.kill()
            for _ in range(2):
                await asyncio.to_thread(upgrade)
            flow.cancel()

        asyncio.run(scenario())
        done = [agent.log.wait("upgrade_done", count=number) for number in (1, 2)]
        assert [(one["result"], one["passed"]) for one in done] == [("done", 1)] * 2
