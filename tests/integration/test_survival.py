"""The tunnel breaks, flows do not; and when an end is really gone, its flows end promptly and by name."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest
from support.ncfast_process import ACCESS
from support.peer import Both, Peer, byte_exact, connect, is_refused, order_line, run_flow
from support.script import End, Gates, pattern_sha256
from support.topology import MakeTopology
from support.until import PATIENCE, until, wait_until

MIB = 1 << 20
TEN_CUTS = ["rst", "silence", "restart", "rst", "restart", "silence", "rst", "restart", "silence", "rst"]


def test_256_mib_each_way_while_the_tunnel_is_cut_ten_times(topology: MakeTopology, peer: Peer) -> None:
    """One flow, both directions at once; RST, silence and proxy restarts, spread over the transfer."""
    made = topology({"peer": peer.address}, via_proxy=True)
    size, seed = 256 * MIB, peer.next_seed()
    script = [["both", [["send", size], ["fin"]], [["drain"]]]]
    made.proxy.plan([(number * 2 * size // 11, kind) for number, kind in enumerate(TEN_CUTS, 1)])
    both = asyncio.run(run_flow(peer, made.address("peer"), seed=seed, client=script, service=script, digest=True))
    assert made.proxy.stats()["faults"] == len(TEN_CUTS)
    for end, pattern in ((both.service, 2 * seed), (both.client, 2 * seed + 1)):
        assert end.error is None and end.eof, both
        byte_exact(end, size)
        assert end.sha256 == pattern_sha256(pattern, size)
    line = made.hub.log.wait(ACCESS)
    assert line["resumes"] >= len(TEN_CUTS), line


@pytest.mark.parametrize("kind", ["rst", "silence", "restart"])
def test_50_conversations_go_on_across_cuts(topology: MakeTopology, peer: Peer, kind: str) -> None:
    """Request and answer in lockstep, so that at each cut some bytes are in every place they can be."""
    made = topology({"peer": peer.address}, via_proxy=True)
    turns, size = 200, 700

    async def scenario() -> list[Both]:
        talks = [
            asyncio.create_task(
                run_flow(
                    peer,
                    made.address("peer"),
                    client=[step for _ in range(turns) for step in (["send", size], ["read", size])],
                    service=[step for _ in range(turns) for step in (["read", size], ["send", size])],
                )
            )
            for _ in range(50)
        ]
        for _ in range(3):
            agent_mark = made.agent.log.mark()
            start = made.proxy.stats()["forwarded"]
            await until(
                lambda start=start: (
                    made.proxy.stats()["forwarded"] >= start + 500_000 or all(talk.done() for talk in talks)
                ),
                "talk through the tunnel",
            )
            await asyncio.to_thread(made.proxy.fault, kind)
            await asyncio.to_thread(made.agent.wait_tunnel, agent_mark)
        return await asyncio.gather(*talks)

    for both in asyncio.run(scenario()):
        assert both.client.error is None and both.service.error is None, both
        byte_exact(both.client, turns * size)
        byte_exact(both.service, turns * size)


def test_half_closed_flow_survives_a_cut(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, via_proxy=True)

    async def scenario() -> Both:
        seed = peer.next_seed()
        flow = asyncio.create_task(
            run_flow(
                peer,
                made.address("peer"),
                seed=seed,
                client=[["send", 5000], ["fin"], ["drain"]],
                service=[["drain"], ["wait", f"answer {seed}"], ["send", 3 * MIB], ["fin"]],
            )
        )
        await until(lambda: (seen := peer.outcome(seed)) and seen.eof, "the client's end at the service")
        mark = made.agent.log.mark()
        made.proxy.fault("rst")
        await asyncio.to_thread(made.agent.wait_tunnel, mark)
        made.proxy.plan([(MIB, "rst")])
        peer.open_gate(f"answer {seed}")
        return await flow

    both = asyncio.run(scenario())
    assert both.client.eof and both.client.error is None, both
    byte_exact(both.client, 3 * MIB)
    byte_exact(both.service, 5000)


@pytest.mark.parametrize("way", ["fin", "rst"])
def test_a_flow_that_ends_while_detached_ends_the_same_way(topology: MakeTopology, peer: Peer, way: str) -> None:
    """The service answers and closes, or resets, while there is no tunnel."""
    made = topology({"peer": peer.address}, via_proxy=True)

    async def scenario() -> Both:
        seed = peer.next_seed()
        script = [["send", 1000], ["fin"], ["drain"]] if way == "fin" else [["rst"]]
        flow = asyncio.create_task(
            run_flow(
                peer,
                made.address("peer"),
                seed=seed,
                client=[["send", 100], ["drain"]],
                service=[["read", 100], ["wait", f"end {seed}"], *script],
            )
        )
        await peer.reached(seed, 100)
        hub_mark = made.hub.log.mark()
        made.proxy.fault("down")
        await asyncio.to_thread(made.hub.log.wait, "agent_disconnected", after=hub_mark)
        peer.open_gate(f"end {seed}")
        await until(
            lambda: (seen := peer.outcome(seed)) and (seen.finished or seen.error or "fin" in seen.steps),
            "the service has ended the flow",
        )
        made.proxy.up()
        return await flow

    both = asyncio.run(scenario())
    if way == "fin":
        assert both.client.eof and both.client.error is None, both
        byte_exact(both.client, 1000)
    else:
        assert both.client.error == "ECONNRESET", both


def test_agent_restart_ends_its_flows_by_name(topology: MakeTopology, peer: Peer) -> None:
    """Killed, its sockets to the targets are gone: its flows are reset, the new process serves new ones."""
    made = topology({"peer": peer.address})

    async def scenario() -> None:
        flows = [
            asyncio.create_task(
                run_flow(
                    peer,
                    made.address("peer"),
                    client=[["send", 10], ["read", 10], ["drain"]],
                    service=[["read", 10], ["send", 10], ["drain"]],
                )
            )
            for _ in range(5)
        ]
        await until(lambda: made.hub.status()["bytes"]["client_out"] >= 50, "all five flows answered")
        made.agent.program.kill()
        await asyncio.to_thread(made.agent.start)
        for flow in flows:
            both = await flow
            assert both.client.error == "ECONNRESET", both
        fresh = await run_flow(peer, made.address("peer"), client=[["drain"]], service=[["send", 100]])
        byte_exact(fresh.client, 100)

    asyncio.run(scenario())
    made.hub.log.wait(ACCESS, count=5, reason="agent_restarted")


def test_agent_that_stays_away_ends_its_flows_after_the_grace_time(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, via_proxy=True, hub={"flow": {"flow_grace_sec": 1}})

    async def scenario() -> Both:
        seed = peer.next_seed()
        flow = asyncio.create_task(
            run_flow(peer, made.address("peer"), seed=seed, client=[["send", 1], ["drain"]], service=[["drain"]])
        )
        await peer.reached(seed)
        made.proxy.fault("down")
        await asyncio.to_thread(made.hub.log.wait, ACCESS, reason="link_lost")
        made.proxy.up()  # the agent comes back, learns that the hub has given up, and frees the target
        return await flow

    both = asyncio.run(scenario())
    assert both.client.error == "ECONNRESET" and both.service.error == "ECONNRESET", both


def test_clients_that_arrive_while_the_agent_reconnects_are_served_afterwards(
    topology: MakeTopology, peer: Peer
) -> None:
    made = topology({"peer": peer.address}, via_proxy=True, listener={"hold_sec": 60})

    async def scenario() -> list[Both]:
        mark = made.hub.log.mark()
        made.proxy.fault("down")
        await asyncio.to_thread(made.hub.log.wait, "agent_disconnected", after=mark)
        flows = [
            asyncio.create_task(
                run_flow(
                    peer,
                    made.address("peer"),
                    client=[["send", 3000], ["fin"], ["drain"]],
                    service=[["drain"], ["send", 100_000]],
                )
            )
            for _ in range(40)
        ]
        await until(lambda: made.hub.status()["flows"]["held"] == 40, "40 clients held")
        assert not any(flow.done() for flow in flows)
        made.proxy.up()
        return await asyncio.gather(*flows)

    for both in asyncio.run(scenario()):
        byte_exact(both.service, 3000)
        byte_exact(both.client, 100_000)


def test_hold_queue_is_bounded_in_number(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, via_proxy=True, listener={"hold_sec": 60, "hold_max": 3})
    mark = made.hub.log.mark()
    made.proxy.fault("down")
    made.hub.log.wait("agent_disconnected", after=mark)
    held = [socket.create_connection(made.address("peer"), timeout=PATIENCE) for _ in range(3)]
    wait_until(lambda: made.hub.status()["flows"]["held"] == 3, "three clients held")
    assert is_refused(made.address("peer"))
    assert made.hub.status()["flows"]["held"] == 3, "the fourth took the place of one of the three"
    made.proxy.up()
    for client in held:
        client.close()


def test_hold_queue_is_bounded_in_time(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, via_proxy=True, listener={"hold_sec": 1})
    mark = made.hub.log.mark()
    made.proxy.fault("down")
    made.hub.log.wait("agent_disconnected", after=mark)
    assert is_refused(made.address("peer"))
    line = made.hub.log.wait(ACCESS)
    assert line["reason"] == "hold_timeout" and line["duration"] >= 1, line
    assert made.hub.status()["flows"]["held"] == 0


def test_held_client_that_leaves_is_forgotten(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, via_proxy=True, listener={"hold_sec": 60})
    mark = made.hub.log.mark()
    made.proxy.fault("down")
    made.hub.log.wait("agent_disconnected", after=mark)
    with socket.create_connection(made.address("peer")) as client:
        wait_until(lambda: made.hub.status()["flows"]["held"] == 1, "the client held")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    wait_until(lambda: made.hub.status()["flows"]["held"] == 0, "the client forgotten")
    made.proxy.up()


def test_without_any_agent_clients_are_refused(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, agents=0, listener={"hold_sec": 0})
    for _ in range(3):
        assert is_refused(made.address("peer"))


def test_connector_that_no_agent_has_ever_announced_is_refused_at_once(topology: MakeTopology, peer: Peer) -> None:
    """Holding is for agents that reconnect: as all do after a hub's start, later none that was never seen."""
    made = topology({"peer": peer.address, "armed": peer.armed_address}, agents=0, listener={"hold_sec": 60})
    made.add_agent("site-1", connectors={"peer": "%s:%d" % peer.address})
    wait_until(lambda: made.hub.status()["uptime_sec"] > 6, "the time for agents to come back after a start")
    assert is_refused(made.address("armed"))
    made.hub.log.wait(ACCESS, reason="no_agent", listener="armed")


