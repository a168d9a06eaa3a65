"""The check list: each line is told of by a file that does not follow it, and of no other; production files follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from ncfast.config.hardening import advice
from ncfast.config.loader import load_any

ROOT = Path(__file__).parents[2]
LISTENER = "name: ldap, connector: ldap, bind: '192.0.2.1:389', allow: [192.0.2.0/24], max_connections_per_source: 9"
JWT = "algorithms: [ES256], jwks_url: 'https://id.example.net/keys', issuer: id"
GOOD_HUB = f"listeners: [{{ {LISTENER} }}]\nauth: {{ jwt: {{ {JWT} }} }}\n"
GOOD_AGENT = """\
hubs: [wss://hub.example.net/tunnel]
agent_id: site-1
token_file: {file}
connectors: [{{ name: ldap, target: '127.0.0.1:389' }}]
tls: {{ ca_file: /ca.pem }}
"""
CLUSTER = "ha: { enabled: true, mode: active, replica_id: a, redis_url: 'rediss://:${PASSWORD}@r', mesh: {"
CLUSTER += " tls: { ca_bundle: /ca, cert_file: /crt, key_file: FILE }, listen: '192.0.2.1:1' } }\n"
BELIEVING = CLUSTER.replace("listen:", "trusted_proxies: ['0.0.0.0/7'], listen:")
UNPROVED = "mesh: { require_mtls: false, secret_file: FILE }"


def missed(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [line.split(": ")[0] for line in advice(load_any(path, {"PASSWORD": "pw"}))]


@pytest.fixture
def config(tmp_path):
    return tmp_path / "c.yaml"


@pytest.fixture
def file(tmp_path):
    """A secret as it should lie on the disk."""
    path = tmp_path / "secret"
    path.touch(mode=0o640)
    return path


HUBS = [
    (JWT, "key_file: FILE, issuer: id", "auth.jwt.algorithms"),
    (", issuer: id", "", "auth.jwt.issuer"),
    (", allow: [192.0.2.0/24]", "", "listeners[0].allow"),
    (", max_connections_per_source: 9", "", "listeners[0].max_connections_per_source"),
    ("name: ldap", "idle_timeout_sec: 0, name: ldap", "listeners[0].idle_timeout_sec"),
    ("name: ldap", "proxy_protocol: any, proxy_from: [0.0.0.0/0], name: ldap", "listeners[0].proxy_from"),
    ("listeners", "edge: { trusted_proxies: ['2000::/3'] }\nlisteners", "edge.trusted_proxies"),
    ("listeners", BELIEVING + "listeners", "ha.mesh.trusted_proxies"),
    ("listeners", CLUSTER.split("mesh")[0] + UNPROVED + " }\nlisteners", "ha.mesh.require_mtls"),
    ("listeners", CLUSTER.replace(":${PASSWORD}@", "") + "listeners", "ha.redis_url"),
    ("listeners", "logging: { mask: none }\nlisteners", "logging.mask"),
]


@pytest.mark.parametrize(("was", "becomes", "key"), HUBS, ids=[key for *_, key in HUBS])
def test_what_a_hubs_file_leaves_open(config, file, was, becomes, key):
    assert missed(config, GOOD_HUB) == []
    assert missed(config, GOOD_HUB.replace(was, becomes, 1).replace("FILE", str(file))) == [key]


@pytest.mark.parametrize(
    ("was", "becomes", "key"),
    [
        ("tls: { ca_file: /ca.pem }", "", "tls.ca_file"),
        ("agent_id", "logging: { mask: none }\nagent_id", "logging.mask"),
    ],
)
def test_what_an_agents_file_leaves_open(config, file, was, becomes, key):
    text = GOOD_AGENT.format(file=file)
    assert missed(config, text) == []
    assert missed(config, text.replace(was, becomes)) == [key]


@pytest.mark.parametrize("mode", [0o604, 0o660, 0o642, 0o644])
@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (GOOD_HUB.replace(JWT, "key_file: FILE, issuer: id"), ["auth.jwt.algorithms", "auth.jwt.key_file"]),
        (GOOD_HUB + "edge: { tls: { cert_file: /crt, key_file: FILE } }\n", ["edge.tls.key_file"]),
        (GOOD_HUB + CLUSTER, ["ha.mesh.tls.key_file"]),
        (GOOD_HUB + CLUSTER.split("mesh")[0] + UNPROVED + " }", ["ha.mesh.require_mtls", "ha.mesh.secret_file"]),
        (GOOD_AGENT.format(file="FILE"), ["token_file"]),
        (
            GOOD_AGENT.format(file="/nowhere").replace("{ ca_file", "{ cert_file: /crt, key_file: FILE, ca_file"),
            ["tls.key_file"],
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_secrets_that_others_may_read_or_write(config, file, mode, text, keys):
    text = text.replace("FILE", str(file))
    assert missed(config, text) == keys[:-1]
    file.chmod(mode)
    assert missed(config, text) == keys


def test_public_keys_may_be_read_and_not_written(config, file):
    text = GOOD_HUB.replace("jwks_url: 'https://id.example.net/keys'", f"key_file: '{file}'")
    file.chmod(0o644)
    assert missed(config, text) == []
    file.chmod(0o664)
    assert missed(config, text) == ["auth.jwt.key_file"]


def test_loopback_is_no_network(config):
    local = "listeners: [{ name: ldap, connector: ldap, bind: '127.0.0.1:389' }]\n"
    assert missed(config, local + f"auth: {{ jwt: {{ {JWT} }} }}\n") == []


@pytest.mark.parametrize("name", ["hub.yaml", "agent.yaml"])
def test_the_files_to_start_from_follow_the_list(name):
    assert advice(load_any(ROOT / "config" / name, {})) == []
