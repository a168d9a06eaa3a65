"""Ways from hub to hub as operators choose them: with certificates, a shared secret, Unix sockets, through an
ingress."""

from __future__ import annotations

import signal
import socket

import pytest
import trustme
from support.bystander import Bystander
from support.cluster import Cluster, Security
from support.ldap import LdapLoop
from support.ncfast_process import merged
from support.peer import Peer
from support.raw_tunnel import upgrade_request
from support.transfer import MIB, Transfer, strike
from support.until import wait_until

CARRIER = {"secret": "stream", "tls": "stream", "unix": "stream", "ingress": "websocket"}


@pytest.mark.parametrize("security", CARRIER)
def test_flows_cross_the_mesh_and_survive_its_hubs(make_cluster, peer: Peer, security: Security) -> None:
    cluster = make_cluster(security=security)
    owner, standby, third = cluster.wait_settled()
    for name in cluster.names:
        links = cluster.links(name)
        assert {row["carrier"] for row in links.values() if row["state"] == "up"} == {CARRIER[security]}, links
    with (
        LdapLoop(cluster.address(third, "ldap"), third),
        Transfer(peer, cluster.address(third), third, 32 * MIB) as far,
    ):
        strike(lambda: cluster.kill(owner), far)
        cluster.wait_owner(other_than=owner)
        far.wait_withheld()
        cluster.start(owner)
        cluster.wait_settled()
    assert cluster.line_of(third, far)["resumes"] >= 1


def test_hub_with_the_wrong_secret_stays_out(make_cluster, peer: Peer) -> None:
    cluster = make_cluster(security="secret")
    owner, _, third = cluster.wait_settled()
    refused = cluster.hubs[owner].metric("nowconnect_mesh_handshakes_refused_total")
    assert cluster.stop(third) == 0
    hub = cluster.hubs[third]
    wrong = cluster.directory / "wrong.secret"
    wrong.write_text("x" * 64)
    wrong.chmod(0o600)
    hub.write_config(merged(hub.config, {"ha": {"mesh": {"secret_file": str(wrong)}}}))
    cluster.start(third)
    cluster.wait_degraded(third, "mesh_missing")
    wait_until(lambda: sum(row["errors"] for row in cluster.links(third).values()), "its attempts to have failed")
    wait_until(
        lambda: (
            cluster.hubs[owner].metric("nowconnect_mesh_handshakes_refused_total") > refused
            or cluster.links(owner)[third]["errors"]
        ),
        "the refusal counted at the other end",
    )
    assert cluster.stop(third) == 0
    hub.write_config(hub.config)
    cluster.start(third)
    cluster.wait_settled()


def test_certificates_are_exchanged_under_living_links(make_cluster, peer: Peer) -> None:
    """A new CA beside the old one, leaves of the new one, the old one gone: by SIGHUP, and once by the files alone. No
    link is lost; who comes back afterwards comes with a certificate of the new CA, and one of another CA stays out."""
    cluster = make_cluster(security="tls")
    owner, _, third = cluster.wait_settled()
    first, second = trustme.CA(), trustme.CA()
    before = losses(cluster)
    with Bystander(cluster.door(third), peer) as beside:
        cluster.trust(cluster.authority, first)
        reload_all(cluster)
        for name in cluster.names:
            cluster.certify(name, first)
        reload_all(cluster)
        cluster.trust(first, second)
        for name in cluster.names:
            cluster.certify(name, second)
        beside.goes_on()
        assert losses(cluster) == before
    assert cluster.stop(owner) == 0
    cluster.start(owner)  # with a certificate that only the new bundle knows: the others have read it by themselves
    cluster.wait_settled()

    refused = {name: cluster.hubs[name].metric("nowconnect_mesh_handshakes_refused_total") for name in cluster.names}
    assert cluster.stop(third) == 0
    cluster.certify(third, trustme.CA())
    cluster.start(third)
    cluster.wait_degraded(third, "mesh_missing")
    others = [name for name in cluster.names if name != third]
    wait_until(
        lambda: any(
            cluster.hubs[name].metric("nowconnect_mesh_handshakes_refused_total") > refused[name] for name in others
        ),
        "the stranger refused",
    )
    cluster.certify(third, second)
    cluster.hubs[third].program.signal(signal.SIGHUP)
    cluster.wait_settled()


def losses(cluster: Cluster) -> dict[str, tuple[float, float]]:
    """Mesh links that failed or came back so far, by hub."""
    return {
        name: (hub.metric("nowconnect_mesh_link_errors_total"), hub.metric("nowconnect_mesh_link_reconnects_total"))
        for name, hub in cluster.hubs.items()
    }


def reload_all(cluster: Cluster) -> None:
    for hub in cluster.hubs.values():
        assert hub.reload(hub.config)


FORGED = (
    "X-Forwarded-Proto: https",
    "X-SSL-Client-Verify: SUCCESS",
    "X-SSL-Client-SAN: DNS:hub-b",
)


def test_ingress_headers_count_from_the_ingress_alone(make_cluster) -> None:
    """A client that reaches the edge by itself may say what it likes: 403, and never a link."""
    cluster = make_cluster(security="ingress")
    cluster.wait_settled()
    hub = cluster.hubs["hub-a"]
    before = hub.metric("nowconnect_mesh_handshakes_refused_total")
    for source, headers in (("127.9.8.7", FORGED), ("127.9.8.7", ()), ("127.0.0.1", ())):
        with socket.create_connection(hub.edge, 30, (source, 0)) as client:
            client.sendall(upgrade_request(None, path="/mesh", headers=headers))
            answer = client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 403 "), (source, headers, answer)
    assert hub.metric("nowconnect_mesh_handshakes_refused_total") >= before + 3
