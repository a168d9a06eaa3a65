"""off, shadow, active, changed by SIGHUP under traffic; and what operators see of a cluster on the way."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any

from support.bystander import Bystander
from support.cluster import Cluster
from support.ncfast_process import ACCESS, merged, ncfast
from support.peer import Both, Peer, byte_exact, is_refused, run_flow
from support.process import child_env
from support.script import Gates
from support.until import PATIENCE, wait_until

from ncfast.observe.shadow import hindrances

FLOWS = 5
MIB = 1 << 20
CARRYING = {"M_OPEN", "M_OPEN_ACK", "M_DATA", "M_FIN", "M_RESUME"}


def turn_to(cluster: Cluster, mode: str) -> None:
    """By SIGHUP, hub by hub."""
    for hub in cluster.hubs.values():
        hub.config = merged(hub.config, {"ha": {"mode": mode}})
        assert hub.reload(hub.config)
        assert hub.status()["mode"] == mode


def serves(cluster: Cluster, name: str, peer: Peer, count: int = FLOWS) -> None:
    for _ in range(count):
        both = asyncio.run(
            run_flow(
                peer,
                cluster.address(name),
                client=[["send", 1000], ["fin"], ["drain"]],
                service=[["drain"], ["send", 5000]],
            )
        )
        byte_exact(both.client, 5000)


def decisions(cluster: Cluster, name: str) -> dict[tuple[str, ...], int]:
    """(decision, agrees) of the hub's shadow, of what has happened."""
    return {
        (sample.labels["decision"], sample.labels["agrees"]): int(sample.value)
        for family in cluster.hubs[name].metrics()
        for sample in family.samples
        if sample.name == "nowconnect_shadow_decisions_total" and sample.value
    }


def served(cluster: Cluster, name: str) -> dict[tuple[str, ...], float]:
    """Clients by (connector, whom active would have served them by), where there were any."""
    found = cluster.hubs[name].metric_by("nowconnect_shadow_clients_total")
    return {labels: count for labels, count in found.items() if count}


def mesh_frames(cluster: Cluster, name: str) -> dict[str, float]:
    """Frames over the hub's mesh links so far, by type, both directions together."""
    totals: dict[str, float] = {}
    for (_, kind), count in cluster.hubs[name].metric_by("nowconnect_mesh_frames_total").items():
        totals[kind.upper()] = totals.get(kind.upper(), 0) + count
    return totals


def test_modes_are_turned_to_one_after_the_other(make_cluster, peer: Peer) -> None:
    cluster = make_cluster(hub={"ha": {"mode": "off"}}, listener={"hold_sec": 0})
    owner = cluster.wait_owner()
    other = next(name for name in cluster.names if name != owner)
    for name in cluster.names:
        wait_until(
            lambda name=name: cluster.hubs[name].status()["uptime_sec"] > 6, "agents to have come back after the start"
        )
    serves(cluster, owner, peer)
    assert is_refused(cluster.address(other))
    assert not decisions(cluster, owner) and not decisions(cluster, other)
    with Bystander(cluster.door(owner), peer) as beside:
        turn_to(cluster, "shadow")
        wait_until(lambda: mesh_frames(cluster, other).get("PONG"), "a probe over the mesh answered")
        wait_until(lambda: cluster.routes(other) and cluster.routes(owner), "the agent known at both")
        serves(cluster, owner, peer)
        for _ in range(FLOWS):
            assert is_refused(cluster.address(other))
        assert decisions(cluster, owner) == {("local", "yes"): FLOWS}
        assert decisions(cluster, other) == {("mesh", "no"): FLOWS}
        assert served(cluster, owner) == {("peer", "here"): FLOWS}
        assert served(cluster, other) == {("peer", "mesh"): FLOWS}
        assert hindrances(cluster.hubs[owner].status()) == hindrances(cluster.hubs[other].status()) == []
        for name in cluster.names:
            assert not CARRYING & {kind for kind, count in mesh_frames(cluster, name).items() if count}, (
                "shadow carried a flow"
            )
            assert cluster.readiness(name) == (200, {"status": "ready"})

        assert not any(hub.metric("nowconnect_agents_standby") for hub in cluster.hubs.values())
        turn_to(cluster, "active")
        cluster.wait_ready()
        cluster.wait_settled()  # with a standby, that the agent has sought by itself
        serves(cluster, other, peer)
        assert decisions(cluster, other) == {("mesh", "no"): FLOWS}
        line = cluster.hubs[other].log.wait(ACCESS, reason="closed")
        assert (line["path"], line["agent_id"]) == ("mesh", cluster.agent.agent_id), line
        with Bystander(cluster.door(other), peer) as across:
            turn_to(cluster, "shadow")
            assert is_refused(cluster.address(other)), "a new flow across the mesh in shadow mode"
            across.goes_on()
            beside.goes_on()
            turn_to(cluster, "off")
            serves(cluster, owner, peer)
            turn_to(cluster, "active")
            beside.goes_on()
    cluster.wait_ready()
    serves(cluster, other, peer)


