"""Health, readiness, metrics, status and logs of a hub that carries traffic."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from pathlib import Path

from support.bystander import Bystander
from support.eventlog import EventLog
from support.ncfast_process import ACCESS, ncfast
from support.peer import Peer, run_flow
from support.process import Program
from support.services import recorder
from support.topology import MakeTopology, Topology
from support.until import PATIENCE, wait_until


def one_flow(made: Topology, peer: Peer) -> None:
    """1,000 bytes and the order line towards the service, 5,000 back."""
    asyncio.run(
        run_flow(
            peer,
            made.address("peer"),
            client=[["send", 1000], ["fin"], ["drain"]],
            service=[["drain"], ["send", 5000], ["fin"]],
        )
    )


def test_health_and_readiness(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, agents=0)
    assert made.hub.get("/healthz")[0] == 200
    code, body = made.hub.get("/readyz")
    assert (code, json.loads(body)) == (200, {"status": "ready"})


def test_an_agent_by_flags_can_be_asked(topology: MakeTopology, peer: Peer, tmp_path: Path) -> None:
    made = topology({"peer": peer.address}, agents=0)
    token, unix = tmp_path / "site-1.token", tmp_path / "agent.sock"
    token.write_text(made.token("site-1"))
    token.chmod(0o600)
    host, port = peer.address
    flags = ["--hub", made.tunnel_url, "--agent-id", "site-1", "--token-file", str(token), "--admin", f"unix:{unix}"]
    flags += ["--connector", f"peer={host}:{port}", "--check", "peer", "--mask-agents", "hash", "--log-level", "info"]
    agent = Program("agent", ncfast("agent", *flags), tmp_path, env={"NC_LOG_FORMAT": "json"})
    try:
        up = EventLog(agent.err_path, agent.exit_code).wait("tunnel_up")
        assert up["agent_id"] != "site-1"
        one_flow(made, peer)

        def ask(*more: str) -> subprocess.CompletedProcess[str]:
            command = ncfast("status", "--agent", "--url", f"unix:{unix}", *more)
            return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)

        done = wait_until(lambda: (told := ask("--json")).returncode == 0 and told, "an agent that is owned")
        status = json.loads(done.stdout)
        assert status["ready"] == {"status": "ready", "reasons": []} and status["targets"][0]["checked"]
        assert status["flows"]["opened"] == 1 and status["bytes"]["from_targets"] == 5000
        assert status["bytes"]["to_targets"] > 1000
        assert 3000 < status["token"]["expires_sec"] <= 3600
        assert "site-1" in ask().stdout
    finally:
        assert agent.stop() == 0
    assert not unix.exists()


def test_secrets_that_others_can_read_are_told_at_the_start(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, agents=0)
    assert not made.hub.log.events("file_exposed")
    made.key_file.chmod(0o644)
    made.hub.program.signal(signal.SIGHUP)
    told = made.hub.log.wait("file_exposed")
    assert told["detail"].startswith(f"auth.jwt.key_file: {made.key_file} can be read by others (mode 0644)")
    agent = made.add_agent("site-1")
    agent.token_file.chmod(0o640)
    agent.stop()
    agent.start()
    assert "read by its group (mode 0640)" in agent.log.wait("file_exposed")["detail"]


def test_probe_that_closes_gets_its_answer(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, agents=0)
    with socket.create_connection(made.hub.edge, timeout=PATIENCE) as probe:
        probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := probe.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_metrics_count_what_happened(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    for _ in range(3):
        one_flow(made, peer)
    made.hub.wait_idle()
    hub = made.hub
    assert hub.metric("nowconnect_flows_opened_total") == 3
    closed = {labels: count for labels, count in hub.metric_by("nowconnect_flows_closed_total").items() if count}
    assert closed == {("peer", "closed"): 3}
    assert hub.metric_by("nowconnect_listener_agents") == {("peer",): 1}
    assert hub.metric_by("nowconnect_accepted_total") == {("peer",): 3}
    assert hub.metric("nowconnect_flows_unaccounted") == 0
    assert hub.metric("nowconnect_client_out_bytes_total") == 3 * 5000
    assert 3 * 1000 < hub.metric("nowconnect_client_in_bytes_total") < 3 * 1500
    assert hub.metric("nowconnect_discarded_bytes_total") == 0
    assert hub.metric("nowconnect_agents") == 1
    assert hub.metric_by("nowconnect_connector_agents") == {("peer",): 1}
    assert hub.metric("nowconnect_open_latency_seconds_count") == 3
    assert hub.metric("nowconnect_memory_held_bytes") == 0
    assert hub.metric("process_open_fds") > 0
    wait_until(lambda: hub.metric("nowconnect_tunnel_rtt_seconds_count") > 0, "a measured round trip")


def test_labels_are_bounded(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    one_flow(made, peer)
    values = {value for family in made.hub.metrics() for sample in family.samples for value in sample.labels.values()}
    assert not any("site-1" in value or "127.0.0.1" in value for value in values), values


def test_status_shows_agents_listeners_and_flows(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    with Bystander(made, peer):
        wait_until(lambda: made.hub.status()["agents"][0]["rtt_ms"], "a measured round trip")
        status = made.hub.status()
    (agent,) = status["agents"]
    (listener,) = status["listeners"]
    assert (agent["connectors"], agent["flows"], agent["draining"]) == (["peer"], 1, False)
    assert agent["epoch"] >= 1 and 0 < agent["rtt_ms"] < 10_000 and agent["token_expires_sec"] > 3000
    assert (listener["name"], listener["connector"], listener["active"]) == ("peer", "peer", 1)
    assert listener["accepting"] is True
    assert (status["role"], status["state"], status["mode"]) == ("hub", "serving", "off")
    assert status["ready"]["status"] == "ready" and status["pid"] == made.hub.program.pid
    assert status["flows"]["active"] == 1


def test_access_line_tells_the_whole_story_of_a_flow(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    one_flow(made, peer)
    line = made.hub.log.wait(ACCESS)
    assert (line["listener"], line["connector"], line["agent_id"]) == ("peer", "peer", "site-1"), line
    assert (line["reason"], line["resumes"], line["path"]) == ("closed", 0, "local"), line
    assert 1000 < line["bytes_in"] < 1500 and line["bytes_out"] == 5000, line
    assert line["client"].startswith("127.0.0.1:") and line["cid"] and line["duration"] >= 0, line


def test_sigterm_right_after_a_thousand_flows_loses_no_line(topology: MakeTopology) -> None:
    with recorder() as (address, _):
        made = topology({"peer": address})

        async def flow() -> None:
            reader, writer = await asyncio.open_connection(*made.address("peer"))
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

        async def flows() -> None:
            for _ in range(20):
                await asyncio.gather(*(flow() for _ in range(50)))

        asyncio.run(flows())
        for program in (made.hub, made.agent):
            program.program.signal(signal.SIGTERM)
        for program in (made.hub, made.agent):
            assert program.program.wait(PATIENCE) == 0
            lines = program.log.events(ACCESS)
            assert len({line["cid"] for line in lines}) == len(lines) == 1000
        stopped = made.hub.log.events("stopped")[0]
        assert (stopped["flows_opened"], stopped["flows_closed"]) == (1000, 1000)


def test_nothing_private_is_in_the_logs(topology: MakeTopology, peer: Peer) -> None:
    """Addresses masked as by default, agents as they may be, the most talkative level; addresses, identities, tokens,
    payload are the canaries."""
    talkative = {"logging": {"level": "debug", "mask": None, "mask_agents": "truncate"}}
    made = topology({"peer": peer.address}, agents=0, hub=talkative, agent=talkative)
    secret_agent = "canary-agent-7f3a"
    made.add_agent(secret_agent)
    with socket.create_connection(made.address("peer"), 20, ("127.9.8.7", 0)) as client:
        client.sendall(b"canary-payload-51c2\n")
        client.shutdown(socket.SHUT_WR)
        try:
            client.recv(1)
        except ConnectionResetError:
            pass
    with socket.create_connection(made.hub.edge, 20, ("127.9.8.7", 0)) as client:
        client.sendall(b"GET /tunnel HTTP/1.1\r\nHost: canary-host-9d\r\n")
        client.sendall(b"Authorization: Bearer canary-token-11\r\n\r\n")
        client.recv(4096)
    one_flow(made, peer)
    made.hub.wait_idle()
    assert made.agent.stop() == 0
    canaries = [secret_agent, "127.9.8.7", "canary-payload-51c2", "canary-host-9d", "canary-token-11"]
    canaries.append(made.agent.token_file.read_text())
    canaries.append(made.key_file.read_text())
    for program in (made.hub.program, made.agent.program):
        text = program.err_path.read_text() + program.out_path.read_text()
        for canary in canaries:
            assert canary not in text, f"{canary!r} is in the log of {program.name}"
