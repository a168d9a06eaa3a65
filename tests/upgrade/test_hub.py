"""A hub is upgraded, and its clients and services see a pause: nothing is lost, repeated, out of order or refused."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.ncfast_process import ACCESS
from support.peer import Both, Peer, byte_exact, order_line, run_flow
from support.script import Gates, Step, pattern
from support.topology import MakeTopology, Topology
from support.until import until, wait_until
from support.upgrading import Steady

KIB, MIB = 1 << 10, 1 << 20
EACH = 3  # flows of each kind


def upgrade(made: Topology, passed: int, times: int = 1) -> None:
    for _ in range(times):
        done = made.hub.upgrade()
        assert (done["result"], done["passed"]) == ("done", passed), done


def test_transfers_each_way_go_on_in_the_successor(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    with Steady(peer, made.address("peer")) as transfer:
        transfer.wait_under_way()
        for _ in range(2):
            upgrade(made, 1)
            transfer.wait_moved(1)
    line = made.hub.log.wait(ACCESS)
    assert line["handovers"] == 2 and line["reason"] == "closed", line
    assert line["resumes"] >= 2, line


# what a flow may be at when its hub is upgraded: script of the client, script of the service, bytes each has to get
AT: dict[str, tuple[list[Step], list[Step], int, int]] = {
    "idle": (
        [["send", 10], ["read", 20], ["wait", "go"], ["send", 30], ["read", 40], ["fin"], ["drain"]],
        [["read", 10], ["send", 20], ["read", 30], ["send", 40], ["drain"], ["fin"]],
        60,
        40,
    ),
    "half-closed by the client": (
        [["send", 70 * KIB], ["fin"], ["wait", "go"], ["drain"]],
        [["drain"], ["wait", "go"], ["send", 50 * KIB], ["fin"]],
        50 * KIB,
        70 * KIB,
    ),
    "half-closed by the service": (
        [["drain"], ["wait", "go"], ["send", 50 * KIB], ["fin"]],
        [["send", 70 * KIB], ["fin"], ["wait", "go"], ["drain"]],
        70 * KIB,
        50 * KIB,
    ),
    "a client that does not read": (
        [["wait", "go"], ["drain_slowly"], ["fin"]],
        [["send", 6 * MIB], ["fin"], ["drain"]],
        6 * MIB,
        0,
    ),
    "a client that has ended and does not read": (
        [["send", 90 * KIB], ["fin"], ["wait", "go"], ["drain"]],
        [["send", 6 * MIB], ["fin"], ["drain"]],
        6 * MIB,
        90 * KIB,
    ),
    "a service that does not read": (
        [["send", 6 * MIB], ["fin"], ["drain"]],
        [["wait", "go"], ["drain_slowly"], ["fin"]],
        0,
        6 * MIB,
    ),
}


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
        # those that do not read have as much waiting for them as may
        await until(lambda: made.hub.status()["memory"]["held_bytes"] > 256 * KIB, "much is held")
        await asyncio.to_thread(upgrade, made, count, 2)
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
    assert {(line["handovers"], line["reason"]) for line in lines} == {(2, "closed")}, lines


def test_two_hundred_connects_a_second_meet_nobody_who_refuses(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, hub={"limits": {"opens_per_source_per_sec": 0}})
    size = 5000

    async def scenario() -> list[Both]:
        over = asyncio.Event()
        running: list[asyncio.Task[Both]] = []

        async def connect() -> None:
            while not over.is_set():
                running.append(
                    asyncio.create_task(
                        run_flow(
                            peer,
                            made.address("peer"),
                            client=[["send", size], ["read", size], ["fin"], ["drain"]],
                            service=[["read", size], ["send", size], ["drain"], ["fin"]],
                        )
                    )
                )
                await asyncio.sleep(0.005)

        connecting = asyncio.create_task(connect())
        await until(lambda: sum(one.done() for one in running) > 20, "some have come through")
        for _ in range(2):
            await asyncio.to_thread(made.hub.upgrade)
            before = len(running)
            await until(lambda before=before: all(one.done() for one in running[: before + 20]), "and some more")
        over.set()
        await connecting
        return await asyncio.gather(*running)

    for both in asyncio.run(scenario()):
        assert both.client.error is None and both.service.error is None, both
        byte_exact(both.client, size)
        byte_exact(both.service, size)


def test_clients_that_are_held_wait_on_in_the_successor(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, agents=0, listener={"hold_sec": 300})
    size = 3000

    async def scenario() -> list[Both]:
        running = [
            asyncio.create_task(
                run_flow(
                    peer,
                    made.address("peer"),
                    client=[["send", size], ["read", size], ["fin"], ["drain"]],
                    service=[["read", size], ["send", size], ["drain"], ["fin"]],
                    timeout=300,
                )
            )
            for _ in range(EACH)
        ]
        await until(lambda: made.hub.status()["flows"]["held"] == EACH, "they are held")
        await asyncio.to_thread(upgrade, made, EACH)
        assert made.hub.status()["flows"]["held"] == EACH
        made.add_agent("site-1")
        return await asyncio.gather(*running)

    for both in asyncio.run(scenario()):
        byte_exact(both.client, size)
        byte_exact(both.service, size)


@pytest.mark.parametrize("said", [b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 3", b""])
def test_who_has_not_said_all_of_a_header_or_nothing_at_all(topology: MakeTopology, peer: Peer, said: bytes) -> None:
    listener = {"proxy_protocol": "v1", "proxy_from": ["127.0.0.1"]} if said else {"open_on": "first_byte"}
    made = topology({"peer": peer.address}, listener=listener)
    with socket.create_connection(made.address("peer"), timeout=120) as client:
        client.sendall(said)
        wait_until(lambda: made.hub.status()["listeners"][0]["active"] == 1, "it is let in")
        # the time for a header is not the test's: as soon as may be
        done = made.hub.upgrade()
        if said and made.hub.log.events("client_shed"):
            pytest.skip("the machine took longer to start a process than a header may take")
        assert done["passed"] == 1
        assert made.hub.status()["listeners"][0]["active"] == 1
        seed = peer.next_seed()
        client.sendall((b"89\r\n" if said else b"") + order_line(seed, [["send", 100], ["fin"], ["drain"]]))
        got = b""
        while data := client.recv(1000):
            got += data
        assert got == pattern(2 * seed + 1, 0, 100)
    line = made.hub.log.wait(ACCESS)
    assert line["client"] == "192.0.2.7:4711" if said else line["client"].startswith("127.0.0.1:")


def test_a_successor_that_dies_before_it_serves_has_changed_nothing(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    made.hub.may_print = True
    made.hub.expected_errors = frozenset({"upgrade_failed", "upgrade_taken_back"})
    with Steady(peer, made.address("peer")) as transfer:
        transfer.wait_under_way()
        good = made.hub.config_path.read_text()
        made.hub.config_path.write_text(good.replace("listeners:", "no_such_key: 1\nlisteners:"))
        mark = made.hub.begin_upgrade()
        made.hub.log.wait("upgrade_failed", after=mark)
        made.hub.config_path.write_text(good)
        transfer.wait_moved(1)
        upgrade(made, 1)


@pytest.mark.parametrize("kind", ["mesh", "flows", "complete"])
def test_a_successor_that_dies_leaves_what_it_had_not_taken(topology: MakeTopology, peer: Peer, kind: str) -> None:
    made = topology({"peer": peer.address})
    made.hub.may_print = True
    made.hub.expected_errors = frozenset({"upgrade_failed", "upgrade_taken_back"})
    if kind == "complete":  # what it had taken has ended with it
        with socket.create_connection(made.address("peer"), timeout=120) as client:
            client.sendall(order_line(peer.next_seed(), [["send", 10], ["drain"]]))
            assert client.recv(10)
            mark = made.hub.begin_upgrade(dies=kind)
            made.hub.log.wait("upgrade_failed", after=mark)
            with pytest.raises(ConnectionResetError):
                while client.recv(10):
                    pass
        return
    with Steady(peer, made.address("peer")) as transfer:
        transfer.wait_under_way()
        mark = made.hub.begin_upgrade(dies=kind)
        made.hub.log.wait("upgrade_failed", after=mark)
        transfer.wait_moved(1)
        assert made.hub.metric_by("nowconnect_handovers_total")[("failed",)] == 1
        upgrade(made, 1)
        assert made.hub.metric_by("nowconnect_handovers_total")[("done",)] == 1
