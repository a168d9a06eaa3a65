"""Agents move back to hubs that were away, with flows under way, and by an operator's command."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack

from support.cluster import AGENT, Cluster
from support.fleet import Fleet
from support.ncfast_process import ncfast
from support.peer import Peer
from support.services import run
from support.transfer import MIB, Transfer
from support.until import PATIENCE, wait_until

LEVEL = {"ha": {"level": {"enabled": True, "rest_sec": 1, "moves_per_sec": 20}}}
AGENTS = 36
SHARE = AGENTS // 3


def spread(fleet: Fleet) -> bool:
    """As far as they are levelled: no hub has more than one above its share."""
    owned = fleet.owned()
    return owned.total() == AGENTS and len(owned) == 3 and max(owned.values()) <= SHARE + 1


def levelling(cluster: Cluster) -> bool:
    levels = [hub.status()["cluster"]["level"] for hub in cluster.hubs.values()]
    return any(one["levelling"] or one["under_way"] for one in levels)


def asked(cluster: Cluster) -> float:
    """How many have been asked to move by the hubs' present processes."""
    return sum(hub.metric_by("nowconnect_level_moves_total").get(("asked",), 0) for hub in cluster.hubs.values())


def uptime(cluster: Cluster) -> float:
    """Of the hub that started last, seconds."""
    return min(hub.status()["uptime_sec"] for hub in cluster.hubs.values())


def test_a_rolling_restart_ends_with_the_agents_spread_and_no_flow_lost(make_cluster, peer: Peer) -> None:
    cluster: Cluster = make_cluster({"peer": peer.address}, hub=LEVEL, agents=False)
    with Fleet(cluster, AGENTS) as fleet:
        # all have come to the first hub of their files
        wait_until(lambda: spread(fleet), lambda: f"spread over the hubs: {fleet.owned()}")
        for name in cluster.names:
            other = next(one for one in cluster.names if one != name)
            with Transfer(peer, cluster.address(other), f"through {other} while {name} restarts", 8 * MIB) as transfer:
                transfer.wait_under_way()
                transfer.surge()
                assert cluster.stop(name) == 0
                wait_until(lambda: fleet.owned().total() == AGENTS, lambda: f"owned without {name}: {fleet.owned()}")
                transfer.wait_withheld()
            cluster.start(name)
            cluster.wait_ready()
        with ExitStack() as running:
            through = [
                running.enter_context(Transfer(peer, cluster.address(name), f"through {name}", 8 * MIB))
                for name in cluster.names
                for _ in range(4)
            ]
            for transfer in through:
                transfer.wait_under_way()
                transfer.surge()
            wait_until(lambda: spread(fleet), lambda: f"spread over the hubs again: {fleet.owned()}")
            for transfer in through:
                transfer.wait_withheld()
        wait_until(lambda: fleet.settled() and not levelling(cluster), lambda: f"at rest: {fleet.standing()}")
        owned, moves, since = fleet.owned(), asked(cluster), uptime(cluster)
        wait_until(lambda: uptime(cluster) >= since + 8.0, "rests that are over, and several looks")
        assert fleet.owned() == owned and asked(cluster) == moves  # nothing moves back
    for hub in cluster.hubs.values():
        wait_until(lambda hub=hub: not hub.status()["agents"], "the agents gone")


def move(cluster: Cluster, at: str, *arguments: str) -> str:
    """By the command, as an operator does."""
    host, port = cluster.hubs[at].admin
    return run(ncfast("agents", "move", *arguments, "--url", f"http://{host}:{port}")).stdout


def test_an_agent_is_moved_by_hand_with_its_flows(cluster: Cluster, peer: Peer) -> None:
    """To each of the hubs in turn, to its standby's and to the third."""
    with ExitStack() as running:
        transfers = [
            running.enter_context(Transfer(peer, cluster.address(name), f"through {name}", 32 * MIB))
            for name in cluster.names
        ]
        for transfer in transfers:
            transfer.wait_under_way()
        for turn in range(4):
            owner, standby, third = cluster.wait_settled()
            to = (third, standby)[turn % 2]
            if turn == 1:
                for transfer in transfers:
                    transfer.surge()
            assert move(cluster, owner, AGENT, to) == f"{AGENT}: asked to move to {to}\n"
            assert cluster.wait_owner(other_than=owner) == to
        for transfer in transfers:
            transfer.wait_withheld()
    assert not cluster.agent.log.events("move_refused")
    assert not any(hub.metric("nowconnect_takeovers_total") for hub in cluster.hubs.values())
    owner, standby, _ = cluster.wait_settled()
    refused = subprocess.run(
        ncfast("agents", "move", AGENT, "--url", "http://%s:%d" % cluster.hubs[standby].admin),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert refused.returncode == 1 and refused.stderr == f"ncfast: {AGENT} is owned by {owner}: ask there\n"
