"""Drain, reload, expiry and scarcity: what an operator does to a running hub, with flows on it."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import socket

import pytest
from support.bystander import Bystander
from support.ncfast_process import ACCESS, merged
from support.peer import Both, Peer, byte_exact, is_refused, run_flow
from support.script import Gates
from support.topology import MakeTopology, Topology
from support.until import PATIENCE, wait_until

MIB = 1 << 20


def transfer(made: Topology, peer: Peer, seed: int, *, size: int = 8 * MIB) -> asyncio.Task[Both]:
    """A flow that has sent a first byte both ways and goes on when the gate ``go <seed>`` is opened."""
    return asyncio.create_task(
        run_flow(
            peer,
            made.address("peer"),
            seed=seed,
            client=[["send", 10], ["read", 10], ["send", size], ["fin"], ["drain"]],
            service=[["read", 10], ["wait", f"go {seed}"], ["send", 10], ["drain"], ["send", size], ["fin"]],
        )
    )


@pytest.mark.parametrize("by", ["SIGTERM", "POST /drain"])
def test_drain_finishes_what_runs_and_takes_nothing_new(topology: MakeTopology, peer: Peer, by: str) -> None:
    made = topology({"peer": peer.address}, hub={"drain": {"timeout_sec": 60}})
    made.hub.expected_errors = frozenset({"config_refused"})

    async def scenario() -> Both:
        seed = peer.next_seed()
        flow = transfer(made, peer, seed)
        await peer.reached(seed, 10)
        if by == "SIGTERM":
            made.hub.program.signal(signal.SIGTERM)
        else:
            assert made.hub.get("/drain", admin=True, method="POST")[0] in (200, 202)
        await asyncio.to_thread(wait_until, lambda: made.hub.get("/readyz")[0] == 503, "/readyz saying 503")
        assert json.loads(made.hub.get("/readyz")[1])["status"] == "draining"
        assert made.hub.get("/healthz")[0] == 200
        assert not await asyncio.to_thread(made.hub.reload, made.hub.config), (
            "a hub that drains took a new configuration"
        )
        assert is_refused(made.address("peer"))
        assert made.hub.program.exit_code() is None and not flow.done()
        await asyncio.to_thread(peer.open_gate, f"go {seed}")
        return await flow

    both = asyncio.run(scenario())
    assert both.client.error is None, both
    byte_exact(both.client, 10 + 8 * MIB)
    byte_exact(both.service, 10 + 8 * MIB)
    assert made.hub.program.wait() == 0
    assert made.hub.access_lines(reason="closed"), made.hub.program.tail()


LATER = 3600  # seconds of delay that no test waits for
HURRIED = {
    "SIGTERM again": lambda hub: hub.program.signal(signal.SIGTERM),
    "SIGINT": lambda hub: hub.program.signal(signal.SIGINT),
    "drain --now": lambda hub: hub.get("/drain?delay=off", admin=True, method="POST"),
}


@pytest.mark.parametrize("by", HURRIED)
def test_a_hub_that_leaves_serves_until_the_delay_is_over(topology: MakeTopology, peer: Peer, by: str) -> None:
    """Balancers are told, and nobody else: clients, agents and flows are served as ever."""
    made = topology({"peer": peer.address}, hub={"drain": {"delay_sec": LATER, "timeout_sec": 60}})
    made.hub.expected_errors = frozenset({"config_refused"})

    async def scenario() -> Both:
        seed = peer.next_seed()
        flow = transfer(made, peer, seed)
        await peer.reached(seed, 10)
        made.hub.program.signal(signal.SIGTERM)
        await asyncio.to_thread(wait_until, lambda: made.hub.get("/readyz")[0] == 503, "/readyz saying 503")
        assert json.loads(made.hub.get("/readyz")[1])["status"] == "leaving"
        assert made.hub.status()["state"] == "leaving"
        assert made.hub.get("/drain", admin=True, method="POST")[0] == 202  # a hook that has run, too: no hurry
        assert not await asyncio.to_thread(made.hub.reload, made.hub.config)
        await asyncio.to_thread(made.add_agent, "site-2")
        for _ in range(10):
            fresh = await run_flow(peer, made.address("peer"), client=[["drain"]], service=[["send", 1000]])
            byte_exact(fresh.client, 1000)
        assert json.loads(made.hub.get("/readyz")[1])["status"] == "leaving"
        assert not made.agents[0].log.events("hub_draining")
        HURRIED[by](made.hub)
        await asyncio.to_thread(made.hub.log.wait, "draining")
        assert is_refused(made.address("peer"))
        assert json.loads(made.hub.get("/readyz")[1])["status"] == "draining"
        await asyncio.to_thread(made.agents[0].log.wait, "hub_draining")
        await asyncio.to_thread(peer.open_gate, f"go {seed}")
        return await flow

    both = asyncio.run(scenario())
    assert both.client.error is None, both
    byte_exact(both.client, 10 + 8 * MIB)
    assert made.hub.program.wait() == 0, made.hub.program.tail()


def test_the_delay_ends_by_itself(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, hub={"drain": {"delay_sec": 0.2}})
    made.hub.program.signal(signal.SIGTERM)
    assert made.hub.program.wait() == 0
    events = [event["event"] for event in made.hub.log.events()]
    assert events.index("leaving") < events.index("draining") < events.index("stopped")


def test_a_second_signal_ends_a_hub_that_drains_at_once(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, hub={"drain": {"timeout_sec": LATER}})

    async def scenario() -> None:
        seed = peer.next_seed()
        flow = transfer(made, peer, seed)
        await peer.reached(seed, 10)
        made.hub.program.signal(signal.SIGTERM)
        await asyncio.to_thread(made.hub.log.wait, "draining")
        made.hub.program.signal(signal.SIGTERM)
        assert await asyncio.to_thread(made.hub.program.wait) == 1
        await asyncio.to_thread(peer.open_gate, f"go {seed}")
        assert (await flow).client.error == "ECONNRESET"

    asyncio.run(scenario())


def test_drain_has_a_limit(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, hub={"drain": {"timeout_sec": 0.5}})

    async def scenario() -> Both:
        seed = peer.next_seed()
        flow = transfer(made, peer, seed)
        await peer.reached(seed, 10)
        made.hub.program.signal(signal.SIGTERM)
        assert await asyncio.to_thread(made.hub.program.wait) == 0
        peer.open_gate(f"go {seed}")
        return await flow

    both = asyncio.run(scenario())
    assert both.client.error == "ECONNRESET", both
    made.hub.log.wait(ACCESS, reason="draining")


def test_agent_drains_on_sigterm(topology: MakeTopology, peer: Peer) -> None:
    """Its flows finish, and meanwhile new clients are another agent's."""
    made = topology({"peer": peer.address}, agent={"drain": {"timeout_sec": 60}})

    async def scenario() -> Both:
        seed = peer.next_seed()
        flow = transfer(made, peer, seed)
        await peer.reached(seed, 10)
        leaving = made.agent
        leaving.program.signal(signal.SIGTERM)
        await asyncio.to_thread(
            wait_until, lambda: made.hub.status()["agents"][0]["draining"], "the agent shown as draining"
        )
        await asyncio.to_thread(made.add_agent, "site-2")
        with Bystander(made, peer):
            assert leaving.program.exit_code() is None and not flow.done()
            await asyncio.to_thread(peer.open_gate, f"go {seed}")
            both = await flow
            assert await asyncio.to_thread(leaving.program.wait) == 0
        return both

    both = asyncio.run(scenario())
    assert both.client.error is None, both
    byte_exact(both.client, 10 + 8 * MIB)