def test_a_flow_across_the_mesh_outlives_the_mesh_that_is_turned_off(make_cluster, peer: Peer) -> None:
    """Its link stays until it has ended, like the links of shadow mode; nothing new comes over it."""
    grace = {"flow": {"flow_grace_sec": 3}}
    cluster = make_cluster(hub=grace, agent=grace, listener={"hold_sec": 0})
    owner, _, third = cluster.wait_settled()
    gates = Gates()

    async def scenario() -> Both:
        seed = peer.next_seed()
        client = [["send", 1], ["wait", "later"], ["send", MIB], ["fin"], ["drain"]]
        flow = asyncio.create_task(
            run_flow(
                peer, cluster.address(third), seed=seed, gates=gates, client=client, service=[["drain"], ["send", MIB]]
            )
        )
        await peer.reached(seed)
        assert cluster.hubs[owner].metric("nowconnect_flows_relayed") == 1
        await asyncio.to_thread(turn_to, cluster, "off")
        await asyncio.sleep(2 * grace["flow"]["flow_grace_sec"])  # what had lost its way would be over by then
        assert await asyncio.to_thread(is_refused, cluster.address(third)), "a new flow across the mesh"
        gates["later"].set()
        return await flow

    both = asyncio.run(scenario())
    byte_exact(both.client, MIB)
    byte_exact(both.service, 1 + MIB)
    assert both.client.error is None and both.service.error is None, both
    for name in cluster.names:
        wait_until(lambda name=name: not cluster.hubs[name].status()["cluster"]["mesh"], "the links are gone")
    serves(cluster, owner, peer)
    turn_to(cluster, "active")
    cluster.wait_ready()
    serves(cluster, third, peer)


NAMES = {
    "nowconnect_mesh_links",
    "nowconnect_mesh_frames_total",
    "nowconnect_mesh_rtt_seconds_count",
    "nowconnect_owner_epoch_mismatch_total",
    "nowconnect_cid_dedup_dropped_total",
    "nowconnect_mesh_link_reconnects_total",
    "nowconnect_mesh_link_errors_total",
    "nowconnect_mesh_link_queued_frames",
    "nowconnect_mesh_link_inflight_bytes",
    "nowconnect_flows_by_path_total",
    "nowconnect_flows_resumed_total",
    "nowconnect_flow_failovers_total",
    "nowconnect_open_latency_seconds_count",
    "nowconnect_registry_latency_seconds_count",
    "nowconnect_registry_healthy",
}


def test_metrics_and_status_after_a_failover(make_cluster, peer: Peer) -> None:
    """The names that dashboards know, with values that tell of what has happened; no agent and no address in a
    label."""
    cluster = make_cluster()
    owner, standby, third = cluster.wait_settled()
    assert cluster.redis is not None
    with Bystander(cluster.door(third), peer) as across:
        cluster.kill(owner)
        cluster.wait_owner(other_than=owner)
        across.goes_on()
        serves(cluster, third, peer)
        cluster.redis.kill()
        cluster.wait_degraded(third, "registry_unhealthy")
        cluster.redis.start()
        cluster.start(owner)
        cluster.wait_settled()
        hub = cluster.hubs[third]
        wait_until(lambda: hub.metric("nowconnect_mesh_rtt_seconds_count"), "a measured round trip")
        wait_until(lambda: hub.metric_by("nowconnect_mesh_links").get((owner, "up")), "the link that came back")
        found = {sample.name: sample for family in hub.metrics() for sample in family.samples}
        assert not NAMES - found.keys()
        assert hub.metric_by("nowconnect_flows_by_path_total")["mesh",] >= 1 + FLOWS
        for name in (
            "nowconnect_flows_resumed_total",
            "nowconnect_flow_failovers_total",
            "nowconnect_mesh_link_reconnects_total",
            "nowconnect_mesh_link_errors_total",
            "nowconnect_registry_latency_seconds_count",
            "nowconnect_registry_errors_total",
        ):
            assert hub.metric(name) >= 1, name
        assert hub.metric_by("nowconnect_flows_active_by_path")["mesh",] == 1
        assert sum(cluster.hubs[name].metric("nowconnect_flows_relayed") for name in cluster.names) == 1
        labels = {value for family in hub.metrics() for sample in family.samples for value in sample.labels.values()}
        assert not any(cluster.agent.agent_id in value or "127." in value for value in labels), labels
        show_status(cluster, third)


def show_status(cluster: Cluster, name: str) -> None:
    """`ncfast status` shows hubs, links, agents, epochs, flows; in JSON it is the snapshot."""
    host, port = cluster.hubs[name].admin
    snapshot = json.loads(run("status", "--url", f"http://{host}:{port}", "--json"))
    table: dict[str, Any] = snapshot["cluster"]
    assert {row["replica_id"] for row in table["replicas"]} == set(cluster.names)
    assert [row["replica_id"] for row in table["replicas"] if row["self"]] == [name]
    (agent,) = table["agents"]
    assert (agent["owner"], agent["epoch"]) == (cluster.wait_owner(), cluster.epochs()[-1])
    text = run("status", "--url", f"http://{host}:{port}")
    for word in (*cluster.names, str(agent["epoch"])):
        assert word in text, (word, text)


def run(*arguments: str) -> str:
    done = subprocess.run(ncfast(*arguments), capture_output=True, text=True, timeout=PATIENCE, env=child_env())
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout
