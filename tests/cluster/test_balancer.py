"""A TCP balancer in front of the hubs' listeners, as the runbook has it: what its clients see."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.conftest import MakeCluster
from support.cluster import Cluster
from support.haproxy import PAGE, HAProxy, listen_section
from support.namespaces import Namespaces
from support.ncfast_process import merged
from support.peer import Peer, byte_exact, run_flow
from support.process import require

from ncfast.config.hub import DRAIN_DELAY

CONNECTIONS = 1000
AT_ONCE = 4
LATER = 3600  # seconds of delay that the test itself ends, when HAProxy has noticed
BALANCED = {"proxy_protocol": "v2", "proxy_from": ["127.0.0.0/8"]}


@contextmanager
def balanced(make_cluster: MakeCluster, tmp_path: Path, delay: float = 0) -> Iterator[tuple[Cluster, HAProxy]]:
    """A cluster whose hubs drain with that delay, and HAProxy in front of it, to which all are up."""
    cluster = make_cluster(listener=BALANCED, hub={"drain": {"delay_sec": delay}})
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


def test_rolling_restart_behind_haproxy_loses_no_new_connection(
    make_cluster: MakeCluster, tmp_path: Path, peer: Peer
) -> None:
    with balanced(make_cluster, tmp_path, LATER) as (cluster, haproxy):
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


def test_a_reset_reaches_clients_of_haproxy_as_a_clean_end(
    make_cluster: MakeCluster, tmp_path: Path, peer: Peer
) -> None:
    """It is no wish of ours. When this fails, HAProxy has learnt to pass resets on: the runbook's table and the README
    are to say so."""
    with balanced(make_cluster, tmp_path) as (_, haproxy):
        cut = asyncio.run(run_flow(peer, haproxy.address, client=[["drain"]], service=[["send", 2000], ["rst"]]))
    assert cut.client.error is None and cut.client.eof, cut


def nftables_of_the_page(places: Namespaces, cluster: Cluster) -> str:
    """The page's rules for a balancer in the kernel, with addresses and ports of this cluster."""
    block = re.search(r"^```nft\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    rules, count = re.subn(r"10\.0\.0\.10 ", f"{places.router} ", block[1])
    assert count == 1
    for number, hub in enumerate(cluster.hubs.values(), 1):
        there = f"10.0.0.1{number} . 389"
        assert there in rules
        rules = rules.replace(there, "%s . %d" % hub.listener("peer"))
    return rules


def test_a_reset_reaches_clients_of_a_balancer_in_the_kernel(make_cluster: MakeCluster, peer: Peer) -> None:
    (nft,) = require("nft")
    places = Namespaces()
    cluster = make_cluster(places=places, security="secret")
    rules = cluster.directory / "balancer.nft"
    rules.write_text(nftables_of_the_page(places, cluster))
    places.at_router(nft, "-f", str(rules))
    cluster.wait_settled()
    address = (places.router, 389)
    for _ in cluster.names:  # each in its turn
        cut = asyncio.run(run_flow(peer, address, client=[["drain"]], service=[["send", 2000], ["rst"]]))
        assert cut.client.error == "ECONNRESET", cut
        whole = asyncio.run(run_flow(peer, address, client=[["drain"]], service=[["send", 2000], ["fin"]]))
        byte_exact(whole.client, 2000)
    served = [sum(hub.status()["flows"]["closed"].values()) for hub in cluster.hubs.values()]
    assert served == [2, 2, 2]


def test_the_default_delay_outlasts_the_pages_checks() -> None:
    found = re.search(r"check port \d+ inter (\d+)s fall (\d+)", listen_section())
    assert found is not None
    assert int(found[1]) * int(found[2]) + 2 <= DRAIN_DELAY  # 2 s for three answers, and those already on their way