def test_target_down_closes_the_client_and_is_named(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    peer.unlisten()
    try:
        assert is_refused(made.address("peer"))
        made.hub.log.wait(ACCESS, reason="target_refused")
    finally:
        peer.listen()
    both = asyncio.run(run_flow(peer, made.address("peer"), client=[["drain"]], service=[["send", 10]]))
    byte_exact(both.client, 10)


def test_failing_health_check_withdraws_the_connector_until_the_target_is_back(
    topology: MakeTopology, peer: Peer
) -> None:
    made = topology(
        {"peer": peer.address},
        listener={"hold_sec": 0},
        agent_connector={"health": {"interval_sec": 0.1, "timeout_sec": 1, "fall": 2, "rise": 1}},
    )

    def announced() -> list[str]:
        return made.hub.status()["agents"][0]["connectors"]

    wait_until(lambda: announced() == ["peer"], "the connector announced")
    peer.unlisten()
    try:
        wait_until(lambda: announced() == [], "the connector withdrawn")
        assert is_refused(made.address("peer"))
    finally:
        peer.listen()
    wait_until(lambda: announced() == ["peer"], "the connector announced again")
    both = asyncio.run(run_flow(peer, made.address("peer"), client=[["drain"]], service=[["send", 10]]))
    byte_exact(both.client, 10)


def test_frozen_agent_is_noticed_by_silence_and_its_flows_resume_when_it_thaws(
    topology: MakeTopology, peer: Peer
) -> None:
    """SIGSTOP: no FIN, no RST, the kernel still acknowledges; only the missing pings tell."""
    made = topology({"peer": peer.address})

    async def scenario() -> Both:
        seed = peer.next_seed()
        flow = asyncio.create_task(
            run_flow(
                peer,
                made.address("peer"),
                seed=seed,
                client=[["send", 10], ["read", 10], ["send", 2 * MIB], ["read", 2 * MIB]],
                service=[["read", 10], ["send", 10], ["read", 2 * MIB], ["send", 2 * MIB]],
            )
        )
        mark = made.hub.log.mark()
        made.agent.program.signal(signal.SIGSTOP)
        try:
            gone = await asyncio.to_thread(made.hub.log.wait, "agent_disconnected", after=mark)
        finally:
            made.agent.program.signal(signal.SIGCONT)
        assert gone["reason"] == "keepalive_timeout", gone
        return await flow

    both = asyncio.run(scenario())
    assert both.client.error is None, both
    byte_exact(both.client, 10 + 2 * MIB)


def test_two_agents_for_one_connector_least_loaded_first(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, agents=2)
    made.hub.wait_agents(2)

    async def scenario() -> None:
        ends = []
        for _ in range(20):
            seed = peer.next_seed()
            sock = await connect(made.address("peer"))
            await asyncio.get_running_loop().sock_sendall(sock, order_line(seed, [["send", 1], ["drain"]]))
            end = End(sock, send_seed=2 * seed, receive_seed=2 * seed + 1, gates=Gates())
            await end._step_read(1)
            ends.append(end)
        loads = sorted(agent["flows"] for agent in made.hub.status()["agents"])
        assert loads == [10, 10], loads
        for end in ends:
            await end.run([["fin"], ["drain"]])

    asyncio.run(scenario())


def test_open_is_retried_on_another_agent_when_the_first_ones_target_is_down(
    topology: MakeTopology, peer: Peer
) -> None:
    """Before the target has seen a byte the client need not hear of it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = "127.0.0.1:%d" % closed.getsockname()[1]
    made = topology({"peer": peer.address}, agents=1)
    made.add_agent("site-2", connectors={"peer": dead})
    made.hub.wait_agents(2)

    async def scenario() -> list[Both]:
        return await asyncio.gather(
            *(
                run_flow(
                    peer,
                    made.address("peer"),
                    client=[["send", 50_000], ["fin"], ["drain"]],
                    service=[["drain"], ["send", 1000]],
                )
                for _ in range(20)
            )
        )

    for both in asyncio.run(scenario()):
        byte_exact(both.service, 50_000)
        byte_exact(both.client, 1000)
