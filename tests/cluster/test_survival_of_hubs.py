"""A hub is killed, frozen, thawed as a stale owner, or drained, while transfers and searches run through the others."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

from support.bystander import Bystander
from support.cluster import Cluster
from support.ldap import LdapConversation, LdapLoop
from support.ncfast_process import ACCESS, Hub, ncfast
from support.peer import Both, Peer, byte_exact, order_line, run_flow
from support.script import pattern
from support.services import run
from support.transfer import MIB, Transfer, strike
from support.until import PATIENCE, until, wait_until


def test_owner_killed(cluster: Cluster, peer: Peer, tmp_path: Path) -> None:
    """SIGKILL: flows whose origin is another hub go on, the one at the new owner as a local one from then on."""
    owner, standby, third = cluster.wait_settled()
    with ExitStack() as running:
        for name in (standby, third):
            running.enter_context(LdapLoop(cluster.address(name, "ldap"), name))
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        far, near = (
            running.enter_context(Transfer(peer, cluster.address(name), f"through {name}")) for name in (third, standby)
        )
        strike(lambda: cluster.kill(owner), far, near)
        assert cluster.wait_owner(other_than=owner) == standby, "the standby was not used"
        talk.ask()
        for transfer in (far, near):
            transfer.wait_withheld()
    for name, transfer in ((third, far), (standby, near)):
        assert cluster.line_of(name, transfer)["resumes"] >= 1
        assert cluster.hubs[name].metric("nowconnect_flow_failovers_total") >= 1
    cluster.check_between()
    cluster.start(owner)
    cluster.wait_settled()


def test_origin_killed(cluster: Cluster, peer: Peer) -> None:
    """Its clients' sockets are gone: the flows end at the agent by name, the targets' sockets close; nothing else
    ends."""
    owner, standby, third = cluster.wait_settled()
    agent_mark = cluster.agent.log.mark()

    async def scenario() -> None:
        lost = [
            asyncio.create_task(
                run_flow(
                    peer,
                    cluster.address(third),
                    client=[["send", 10], ["read", 10], ["drain"]],
                    service=[["read", 10], ["send", 10], ["drain"]],
                )
            )
            for _ in range(5)
        ]
        await until(lambda: cluster.hubs[third].status()["bytes"]["client_out"] >= 50, "all five flows answered")
        cluster.kill(third)
        await asyncio.to_thread(cluster.start, third)  # as another process: its peers know that the former one is gone
        for both in await asyncio.gather(*lost):
            assert both.client.error == "ECONNRESET" or both.client.eof, both
            assert both.service.error == "ECONNRESET", both

    with Transfer(peer, cluster.address(standby), f"through {standby}") as beside:
        beside.surge()
        asyncio.run(scenario())
        beside.wait_withheld()
    assert cluster.line_of(standby, beside)["resumes"] == 0
    assert cluster.wait_owner() == owner
    cluster.agent.log.wait(ACCESS, count=5, after=agent_mark, reason="origin_lost")
    cluster.wait_settled()


def test_origin_killed_for_good(make_cluster, peer: Peer) -> None:
    """Nobody comes back in its place: when its lease has run out and the grace ends, the agent is told, and no
    sooner."""
    cluster = make_cluster(hub={"ha": {"lease_sec": 1}, "flow": {"flow_grace_sec": 4}})
    owner, _, third = cluster.wait_settled()

    async def scenario() -> Both:
        seed = peer.next_seed()
        flow = asyncio.create_task(
            run_flow(peer, cluster.address(third), seed=seed, client=[["send", 1], ["drain"]], service=[["drain"]])
        )
        await peer.reached(seed)
        cluster.kill(third)
        return await flow

    both = asyncio.run(scenario())
    assert both.service.error == "ECONNRESET", both
    cluster.agent.log.wait(ACCESS, reason="origin_lost")
    assert cluster.wait_owner() == owner


def test_owner_frozen_and_thawed_as_a_stale_owner(cluster: Cluster, peer: Peer, tmp_path: Path) -> None:
    """SIGSTOP, beyond the agent's keepalive and the owner's lease. When it wakes, its agent is owned under a higher
    epoch."""
    owner, standby, third = cluster.wait_settled()
    before = cluster.epochs()
    with ExitStack() as running:
        running.enter_context(LdapLoop(cluster.address(third, "ldap"), third))
        talk = running.enter_context(LdapConversation(cluster.address(third, "ldap"), tmp_path, third))
        far = running.enter_context(Transfer(peer, cluster.address(third), f"through {third}"))
        strike(lambda: cluster.freeze(owner), far)
        after = cluster.wait_grant(len(before))
        talk.ask()
        far.wait_withheld()
        wait_until(lambda: owner not in cluster.replicas(third), "the frozen hub's presence to run out")
        cluster.thaw(owner)
        cluster.wait_settled()
        talk.ask()
    assert after > before[-1]
    assert cluster.wait_owner() == standby
    assert cluster.line_of(third, far)["resumes"] >= 1
    with Transfer(peer, cluster.address(owner), f"through {owner}", 20 * MIB):
        pass


def test_clients_who_come_while_the_owner_is_frozen_are_all_served(cluster: Cluster, peer: Peer) -> None:
    """More than its agent may have opens in progress at the hub that takes over (256)."""
    owner, standby, third = cluster.wait_settled()
    cluster.freeze(owner)
    with ExitStack() as running:
        clients = []
        for name in (standby, third) * 220:
            client = running.enter_context(socket.create_connection(cluster.address(name), timeout=PATIENCE))
            client.sendall(order_line(seed := peer.next_seed(), [["echo"], ["fin"]]) + pattern(seed, 0, 4))
            clients.append((client, seed))
        for client, seed in clients:
            assert client.recv(4, socket.MSG_WAITALL) == pattern(seed, 0, 4)
            client.shutdown(socket.SHUT_WR)
    assert cluster.wait_owner(other_than=owner) == standby
    cluster.thaw(owner)
    cluster.wait_settled()


def test_frozen_origin_hurts_nobody_else(cluster: Cluster, peer: Peer) -> None:
    """What goes to it waits within the bounds of its own link; thawed, its clients go on."""
    owner, standby, third = cluster.wait_settled()
    with ExitStack() as running:
        beside = [running.enter_context(Bystander(cluster.door(name), peer)) for name in (owner, standby)]
        far = running.enter_context(Transfer(peer, cluster.address(third), f"through {third}"))
        strike(lambda: cluster.freeze(third), far)
        wait_until(lambda: third not in cluster.replicas(owner), "the frozen hub's presence to run out")
        wait_until(lambda: not cluster.linked(owner, third), "the link to it given up")
        for each in beside:
            each.goes_on()
        memory = cluster.hubs[owner].status()["memory"]
        assert memory["held_bytes"] <= 16 * MIB, memory
        cluster.thaw(third)
        far.wait_withheld()
        cluster.wait_settled()
    assert cluster.line_of(third, far)["resumes"] >= 1


def test_stale_owner_whose_links_have_lived_on(make_cluster, peer: Peer) -> None:
    """The mesh outlasts the freeze and the agent does not: what the stale owner still sends over a living link is
    refused."""
    cluster = make_cluster(hub={"ha": {"mesh": {"ping_timeout_sec": 60}}, "flow": {"stall_sec": 60}})
    owner, standby, third = cluster.wait_settled()
    before = cluster.epochs()
    with Transfer(peer, cluster.address(third), f"through {third}") as far:
        strike(lambda: cluster.freeze(owner), far)
        assert cluster.wait_grant(len(before)) > before[-1]
        far.wait_withheld()
        cluster.thaw(owner)
        cluster.wait_settled()
    assert cluster.wait_owner() == standby
    assert owner in cluster.links(third) and cluster.line_of(third, far)["resumes"] >= 1


def drain(hub: Hub) -> None:
    """As the runbook has it: by the command, which returns when the hub has begun."""
    host, port = hub.admin
    run(ncfast("drain", "--url", f"http://{host}:{port}"))


def test_rolling_restart_of_every_hub_with_drain(cluster: Cluster, peer: Peer) -> None:
    """Agents move first; clients of other hubs see nothing, a client of the draining hub may finish, new ones go
    elsewhere."""
    for name in sorted(cluster.names, key=lambda name: name != cluster.wait_owner()):
        cluster.wait_settled()
        others = [other for other in cluster.names if other != name]
        with ExitStack() as running:
            searches = [running.enter_context(LdapLoop(cluster.address(other, "ldap"), other)) for other in others]
            far = running.enter_context(
                Transfer(peer, cluster.address(others[0]), f"through {others[0]} while {name} drains")
            )
            with Transfer(peer, cluster.address(name), f"through {name} while it drains", 20 * MIB) as own:
                far.wait_under_way()
                own.wait_under_way()
                far.surge()
                cluster.away.add(name)
                drain(cluster.hubs[name])
                wait_until(lambda name=name: cluster.hubs[name].get("/readyz")[0] == 503, f"{name} draining")
                cluster.wait_owner(other_than=name)
                for search in searches:
                    search.goes_on()
            assert cluster.hubs[name].program.wait() == 0, cluster.hubs[name].program.tail()
            far.wait_withheld()
        cluster.check_between()
        cluster.start(name)
    cluster.wait_settled()


def test_new_agent_process_while_its_owner_is_dead(cluster: Cluster, peer: Peer) -> None:
    """An agent that starts anew remembers no epoch; the registry does, and its old flows end by name."""
    owner, standby, third = cluster.wait_settled()

    async def scenario() -> Both:
        seed = peer.next_seed()
        flow = asyncio.create_task(
            run_flow(
                peer,
                cluster.address(third),
                seed=seed,
                client=[["send", 1], ["drain"]],
                service=[["drain"]],
            )
        )
        await peer.reached(seed)
        cluster.kill(owner)
        cluster.agent.program.kill()
        await asyncio.to_thread(cluster.agent.start)
        return await flow

    both = asyncio.run(scenario())
    assert both.client.error == "ECONNRESET", both
    cluster.hubs[third].log.wait(ACCESS, reason="agent_restarted")
    cluster.start(owner)
    cluster.wait_settled()
    fresh = asyncio.run(run_flow(peer, cluster.address(third), client=[["drain"]], service=[["send", 100]]))
    byte_exact(fresh.client, 100)


def test_every_hub_killed_at_once(cluster: Cluster, peer: Peer) -> None:
    """The agent finds the first that is back, the mesh closes again, and the epochs go on where they were."""
    cluster.wait_settled()
    before = cluster.epochs()
    for name in cluster.names:
        cluster.kill(name)
    for name in cluster.names:
        cluster.start(name)
    cluster.wait_settled()
    assert cluster.epochs()[len(before)] > before[-1]
    for name in cluster.names:
        with Transfer(peer, cluster.address(name), f"through {name}", 8 * MIB):
            pass
