"""Who serves a client: a local agent first, another after a refusal, never one of another tenant or out of scope."""

from __future__ import annotations

import asyncio
import json
import socket

from support.bystander import Bystander
from support.cluster import AGENT, NAMES, Cluster
from support.peer import Both, Peer, byte_exact, is_refused, run_flow
from support.raw_peer import RawPeer
from support.services import recorder
from support.transfer import MIB, Transfer
from support.until import PATIENCE, wait_until

from ncfast._frames import FrameType
from ncfast.core.errors import Reason


def exchange(peer: Peer, cluster: Cluster, name: str, count: int = 20) -> list[Both]:
    """Flows side by side through one hub, each with some bytes both ways."""

    async def flows() -> list[Both]:
        return await asyncio.gather(
            *(
                run_flow(
                    peer,
                    cluster.address(name),
                    client=[["send", 5000], ["fin"], ["drain"]],
                    service=[["drain"], ["send", 3000]],
                )
                for _ in range(count)
            )
        )

    done = asyncio.run(flows())
    for both in done:
        byte_exact(both.service, 5000)
        byte_exact(both.client, 3000)
    return done


def paths(cluster: Cluster, name: str) -> dict[str, int]:
    """How many flows of the hub's clients were opened by each path so far."""
    found = cluster.hubs[name].metric_by("nowconnect_flows_by_path_total")
    return {path: int(found.get((path,), 0)) for path in ("local", "mesh")}


def test_local_agent_first_and_others_across_the_mesh(make_cluster, peer: Peer) -> None:
    cluster = make_cluster()
    cluster.add_agent("site-2", first="hub-b")
    cluster.wait_settled()
    owners = {cluster.wait_owner(), cluster.wait_owner(agent_id="site-2")}
    assert len(owners) == 2, owners
    (third,) = set(NAMES) - owners
    for owner in owners:
        exchange(peer, cluster, owner)
        assert paths(cluster, owner) == {"local": 20, "mesh": 0}
    exchange(peer, cluster, third)
    assert paths(cluster, third) == {"local": 0, "mesh": 20}
    relayed = {name: cluster.hubs[name].metric("nowconnect_relays_opened_total") for name in owners}
    assert sum(relayed.values()) == 20 and min(relayed.values()) >= 1, relayed


def test_open_that_was_refused_is_retried_at_another_hub(make_cluster, peer: Peer) -> None:
    """One agent's target is down. Before a target has seen a byte the client need not hear of it, wherever it came
    in."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()
    cluster = make_cluster()
    cluster.add_agent("site-2", first="hub-b", connectors={"peer": dead})
    cluster.wait_settled()
    cluster.wait_owner(agent_id="site-2")
    for name in NAMES:
        exchange(peer, cluster, name)
    assert sum(cluster.hubs[name].metric("nowconnect_flows_retried_total") for name in NAMES) >= 20


def test_tenants_are_apart_across_hubs(make_cluster) -> None:
    """One connector's name, two tenants, each with an agent on another hub; a third listener without a tenant."""
    listeners = [
        {"name": name, "bind": "127.0.0.1:0", "connector": "peer", "hold_sec": 0, **tenant}
        for name, tenant in (("red", {"tenant": "red"}), ("blue", {"tenant": "blue"}), ("plain", {}))
    ]
    with recorder(b"from red") as (red, red_seen), recorder(b"from blue") as (blue, blue_seen):
        cluster = make_cluster({"peer": red}, hub={"listeners": listeners}, agents=False)
        cluster.add_agent("site-1", first="hub-a", tenant="red")
        cluster.add_agent("site-1", first="hub-b", tenant="blue", connectors={"peer": blue}, name="agent-blue")
        for name in NAMES:
            wait_until(lambda name=name: len(cluster.routes(name)) == 2, f"both agents known at {name}")
        for name in NAMES:
            for listener, answer in (("red", b"from red"), ("blue", b"from blue")):
                with socket.create_connection(cluster.address(name, listener), timeout=PATIENCE) as client:
                    client.sendall(f"{name} {listener}".encode())
                    client.shutdown(socket.SHUT_WR)
                    assert client.recv(100) == answer
                    assert client.recv(100) == b""
            assert is_refused(cluster.address(name, "plain"))
        assert sorted(red_seen) == sorted(f"{name} red".encode() for name in NAMES)
        assert sorted(blue_seen) == sorted(f"{name} blue".encode() for name in NAMES)