def test_ctrl_c_ends_hub_and_agent_with_0_or_130(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    for program in (made.agent.program, made.hub.program):
        program.signal(signal.SIGINT)
        assert program.wait() in (0, 130)


# --- SIGHUP


def test_reload_changes_the_log_level(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    hub = made.hub

    def one_flow() -> None:
        before = hub.status()["flows"]["closed"].get("closed", 0)
        asyncio.run(run_flow(peer, made.address("peer"), client=[["drain"]], service=[["send", 1]]))
        wait_until(lambda: hub.status()["flows"]["closed"].get("closed", 0) == before + 1, "the flow closed")

    with Bystander(made, peer):
        assert hub.reload(merged(hub.config, {"logging": {"level": "warning"}}))
        one_flow()
        assert hub.reload(hub.config)
        assert hub.access_lines() == []
        one_flow()
        hub.log.wait(ACCESS)
    hub.unlogged_flows = 1


def test_reload_adds_and_removes_listeners_without_losing_a_flow(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    hub = made.hub
    first = made.address("peer")
    second_listener = {"name": "second", "bind": "127.0.0.1:0", "connector": "peer"}

    def bound(name: str) -> tuple[str, int] | None:
        found = [each for each in hub.status()["listeners"] if each["name"] == name]
        if not found:
            return None
        host, _, port = found[0]["bind"].rpartition(":")
        return host, int(port)

    with Bystander(made, peer):
        both = {**hub.config, "listeners": [*hub.config["listeners"], second_listener]}
        assert hub.reload(both)
        second = wait_until(lambda: bound("second"), "the second listener in /status")
        assert bound("peer") == first, "the first listener moved to another port"
        flow = asyncio.run(run_flow(peer, second, client=[["drain"]], service=[["send", 1000]]))
        byte_exact(flow.client, 1000)
        assert hub.reload({**hub.config, "listeners": [second_listener]})
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(first, timeout=PATIENCE)
        assert bound("second") == second
        flow = asyncio.run(run_flow(peer, second, client=[["drain"]], service=[["send", 1000]]))
        byte_exact(flow.client, 1000)


def test_reload_rotates_the_key_without_losing_a_flow(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    old = made.token("site-2")
    with Bystander(made, peer):
        made.key_file.write_text(secrets.token_hex(32))
        # tunnels whose key is gone end; their flows wait for the agent to come back with a token that counts
        made.agent.token_file.write_text(made.token(made.agent.agent_id))
        assert made.hub.reload(made.hub.config)
        made.agent.log.wait("tunnel_up", count=2)
        mark = made.hub.log.mark()
        latecomer = made.add_agent("site-2", token=old, wait=False)
        made.hub.log.wait("auth_failed", after=mark)
        latecomer.token_file.write_text(made.token("site-2"))
        latecomer.log.wait("tunnel_up")


BAD_FILES = {
    "not YAML": "listeners: [",
    "unknown key": "listeners: []\nlisten: 1\n",
    "wrong type": "listeners: 5\n",
    "empty": "",
    "port in use": None,
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_refused_and_the_old_one_stays(topology: MakeTopology, peer: Peer, name: str) -> None:
    made = topology({"peer": peer.address})
    hub = made.hub
    hub.expected_errors = frozenset({"config_refused"})
    with Bystander(made, peer):
        before = hub.reloads()
        if name == "port in use":
            taken = {"name": "taken", "bind": "%s:%d" % peer.address, "connector": "peer"}
            assert not hub.reload({**hub.config, "listeners": [*hub.config["listeners"], taken]})
        else:
            hub.config_path.write_text(BAD_FILES[name])
            hub.program.signal(signal.SIGHUP)
            wait_until(lambda: hub.reloads()["refused"] == before["refused"] + 1, "the reload refused")
        assert [each["name"] for each in hub.status()["listeners"]] == ["peer"]
        with Bystander(made, peer):
            pass
        assert hub.reload(hub.config), "a good file after a bad one"


# --- tokens run out


def test_expired_token_closes_the_tunnel(topology: MakeTopology, peer: Peer) -> None:
    made = topology(
        {"peer": peer.address},
        agents=0,
        hub={"auth": {"jwt": {"leeway_sec": 0, "expiry_grace_sec": 1}}},
        listener={"hold_sec": 0},
    )
    agent = made.add_agent("site-1", token=made.token("site-1", ttl=12))  # it must have started by then
    closed = made.hub.log.wait("agent_disconnected")
    assert closed["reason"] == "token_expired", closed
    agent.log.wait("tunnel_down")
    refused = made.hub.log.wait("auth_failed", reason="expired")  # it tries again, with the same token
    assert refused["sub"] == "site-1"
    detail = agent.log.wait("connect_failed", reason="http_401")["detail"]
    assert "the token has expired" in detail and f"{agent.token_file} expired" in detail, detail
    assert "replace the file" in agent.log.wait("token_unfit")["detail"]
    assert made.hub.status()["agents"] == []


def test_fresh_token_is_sent_on_the_live_tunnel(topology: MakeTopology, peer: Peer) -> None:
    made = topology(
        {"peer": peer.address},
        agents=0,
        hub={"auth": {"jwt": {"leeway_sec": 0, "expiry_grace_sec": 5}}},
    )
    agent = made.add_agent("site-1", token=made.token("site-1", ttl=300))
    with Bystander(made, peer):
        fresh = agent.token_file.with_suffix(".new")
        fresh.write_text(made.token("site-1"))
        fresh.replace(agent.token_file)
        expires = lambda: made.hub.status()["agents"][0]["token_expires_sec"] > 600  # noqa: E731
        wait_until(expires, "the fresh token's expiry in /status")
        assert len(made.hub.log.events("agent_connected")) == 1, "the agent reconnected instead"


def test_agent_that_moves_to_a_new_tunnel_replaces_the_old_one(topology: MakeTopology, peer: Peer) -> None:
    """Two processes with one identity: the newest session wins, and says so."""
    made = topology({"peer": peer.address}, agent={"reconnect": {"min_sec": 30, "max_sec": 30}})
    first = made.agent
    second = made.add_agent("site-1", overrides={"reconnect": {"min_sec": 0.1}})
    gone = made.hub.log.wait("agent_disconnected")
    assert gone["reason"] == "superseded", gone
    assert len(made.hub.status()["agents"]) == 1
    with Bystander(made, peer):
        pass
    assert first.stop() == 0 and second.program.exit_code() is None


# --- scarcity


def test_descriptors_run_out_and_come_back(topology: MakeTopology, peer: Peer) -> None:
    """400 clients at a hub with 200 descriptors: it sheds, neither spins nor floods its log, and recovers."""
    made = topology({"peer": peer.address}, max_files=200)
    hub = made.hub
    with Bystander(made, peer) as bystander:

        def cost() -> float:
            """Seconds of the hub's processor for 200 of the bystander's questions, however long they take."""
            busy = hub.program.cpu_seconds()
            for _ in range(20):
                bystander.goes_on()
            return hub.program.cpu_seconds() - busy

        crowd, usual = [], cost()
        for _ in range(400):
            try:
                crowd.append(socket.create_connection(made.address("peer"), timeout=5))
            except (TimeoutError, ConnectionError):
                break
        wait_until(lambda: hub.metric("nowconnect_accept_shed_total") > 0, "clients shed")
        bystander.goes_on()
        assert hub.get("/healthz")[0] == 200
        assert hub.program.open_files() < 200
        lines = hub.log.mark()
        assert cost() < 3 * usual + 0.3, "the hub spins while it is short of descriptors"
        assert hub.log.mark() - lines < 50, "the hub floods its log while it is short of descriptors"
        mark = made.agent.log.mark()
        made.agent.program.signal(signal.SIGSTOP)  # descriptors are kept back, so that it can come again
        hub.log.wait("agent_disconnected")
        made.agent.program.signal(signal.SIGCONT)
        made.agent.wait_tunnel(mark)
        for client in crowd:
            client.close()
        with Bystander(made, peer):
            pass


def test_memory_budget_refuses_new_flows_and_recovers(topology: MakeTopology, peer: Peer) -> None:
    made = topology(
        {"peer": peer.address},
        hub={"limits": {"memory_bytes": 16 * MIB}, "flow": {"stall_sec": 0}},
        agent={"flow": {"stall_sec": 0}},
    )
    hub = made.hub
    base = hub.program.rss()

    async def scenario() -> list[Both]:
        seeds = [peer.next_seed() for _ in range(60)]
        gates = Gates()
        flows = [
            asyncio.create_task(
                run_flow(
                    peer,
                    made.address("peer"),
                    seed=seed,
                    gates=gates,
                    receive_buffer=8192,
                    client=[["read", 1], ["wait", "read on"], ["drain"]],
                    service=[["send", 8 * MIB], ["fin"]],
                )
            )
            for seed in seeds
        ]
        held, same = -1, 0
        while same < 30:
            await asyncio.sleep(0.02)
            now = hub.status()["memory"]["held_bytes"]
            same = same + 1 if now == held else 0
            held = now
        bound = 16 * MIB + len(seeds) * 2 * 65536  # a flow may have a read and a frame in the air
        assert held <= bound, f"{held} bytes held by a hub with a budget of {16 * MIB}"
        assert hub.program.rss() - base < 96 * MIB
        gates["read on"].set()
        return await asyncio.gather(*flows, return_exceptions=True)

    finished = [both for both in asyncio.run(scenario()) if isinstance(both, Both) and both.client.eof]
    assert finished, "not one flow was served"
    for both in finished:
        byte_exact(both.client, 8 * MIB)
    with Bystander(made, peer):
        pass
