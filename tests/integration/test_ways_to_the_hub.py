"""How an agent gets to the hub: TLS, client certificates, HTTP proxies, several hubs, the command line."""

from __future__ import annotations

import base64
import datetime
import http.client
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.bystander import Bystander
from support.connect_proxy import connect_proxy
from support.ncfast_process import ncfast
from support.peer import Peer
from support.process import Program
from support.services import run
from support.topology import MakeTopology, Topology
from support.until import PATIENCE


class Certificates:
    """A throw-away CA with a server's and a client's certificate, as files."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.ca = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)
        self.server = self._issue(directory, "server", "localhost", "127.0.0.1")
        self.client = self._issue(directory, "client", "site-1.example.net")

    def _issue(
        self, directory: Path, name: str, *identities: str, not_after: datetime.datetime | None = None
    ) -> dict[str, str]:
        issued = self.ca.issue_cert(*identities, not_after=not_after)
        cert, key = directory / f"{name}.crt", directory / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return {"cert_file": str(cert), "key_file": str(key)}


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "pki")


def secure(topology: MakeTopology, peer: Peer, certificates: Certificates, **tls: Any) -> Topology:
    """A hub with TLS on its edge, and no agent yet."""
    return topology({"peer": peer.address}, agents=0, hub={"edge": {"tls": {**certificates.server, **tls}}})


def wss(made: Topology, host: str = "127.0.0.1") -> list[str]:
    return [f"wss://{host}:{made.hub.edge[1]}/tunnel"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tunnel_over_tls_with_a_ca_of_its_own(
    topology: MakeTopology, peer: Peer, certificates: Certificates, host: str
) -> None:
    made = secure(topology, peer, certificates)
    made.add_agent("site-1", hubs=wss(made, host), overrides={"tls": {"ca_file": str(certificates.ca_file)}})
    with Bystander(made, peer):
        context = ssl.create_default_context(cafile=str(certificates.ca_file))
        edge = http.client.HTTPSConnection(*made.hub.edge, context=context, timeout=PATIENCE)
        edge.request("GET", "/healthz")
        assert edge.getresponse().status == 200
        edge.close()


@pytest.mark.parametrize("trust", ["the system's CAs", "another CA"])
def test_hub_with_a_certificate_nobody_vouches_for_gets_no_token(
    topology: MakeTopology, peer: Peer, certificates: Certificates, tmp_path: Path, trust: str
) -> None:
    made = secure(topology, peer, certificates)
    other = Certificates(tmp_path / "other")
    overrides = {"tls": {"ca_file": str(other.ca_file)}} if trust == "another CA" else {}
    agent = made.add_agent("site-1", hubs=wss(made), overrides=overrides, wait=False)
    agent.log.wait("connect_failed", count=2)
    assert not agent.log.events("tunnel_up") and made.hub.status()["agents"] == []


def test_certificate_for_another_name_is_refused(
    topology: MakeTopology, peer: Peer, certificates: Certificates, tmp_path: Path
) -> None:
    wrong = certificates._issue(tmp_path / "pki", "wrong", "hub.example.net")
    made = topology({"peer": peer.address}, agents=0, hub={"edge": {"tls": wrong}})
    agent = made.add_agent(
        "site-1", hubs=wss(made), overrides={"tls": {"ca_file": str(certificates.ca_file)}}, wait=False
    )
    agent.log.wait("connect_failed", count=2)
    assert not agent.log.events("tunnel_up")


def test_client_certificate_is_demanded_and_checked(
    topology: MakeTopology, peer: Peer, certificates: Certificates, tmp_path: Path
) -> None:
    made = secure(topology, peer, certificates, client_ca_file=str(certificates.ca_file))
    trust = {"ca_file": str(certificates.ca_file)}
    foreign = Certificates(tmp_path / "foreign").client
    for name, tls in (("none", trust), ("foreign", {**trust, **foreign})):
        agent = made.add_agent(f"site-{name}", hubs=wss(made), overrides={"tls": tls}, wait=False)
        agent.log.wait("connect_failed", count=2)
        assert not agent.log.events("tunnel_up")
    made.add_agent("site-1", hubs=wss(made), overrides={"tls": {**trust, **certificates.client}})
    with Bystander(made, peer):
        assert [each["agent_id"] for each in made.hub.status()["agents"]] == ["site-1"]


def replace(files: dict[str, str], by: dict[str, str]) -> None:
    for name, path in files.items():
        Path(path).write_bytes(Path(by[name]).read_bytes())


def test_a_certificate_that_has_expired_is_named_and_the_renewed_one_is_taken(
    topology: MakeTopology, peer: Peer, certificates: Certificates, tmp_path: Path
) -> None:
    long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    expired = certificates._issue(tmp_path / "pki", "expired", "site-1.example.net", not_after=long_ago)
    made = secure(topology, peer, certificates, client_ca_file=str(certificates.ca_file))
    tls = {"ca_file": str(certificates.ca_file), **expired}
    agent = made.add_agent("site-1", hubs=wss(made), overrides={"tls": tls}, wait=False)
    agent.log.wait("connect_failed", count=2, reason="certificate")
    assert {event["reason"] for event in agent.log.events("connect_failed")} == {"certificate"}
    replace(expired, certificates.client)
    agent.log.wait("tls_files_reloaded")
    agent.log.wait("tunnel_up")
    with Bystander(made, peer):
        pass


def test_another_authority_is_trusted_without_a_restart_and_files_that_do_not_fit_leave_the_former(
    topology: MakeTopology, peer: Peer, certificates: Certificates, tmp_path: Path
) -> None:
    made = secure(topology, peer, certificates)
    other = Certificates(tmp_path / "other")
    agent = made.add_agent(
        "site-1", hubs=wss(made), overrides={"tls": {"ca_file": str(certificates.ca_file), **certificates.client}}
    )
    with Bystander(made, peer) as bystander:
        Path(certificates.client["key_file"]).write_bytes(Path(other.client["key_file"]).read_bytes())
        refused = agent.log.wait("tls_files_refused")
        assert "belong together" in refused["problems"][0]
        bystander.goes_on()
    made.hub.pin()
    assert made.hub.stop() == 0
    made.hub.start()  # the former certificate and authorities count
    agent.log.wait("tunnel_up", count=2)
    assert len(agent.log.events("tls_files_refused")) == 1
    replace(certificates.client, other.client)
    certificates.ca_file.write_bytes(certificates.ca_file.read_bytes() + other.ca_file.read_bytes())
    agent.log.wait("tls_files_reloaded")
    replace(certificates.server, other.server)  # the order of the runbook: the authority first
    assert made.hub.stop() == 0
    made.hub.start()
    agent.log.wait("tunnel_up", count=3)


@pytest.mark.parametrize("way", ["configured", "environment"])
def test_agent_goes_through_an_http_proxy(topology: MakeTopology, peer: Peer, way: str) -> None:
    made = topology({"peer": peer.address}, agents=0)
    with connect_proxy() as proxy:
        url = "http://%s:%d" % proxy.address
        if way == "configured":
            made.add_agent("site-1", overrides={"http_proxy": url})
        else:
            made.add_agent("site-1", env={"http_proxy": url})
        assert proxy.requests == ["CONNECT %s:%d HTTP/1.1" % made.hub.edge]
        with Bystander(made, peer):
            pass
        assert made.agent.stop() == 0


def test_http_proxy_with_password_and_tls_inside(
    topology: MakeTopology, peer: Peer, certificates: Certificates
) -> None:
    made = secure(topology, peer, certificates)
    basic = "Basic " + base64.b64encode(b"user:s3cret word").decode()
    with connect_proxy(basic) as proxy:
        url = "http://user:s3cret%%20word@%s:%d" % proxy.address
        made.add_agent(
            "site-1",
            hubs=wss(made),
            overrides={"http_proxy": "${SITE_PROXY}", "tls": {"ca_file": str(certificates.ca_file)}},
            env={"SITE_PROXY": url},
        )
        with Bystander(made, peer):
            pass
        assert made.agent.stop() == 0
        log = made.agent.program.err_path.read_text()
        assert "s3cret" not in log and basic not in log


def test_http_proxy_that_refuses_is_reported(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, agents=0)
    with connect_proxy("Basic xyz") as proxy:
        agent = made.add_agent("site-1", overrides={"http_proxy": "http://%s:%d" % proxy.address}, wait=False)
        agent.log.wait("connect_failed", count=2)
        assert agent.stop() == 0


def test_agent_tries_its_hubs_in_turn(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, agents=0)
    nobody = "ws://127.0.0.1:1/tunnel"
    made.add_agent("site-1", hubs=[nobody, made.tunnel_url])
    with Bystander(made, peer):
        pass


def test_everything_by_the_command_line(topology: MakeTopology, peer: Peer, tmp_path: Path) -> None:
    """``token`` and ``agent`` with flags alone, as the README has it."""
    made = topology({"peer": peer.address}, agents=0)
    claims = ["--agent-id", "site-1", "--connector", "peer", "--ttl", "3600"]
    minted = run(ncfast("token", "--key-file", made.key_file, *claims)).stdout
    token_file = tmp_path / "T"
    token_file.write_text(minted)
    agent = Program(
        "agent-by-flags",
        ncfast(
            "agent",
            "--hub",
            made.tunnel_url,
            "--agent-id",
            "site-1",
            "--connector",
            "peer=%s:%d" % peer.address,
            "--token-file",
            token_file,
        ),
        tmp_path,
        env={"NC_LOG_FORMAT": "json"},
    )
    try:
        made.hub.log.wait("agent_connected")
        with Bystander(made, peer):
            admin = "http://%s:%d" % made.hub.admin
            shown = json.loads(run(ncfast("status", "--json", "--url", admin)).stdout)
            assert [each["connectors"] for each in shown["agents"]] == [["peer"]]
    finally:
        assert agent.stop() == 0, agent.tail()