def test_opens_over_the_mesh_are_checked_at_the_owner(make_cluster, peer: Peer) -> None:
    """Identity, tenant, scope, epoch and cid are checked again for each open, and a hub that is not the owner answers
    so."""
    cluster = make_cluster(agents=False, hub={"ha": {"lease_sec": 1}, "flow": {"flow_grace_sec": 3}})
    cluster.add_agent(AGENT, first="hub-a", scope=["peer"])
    owner, _, third = cluster.wait_settled()
    epoch = cluster.sessions()[owner]["epoch"]
    accepted = peer.counts()["accepted"]

    def answer(raw: RawPeer, *arguments: object, **options: object) -> Reason | None:
        cid = raw.open(*arguments, **options)
        frame = raw.wait(FrameType.M_OPEN_ACK, FrameType.M_RST, cid=cid)
        return Reason(frame.code) if frame.type is FrameType.M_RST else None

    with RawPeer(cluster.mesh_address(owner), cluster.mesh_secret) as raw:
        assert answer(raw, "ldap", AGENT, epoch) is Reason.SCOPE_DENIED
        assert answer(raw, "peer", AGENT, epoch, tenant="red") is Reason.NOT_OWNER
        assert answer(raw, "peer", "site-9", epoch) is Reason.NOT_OWNER
        assert answer(raw, "peer", AGENT, epoch - 1) is Reason.STALE_EPOCH
        assert answer(raw, "peer", AGENT, epoch + 1) is Reason.NOT_OWNER
        assert answer(raw, "peer", AGENT, epoch, cid=bytes(range(16))) is Reason.SCOPE_DENIED
        assert peer.counts()["accepted"] == accepted, "a refused open reached a target"
        assert answer(raw, "peer", AGENT, epoch) is None
    assert cluster.hubs[owner].metric("nowconnect_owner_epoch_mismatch_total") >= 1
    assert cluster.hubs[owner].log.events("scope_denied")
    with RawPeer(cluster.mesh_address(third), cluster.mesh_secret) as raw:
        assert answer(raw, "peer", AGENT, epoch) is Reason.NOT_OWNER
    wait_until(lambda: not peer.counts()["active"], "the flow of the peer that left ended at the target")


def test_resumes_over_the_mesh_want_the_flows_secret(make_cluster, peer: Peer) -> None:
    """A hub that has joined, and guesses a cid, cannot draw the flow to itself, from neither end."""
    cluster = make_cluster()
    owner, _, third = cluster.wait_settled()
    epoch = cluster.sessions()[owner]["epoch"]
    with Bystander(cluster.door(third), peer) as beside:
        with RawPeer(cluster.mesh_address(third), cluster.mesh_secret) as raw:
            cid = bytes.fromhex(raw.ack.instance) + (1).to_bytes(8, "big")
            vouch = {"agent": AGENT, "instance": "0" * 32, "window": 65536}
            payload = bytes(16) + json.dumps(vouch).encode()
            raw.send(FrameType.M_RESUME, cid=cid, epoch=epoch + 1, payload=payload)
            assert Reason(raw.wait(FrameType.M_RST, cid=cid).code) is Reason.RESUME_DENIED
        beside.goes_on()
        with RawPeer(cluster.mesh_address(owner), cluster.mesh_secret) as raw:
            sought = {"agent": AGENT, "connector": "peer"}
            payload = bytes(16) + json.dumps(sought).encode()
            raw.send(FrameType.M_RESUME, cid=cid, epoch=epoch, payload=payload)
            assert Reason(raw.wait(FrameType.M_RST, cid=cid).code) is Reason.RESUME_DENIED
        beside.goes_on()


def test_two_agents_with_one_id_do_not_take_turns(make_cluster, peer: Peer) -> None:
    """The newer wins once; the older waits before it tries again, although each has a standby that could claim at
    once."""
    cluster = make_cluster(agent={"reconnect": {"max_sec": 30}})
    cluster.wait_settled()
    clone = cluster.add_agent(AGENT, name="clone")
    wait_until(lambda: cluster.epochs(clone)[-1] > cluster.epochs(cluster.agent)[-1], "the newer one to win")
    granted = cluster.grants(cluster.agent) + cluster.grants(clone)
    for name in NAMES:
        with Transfer(peer, cluster.address(name), f"through {name} beside clones", 20 * MIB):
            exchange(peer, cluster, name, 10)
    assert cluster.grants(cluster.agent) + cluster.grants(clone) <= granted + 2
    events = [event for hub in cluster.hubs.values() for event in hub.log.events("agent_superseded")]
    assert events, "no security event tells of the clone"
