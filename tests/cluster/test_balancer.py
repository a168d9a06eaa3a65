"""A TCP balancer in front of the hubs' listeners, as the runbook has it: what its clients see."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.conftest import MakeCluster
from support.cluster import Cluster
from support.haproxy import HAProxy, listen_section
from support.ncfast_process import merged
from support.peer import Peer, byte_exact, run_flow

from ncfast.config.hub import DRAIN_DELAY

CONNECTIONS = 1000
AT_ONCE = 4
LATER = 3600  # seconds of delay that the test itself ends, when HAProxy has noticed
BALANCED = {"proxy_protocol": "v2", "proxy_from": ["127.0.0.0/8"]}


@pytest.fixture
def balancer(make_cluster: MakeCluster, tmp_path: Path) -> Iterator[tuple[Cluster, HAProxy]]:
    cluster = make_cluster(listener=BALANCED, hub={"drain": {"delay_sec": LATER}})
    cluster.wait_settled()
    haproxy = HAProxy(tmp_path, cluster.hubs, "peer")
    try:
        for name in cluster.names:
            haproxy.wait(name, "UP")
        yield cluster, haproxy
    finally:
        haproxy.stop()


class Clients:
    """Short connections one after another, some at once, until told to stop; each must bring its bytes."""

    def __init__(self, peer: Peer, haproxy: HAProxy) -> None:
        self._peer = peer
        self._address = haproxy.address
        self.served = 0
        self.failed: list[str] = []
        self.over = False

    async def come(self) -> None:
        while not self.over:
            try:
                both = await run_flow(self._peer, self._address, client=[["drain"]], service=[["send", 2000], ["fin"]])
                byte_exact(both.client, 2000)
                assert both.client.error is None, both
            except (OSError, AssertionError, TimeoutError) as error:
                self.failed.append(repr(error)[:300])
            else:
                self.served += 1


def restart(cluster: Cluster, haproxy: HAProxy, name: str) -> None:
    """One hub, drained first. The delay lasts until HAProxy has noticed, however slow this machine is; that the
    default is long enough is arithmetic, and tested below."""
    hub = cluster.hubs[name]
    cluster.away.add(name)
    assert hub.get("/drain", admin=True, method="POST")[0] == 202
    haproxy.wait(name, "DOWN")
    assert hub.get("/drain?delay=off", admin=True, method="POST")[0] == 202
    assert hub.program.wait() == 0, hub.program.tail()
    hub.write_config(merged(hub.config, {"drain": {"delay_sec": 0}}))  # for the end of the test
    cluster.start(name)
    haproxy.wait(name, "UP")
    cluster.wait_settled()


def test_rolling_restart_behind_haproxy_loses_no_new_connection(balancer: tuple[Cluster, HAProxy], peer: Peer) -> None:
    cluster, haproxy = balancer
    clients = Clients(peer, haproxy)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(clients.come())
            try:
                for number, name in enumerate(cluster.names, 1):
                    await asyncio.to_thread(restart, cluster, haproxy, name)
                    while clients.served < CONNECTIONS * number // len(cluster.names) and not clients.failed:
                        await asyncio.sleep(0.01)
            finally:
                clients.over = True

    asyncio.run(scenario())
    assert not clients.failed, (len(clients.failed), clients.served, clients.failed[:5])
    assert clients.served >= CONNECTIONS


def test_the_default_delay_outlasts_the_pages_checks() -> None:
    found = re.search(r"check port \d+ inter (\d+)s fall (\d+)", listen_section())
    assert found is not None
    assert int(found[1]) * int(found[2]) + 2 <= DRAIN_DELAY  # 2 s for three answers, and those already on their way
