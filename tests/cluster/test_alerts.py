"""The shipped rules and the dashboard, in a real Prometheus that scrapes a real cluster in which things go wrong."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.test_modes import serves
from support.cluster import Cluster
from support.ncfast_process import merged
from support.peer import Peer, is_refused, order_line
from support.prometheus import RULES, SHIPPED, Prometheus
from support.until import PATIENCE, wait_until

CLUSTER = {
    "proxied": ("mesh",),
    "listener": {"hold_sec": 1},
    "hub": {"ha": {"cluster": "east"}, "flow": {"flow_grace_sec": 600}},
}
DASHBOARD = SHIPPED.parent / "grafana" / "ncfast.json"
CHOSEN = {"$__rate_interval": "1m", "$hub": "hub-.*", "$cluster": "east", "$listener": ".*"}
# Series that are not there in a cluster that is well, whose hubs are not levelled and show no certificate.
ABSENT = {"nowconnect_level_share", "nowconnect_certificate_expires_seconds", "ALERTS"}


def talk(cluster: Cluster, name: str, peer: Peer) -> socket.socket:
    """A client whose flow is open."""
    sock = socket.create_connection(cluster.address(name), timeout=PATIENCE)
    sock.sendall(order_line(peer.next_seed(), [["echo"], ["fin"]]) + b"?")
    assert sock.recv(1) == b"?"
    return sock


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[Prometheus]:
    program = Prometheus(tmp_path, cluster.places, {name: hub.admin for name, hub in cluster.hubs.items()})
    try:
        program.wait(f"count(nowconnect_uptime_seconds offset 2s) == {len(cluster.names)}")  # rates need two scrapes
        yield program
        assert not program.broken_rules()
    finally:
        program.stop()


def drawn() -> list[str]:
    """What the dashboard's panels ask, as Grafana would with its variables."""
    asked = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in CHOSEN.items():
                expression = expression.replace(variable, value)
            asked.append(expression)
    return asked


def selectors(expression: str) -> set[str]:
    """The series that it looks at: a metric with its matchers."""
    text = re.sub(r"(?:by|on|group_left|ignoring) \([^)]*\)", "", expression)
    return set(re.findall(r"(?:nowconnect_|process_|cluster(?:_listener)?:ncfast_|up\b)[\w:]*(?:\{[^}]*\})?", text))


def test_every_expression_finds_its_series(cluster: Cluster, prometheus: Prometheus, peer: Peer) -> None:
    """A name that nobody exports, a label that is not there, a word that is never said: each is an empty panel, or an
    alert that cannot fire."""
    owner, _, third = cluster.wait_settled()
    serves(cluster, owner, peer)
    serves(cluster, third, peer)
    written = "\n".join((SHIPPED / name).read_text() for name in RULES)
    rules = re.findall(r"^    expr: (?:\|-?\n((?:      .*\n)+)|(.*)\n)", written, re.MULTILINE)
    expressions = [block or line.strip("'") for block, line in rules]
    assert len(expressions) == written.count("expr:")
    prometheus.wait("cluster:ncfast_flows_failed:rate5m >= 0 and cluster:ncfast_availability:bad_ratio3d == 0")
    for expression in [*expressions, *drawn()]:
        prometheus.query(expression)
        for selector in selectors(expression):
            if selector.partition("{")[0] not in ABSENT:
                prometheus.wait(f"count({selector})")
    assert prometheus.query("cluster:ncfast_flows_ended:rate5m")[0][0]["cluster"] == "east"


def test_a_site_is_down(cluster: Cluster, prometheus: Prometheus, peer: Peer) -> None:
    """Its flows wait, its listeners have nobody, who comes is refused. It is back as another process, and the flows are
    lost."""
    owner, _, third = cluster.wait_settled()
    with talk(cluster, owner, peer), talk(cluster, third, peer):
        agent = cluster.agent
        agent.program.signal(signal.SIGSTOP)
        for name in cluster.names:
            prometheus.wait_firing("NcfastListenerWithoutAgent", instance=name, listener="peer", cluster="east")
        prometheus.wait_firing("NcfastFlowsDetached", cluster="east")
        assert is_refused(cluster.address(third))
        prometheus.wait_firing("NcfastClientsRefused", instance=third, listener="peer")
        agent.program.kill()
        agent.start()
        prometheus.wait_firing("NcfastFlowsLost", listener="peer", reason="agent_restarted")
    cluster.wait_settled()
    prometheus.wait_quiet("NcfastListenerWithoutAgent")
    prometheus.wait_quiet("NcfastFlowsDetached")


def test_redis_is_frozen(cluster: Cluster, prometheus: Prometheus) -> None:
    assert cluster.redis is not None
    cluster.redis.freeze()
    for name in cluster.names:
        prometheus.wait_firing("NcfastRegistryAway", instance=name, cluster="east")
    prometheus.wait_firing("NcfastDegraded", cluster="east")
    assert not prometheus.firing() & {"NcfastRegistryErrors", "NcfastRegistrySlow"}
    cluster.redis.thaw()
    cluster.wait_settled()
    prometheus.wait_quiet("NcfastRegistryAway")
    prometheus.wait_quiet("NcfastDegraded")


def test_a_link_of_the_mesh_is_cut(cluster: Cluster, prometheus: Prometheus) -> None:
    one, other, _ = cluster.names
    doors = [cluster.proxies["mesh", name] for name in (one, other)]  # either may dial the other
    for door in doors:
        door.fault("down")
    for name in (one, other):
        prometheus.wait_firing("NcfastMeshLinkMissing", instance=name, cluster="east")
    for door in doors:
        door.up()
    cluster.wait_settled()
    wait_until(lambda: cluster.linked(one, other), "the link")
    prometheus.wait_quiet("NcfastMeshLinkMissing")


def test_a_hub_dies(cluster: Cluster, prometheus: Prometheus) -> None:
    """The alert has the cluster's name though nothing says it any more."""
    owner, _, _ = cluster.wait_settled()
    cluster.kill(owner)
    prometheus.wait_firing("NcfastHubDown", instance=owner, cluster="east")
    cluster.start(owner)
    cluster.wait_settled()
    prometheus.wait_quiet("NcfastHubDown")


def test_a_configuration_is_refused(cluster: Cluster, prometheus: Prometheus) -> None:
    hub = cluster.hubs["hub-b"]
    hub.expected_errors |= {"config_refused"}
    assert not hub.reload(merged(hub.config, {"flow": {"window_max": "much"}}))
    prometheus.wait_firing("NcfastConfigRefused", instance="hub-b", cluster="east")
    assert hub.reload(hub.config)
    prometheus.wait_quiet("NcfastConfigRefused")
