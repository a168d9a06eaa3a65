"""Stolen tokens at a running hub: what a token opens with a certificate that is not its bearer's, or with none."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from support.bystander import Bystander
from support.peer import Peer
from support.raw_tunnel import RawTunnel, upgrade_request
from support.topology import Topology


class Site:
    """An agent's certificate, by an authority that the hub trusts."""

    def __init__(self, ca: trustme.CA, directory: Path, name: str) -> None:
        issued = ca.issue_cert(name)
        pem = issued.cert_chain_pems[0].bytes()
        self.thumbprint = x509.load_pem_x509_certificate(pem).fingerprint(SHA256())
        self.files = {"cert_file": str(directory / f"{name}.crt"), "key_file": str(directory / f"{name}.key")}
        Path(self.files["cert_file"]).write_bytes(pem)
        issued.private_key_pem.write_to_path(self.files["key_file"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    peer = Peer(tmp_path_factory.mktemp("service"))
    yield peer
    peer.stop()


class Door:
    """A hub that demands client certificates, and two sites that have one each."""

    def __init__(self, directory: Path, service: Peer, hub: dict[str, Any] | None = None) -> None:
        ca = trustme.CA()
        self.ca_file = directory / "ca.pem"
        ca.cert_pem.write_to_path(self.ca_file)
        own = ca.issue_cert("127.0.0.1")
        pem, key = directory / "hub.crt", directory / "hub.key"
        pem.write_bytes(own.cert_chain_pems[0].bytes())
        own.private_key_pem.write_to_path(key)
        self.a, self.b = Site(ca, directory, "site-a"), Site(ca, directory, "site-b")
        tls = {"cert_file": str(pem), "key_file": str(key), "client_ca_file": str(self.ca_file)}
        self.made = Topology(directory, {"peer": service.address}, agents=0, hub={"edge": {"tls": tls}, **(hub or {})})

    def agent(self, name: str, shown: Site, token: str, *, wait: bool) -> Any:
        return self.made.add_agent(
            name,
            hubs=[f"wss://127.0.0.1:{self.made.hub.edge[1]}/tunnel"],
            token=token,
            overrides={"tls": {"ca_file": str(self.ca_file), **shown.files}},
            wait=wait,
        )

    def refuses(self, name: str, shown: Site, token: str, reason: str) -> None:
        """Such an agent is turned away twice, for that reason, and is never one of the hub's."""
        before = len(self.made.hub.log.events())
        agent = self.agent(name, shown, token, wait=False)
        agent.log.wait("connect_failed", count=2, reason="http_401")
        assert not agent.log.events("tunnel_up")
        self.made.hub.log.wait("auth_failed", count=2, after=before, reason=reason)
        assert {event["reason"] for event in self.made.hub.log.events("auth_failed", after=before)} == {reason}
        assert name not in [each["agent_id"] for each in self.made.hub.status()["agents"]]
        agent.stop()
        self.made.agents.remove(agent)


@pytest.fixture
def door(tmp_path: Path, service: Peer) -> Iterator[Any]:
    made: list[Door] = []

    def make(**options: Any) -> Door:
        made.append(Door(tmp_path, service, **options))
        return made[-1]

    yield make
    for each in made:
        each.made.close()


def test_a_stolen_token_bound_to_a_certificate_opens_nothing_with_another_one(door: Any, service: Peer) -> None:
    here = door()
    token = here.made.token("site-b", certificate=here.b.thumbprint)
    here.refuses("site-b", here.a, token, "certificate_mismatch")
    here.agent("site-b", here.b, token, wait=True)
    with Bystander(here.made, service):
        assert [each["agent_id"] for each in here.made.hub.status()["agents"]] == ["site-b"]


def test_a_tunnel_takes_no_token_that_is_bound_to_another_certificate_than_it_was_opened_with(
    door: Any, service: Peer
) -> None:
    here = door()
    agent = here.agent("site-b", here.b, here.made.token("site-b", certificate=here.b.thumbprint), wait=True)
    agent.token_file.write_text(here.made.token("site-b", certificate=here.a.thumbprint))
    agent.program.signal(signal.SIGHUP)
    here.made.hub.log.wait("auth_failed", reason="certificate_mismatch", refresh=True)
    agent.log.wait("token_refused")
    agent.token_file.write_text(here.made.token("site-b", certificate=here.b.thumbprint))
    agent.program.signal(signal.SIGHUP)
    here.made.hub.log.wait("token_refreshed")
    with Bystander(here.made, service):
        pass


def test_a_stolen_bearer_token_opens_nothing_with_a_certificate_that_does_not_name_its_agent(
    door: Any, service: Peer
) -> None:
    here = door(hub={"auth": {"jwt": {"certificate_name": "DNS:{sub}"}}})
    here.refuses("site-b", here.a, here.made.token("site-b"), "certificate_name")
    here.agent("site-b", here.b, here.made.token("site-b"), wait=True)
    with Bystander(here.made, service):
        pass


def test_a_token_bound_to_a_certificate_is_no_bearer_token_where_none_is_asked_for(
    tmp_path: Path, service: Peer
) -> None:
    made = Topology(tmp_path, {"peer": service.address}, agents=0)
    try:
        bound = made.token("site-b", certificate=bytes(32))
        forged = f"X-Forwarded-Client-Cert: Hash={'00' * 32}"  # believed of no stranger
        for headers in ((), (forged, "X-Forwarded-Proto: https")):
            with RawTunnel(made.hub.edge) as thief:
                thief.send(upgrade_request(bound, headers=headers))
                assert thief.head()[0] == 401
        made.hub.log.wait("auth_failed", count=2, reason="certificate_missing")
    finally:
        made.close()
