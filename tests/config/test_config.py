"""Configuration: what loads, what is refused and in which words, and that everything generated is current."""

from __future__ import annotations

import copy
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ncfast.config.agent import AgentConfig
from ncfast.config.auth import resolve_auth
from ncfast.config.changes import waits_for_restart
from ncfast.config.development import development_hub
from ncfast.config.hub import HubConfig
from ncfast.config.loader import agent_from_flags, load_agent, load_any, load_hub
from ncfast.config.problems import ConfigError
from ncfast.config.reference import reference_text
from ncfast.config.schema import file_schema, schema_of, schema_text
from ncfast.config.sections import FlowConfig
from ncfast.config.values import Address
from ncfast.config.warnings import warnings

ROOT = Path(__file__).parents[2]
GOOD = sorted([*(ROOT / "config").glob("*.yaml"), *(ROOT / "config" / "cluster").glob("*.yaml")])
BAD = sorted((ROOT / "config" / "bad").glob("*.yaml"))
LISTENERS = "listeners: [{ name: ldap, bind: '127.0.0.1:389', connector: ldap }]\n"
AGENT = """
hubs: [wss://hub.example.net/tunnel]
agent_id: site-1
token_file: /run/token
connectors: [{ name: ldap, target: '127.0.0.1:389' }]
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / "c.yaml"
        file.write_text(text)
        return file

    return write


def problems_of(file: Path, env: dict[str, str] | None = None) -> list[str]:
    """The messages without the file's name: ``line: key: message``."""
    with pytest.raises(ConfigError) as refusal:
        load_any(file, env or {})
    return [line.removeprefix(f"{file}:") for line in str(refusal.value).splitlines()]


# The files in config/


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.name)
def test_example_loads(file):
    load_any(file, {"TOKEN_ISSUER": "https://id.example.net/", "HUB": "hub-a", "ADDRESS": "127.0.0.11"})


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.name)
def test_bad_file_is_refused_with_the_line_it_expects(file):
    expected = file.read_text().splitlines()[0].removeprefix("# refused: ")
    assert problems_of(file) == [expected]


def test_customers_file_as_it_stands():
    config = load_hub(ROOT / "config" / "hub-ha.yaml", {})
    assert config.listeners[0].bind == Address("0.0.0.0", 389)
    assert (config.ha.enabled, config.ha.mode, config.ha.replica_id) == (True, "shadow", "hub-a")
    assert config.ha.redis_url == "redis://shared_redis:6379/0"
    mesh = config.ha.mesh
    assert (str(mesh.listen), mesh.peers) == ("0.0.0.0:400", ["wss://cloud-b.example.net/mesh"])
    assert mesh.tls is not None and mesh.tls.ca_bundle == Path("/app/certs/ca.pem")
    assert (mesh.send_queue_depth, mesh.per_link_max_inflight_bytes) == (1000, 8388608)
    assert mesh.connect_backoff_max_sec == 30


def test_development_file_is_development_mode():
    file = load_hub(ROOT / "config" / "development.yaml", {})
    assert file == development_hub(Path("dev.key"))
    assert str(file.listeners[0].bind) == "127.0.0.1:1389"


def test_generated_files_are_current():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference_text(), "python -m ncfast.config docs"
    assert (ROOT / "config" / "ncfast.schema.json").read_text() == schema_text(), "python -m ncfast.config schema"


def test_every_key_says_why_and_every_number_its_bounds_and_unit():
    for name, section in file_schema()["$defs"].items():
        for key, schema in section.get("properties", {}).items():
            assert "$ref" in schema or schema["description"], f"{name}.{key}"
            if schema.get("type") in ("integer", "number"):
                assert "minimum" in schema or "exclusiveMinimum" in schema, f"{name}.{key}"
                assert {"maximum", "x-unit", "default"} <= schema.keys(), f"{name}.{key}"


def test_links_and_keys_of_the_reference_exist():
    text = reference_text()
    for target in re.findall(r"\]\((\.\./[^)]+)\)", text):
        assert (ROOT / "docs" / target).resolve().exists(), target
    for model in (HubConfig, AgentConfig):
        for key in schema_of(model)["properties"]:
            assert f"| `{key}` |" in text


# YAML


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "Yes", "ON"])
def test_word_that_yaml_1_1_takes_for_a_boolean(write, word):
    assert problems_of(write(LISTENERS + f"ha: {{ enabled: {word} }}\n")) == [
        f"2: ha.enabled: YAML 1.1 takes this for true or false (got '{word}'); "
        "write true or false, or quote it if the word is meant"
    ]


@pytest.mark.parametrize(
    "number", ["12:30:45", "1:20", "0644", "0389", "0b11", "1_000", "1e3", "0o17", "190:20:30.15", "9" * 5000]
)
def test_number_that_yaml_readers_disagree_about(write, number):
    (problem,) = problems_of(write(LISTENERS + f"limits: {{ max_flows: {number} }}\n"))
    assert "limits.max_flows: YAML 1." in problem and "write a plain decimal number" in problem


@pytest.mark.parametrize("word", ["off", "'off'", '"off"'])
def test_word_that_the_key_offers_is_understood_quoted_or_not(write, word):
    text = f"listeners: [{{ name: a, bind: ':389', connector: c, proxy_protocol: {word} }}]\nha: {{ mode: {word} }}"
    config = load_hub(write(text), {})
    assert (config.ha.mode, config.listeners[0].proxy_protocol) == ("off", "off")
    assert load_agent(write(AGENT + f"http_proxy: {word}\n"), {}).http_proxy == "off"


@pytest.mark.parametrize("text", ["true", "True", "TRUE"])
def test_booleans_of_both_yaml_versions(write, text):
    assert load_hub(write(LISTENERS + f"ha: {{ enabled: {text}, replica_id: a }}"), {}).ha.enabled is True


@pytest.mark.parametrize("text", ["1", "'yes'", "'on'", "0.0"])
def test_only_true_and_false_are_booleans(write, text):
    (problem,) = problems_of(write(LISTENERS + f"ha: {{ enabled: {text}, replica_id: a }}"))
    assert "ha.enabled: must be true or false" in problem


@pytest.mark.parametrize("text", ["true", "[1]", "'many'", ".nan", ".inf", "-1", "1.5", "{ a: 1 }"])
def test_number_keys_take_numbers_in_their_bounds(write, text):
    (problem,) = problems_of(write(LISTENERS + f"limits: {{ max_flows: {text} }}"))
    assert problem.startswith("2: limits.max_flows: must be a whole number from 1 to 10000000")
    assert problem.endswith("; write the number alone, in flows")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a list\n", "1: a configuration is made of sections"),
        ("just text\n", "1: a configuration is made of sections"),
        ("a: 1\n---\nb: 2\n", "not YAML: but found another document"),
        ("a:\n\tb: 1\n", "2: not YAML: found character '\\t' that cannot start any token"),
        ("limits: &here { max_flows: 10, inner: *here, outer: *here }\n" + LISTENERS, "aliases without end"),
        (LISTENERS + "edge: !custom { bind: ':1' }\n", "2: edge: a tag (!...)"),
        (LISTENERS + "edge:\n  bind: !!binary aGk=\n", "3: edge.bind: a tag (!...)"),
        (LISTENERS + "edge:\n  <<: { bind: ':1' }\n", "3: edge: a key must be a word, and merge keys"),
        (LISTENERS + "? [a, b]\n: 1\n", "2: a key must be a word"),
        ("[" * 20000, "nested too deeply"),
    ],
)
def test_file_that_is_no_configuration(write, text, expected):
    assert any(expected in problem for problem in problems_of(write(text)))


def test_aliases_multiply_only_so_far(write):
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 8):
        text += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    assert any("aliases without end" in problem for problem in problems_of(write(text)))


def test_aliases_share_a_value(write):
    config = load_hub(
        write(
            "listeners:\n"
            "  - { name: a, bind: ':1', connector: c, allow: &office [10.0.0.0/8] }\n"
            "  - { name: b, bind: ':2', connector: c, allow: *office }\n"
        ),
        {},
    )
    assert config.listeners[1].allow == [ip_network("10.0.0.0/8")]


def test_unreadable_files(tmp_path):
    (problem,) = problems_of(tmp_path / "absent.yaml")
    assert problem == " cannot be read: No such file or directory; is this the right file, and may ncfast read it?"
    assert "cannot be read: Is a directory" in problems_of(tmp_path)[0]
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x01\x80")
    assert "not text in UTF-8" in problems_of(tmp_path / "binary")[0]
    (tmp_path / "large").write_bytes(b"# " + b"x" * (1 << 20))
    assert "larger than" in problems_of(tmp_path / "large")[0]


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_load_or_are_refused(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        load_any(file, {})


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(":80"))
WRONG = st.one_of(LEAVES, st.lists(LEAVES, max_size=2), st.dictionaries(st.text(max_size=8), LEAVES, max_size=2))
EXAMPLES = [yaml.safe_load(file.read_text()) for file in GOOD]


@given(st.data())
def test_any_value_in_any_place_loads_or_is_refused(tmp_path_factory, data):
    tree = copy.deepcopy(data.draw(st.sampled_from(EXAMPLES)))
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = tree
        while True:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not place[key] or not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
                break
            place = place[key]
        place[key] = data.draw(WRONG)
    file = tmp_path_factory.getbasetemp() / "tree.yaml"
    file.write_text(yaml.safe_dump(tree))
    try:
        load_any(file, {})
    except ConfigError as refusal:
        assert refusal.problems and all(problem.message for problem in refusal.problems)


# The environment


def test_environment_in_values(write):
    text = """
        listeners: [{ name: "${NAME}", bind: "127.0.0.1:${PORT}", connector: c, max_connections: "${MANY}" }]
        ha: { enabled: "${HA}", replica_id: a, redis_url: "redis://:${PASSWORD}@registry:6379/0" }
    """
    env = {"NAME": "7", "PORT": "389", "MANY": "12", "HA": "true", "PASSWORD": "hunter2"}
    config = load_hub(write(text), env)
    listener = config.listeners[0]
    assert (listener.name, listener.bind.port, listener.max_connections) == ("7", 389, 12)
    assert config.ha.redis_url == "redis://:hunter2@registry:6379/0"
    assert "hunter2" not in config.model_dump_json()


@pytest.mark.parametrize("text", ["${}", "${A-b}", "${A", "${A:-", "${A:-${B}}", "${A:b}"])
def test_malformed_reference(write, text):
    (problem,) = problems_of(write(LISTENERS + f"auth: {{ jwt: {{ key_file: '{text}' }} }}"), {"A": "a"})
    assert "auth.jwt.key_file: malformed ${NAME}" in problem


@pytest.mark.parametrize(
    ("env", "port"), [({}, 1389), ({"PORT": ""}, 1389), ({"PORT": "389"}, 389)], ids=["unset", "empty", "set"]
)
def test_a_reference_with_a_default(write, env, port):
    text = 'listeners: [{ name: "l${NO:-}${WORD:-a-b:c}", bind: "127.0.0.1:${PORT:-1389}", connector: c }]'
    with pytest.raises(ConfigError, match="listeners.0..name"):  # a colon is in no name, so the default was taken
        load_hub(write(text), env)
    listener = load_hub(write(text.replace(":c}", "}")), env).listeners[0]
    assert (listener.name, listener.bind.port) == ("la-b", port)


def test_a_default_goes_through_the_same_checks(write):
    (problem,) = problems_of(write(LISTENERS + "edge: { bind: '${WHERE:-nowhere}' }\n"))
    assert "edge.bind: address without a port (got '${WHERE:-nowhere}')" in problem


def test_unset_variables_are_all_named(write):
    lines = problems_of(write(LISTENERS + "auth:\n  jwt: { key_file: '${ONE}/${TWO}', issuer: '${THREE}' }\n"))
    assert [re.findall("variable ([A-Z]+) ", line) for line in lines] == [["ONE"], ["TWO"], ["THREE"]]


def test_expanded_values_do_not_show_in_messages(write):
    lines = problems_of(write(LISTENERS + "edge: { bind: '${SECRET}' }\n"), {"SECRET": "hunter2"})
    assert lines == [
        "2: edge.bind: address without a port (got '${SECRET}'); write 'host:port', such as '127.0.0.1:389'"
    ]


# Secrets in messages


@pytest.mark.parametrize(
    "line",
    [
        "auth: { jwt: { secret: hunter2 } }",
        "auth: { jwt: { key: hunter2 } }",
        "auth: { password: hunter2 }",
        "auth: { api_key: hunter2 }",
        "auth: { jwt: { key_file: 'eyJhbGciOi.hunter2' } }",
        'auth: { jwt: { key_file: "-----BEGIN KEY-----\\nhunter2" } }',
        "auth: { jwt: { jwks_url: 'https://user:hunter2@id.example.net/jwks' } }",
        "ha: { redis_url: 'redis://:hunter2@registry:x/0' }",
        "ha: { mesh: { peers: ['wss://hunter2@b/mesh'] } }",
        "secret: *hunter2",
        "secret: !hunter2",
        "secret: !hunter2!x y",
        "secret: !<hunter2",
        "secret: @hunter2",
        "secret: 'hunter2",
        "secret: {hunter2",
        "secret: |hunter2",
        "secret: &hunter2 hunter2: x",
    ],
)
def test_secrets_do_not_show_in_messages(write, line):
    assert "hunter2" not in "\n".join(problems_of(write(LISTENERS + line + "\n")))


def test_values_are_cut_short_and_escaped(write):
    (problem,) = problems_of(write(LISTENERS + 'edge: { bind: "\\e[31m' + "x" * 500 + '" }\n'))
    assert "\\x1b[31m" in problem and "\x1b" not in problem and len(problem) < 250


# Problems


def test_all_problems_at_once_in_the_order_of_the_file(write):
    text = """listener: []
listeners:
  - { name: l1, bind: 0.0.0.0:389, connector: on }
  - { name: l1, bind: '127.0.0.1:389', connector: ldap, max_conections: 3 }
  - { bind: ':9400', connector: ldap, idle_timeout_sec: 30s, tenant: 7 }
edge: { bind: '127.0.0.1:8080', bind: ':8080', tls: { cert_file: /a } }
auth: { jwt: { leeway_sec: 31, algorithms: [RS256] } }
ha: { enabled: true, mode: actve, mesh: { listen: ':400' } }
tunnel: { ping_interval_sec: 20, send_queue_depth: 0 }
flow: { grace_sec: 3, window_initial: 1048576, window_max: 65536, stall_sec: "${STALL}" }
limits:
logging: text
"""
    keys = [":".join(line.split(": ")[:2]) for line in problems_of(write(text))]
    assert keys == [
        "1:listener",
        "3:listeners[0].connector",
        "4:listeners[1].name",
        "4:listeners[1].bind",
        "4:listeners[1].max_conections",
        "5:listeners[2].name",
        "5:listeners[2].bind",
        "5:listeners[2].idle_timeout_sec",
        "5:listeners[2].tenant",
        "6:edge.bind",
        "6:edge.tls.key_file",
        "7:auth.jwt",
        "7:auth.jwt.leeway_sec",
        "8:ha",
        "8:ha.mode",
        "8:ha.mesh.require_mtls",
        "9:tunnel.ping_timeout_sec",
        "9:tunnel.send_queue_depth",
        "10:flow.grace_sec",
        "10:flow.window_initial",
        "10:flow.stall_sec",
        "11:limits",
        "12:logging",
    ]


def test_problem_has_its_parts(write):
    with pytest.raises(ConfigError) as refusal:
        load_hub(write(LISTENERS + "drain:\n  timeout: 5\n"), {})
    (problem,) = refusal.value.problems
    assert (problem.line, problem.column, problem.key, problem.value) == (3, 3, "drain.timeout", "'5'")
    assert (problem.message, problem.remedy) == ("unknown key", "did you mean 'timeout_sec'?")


def test_a_key_that_is_gone_says_so(write):
    with pytest.raises(ConfigError, match=r"c\.yaml:2: transport: is no key any more.*remove the line"):
        load_hub(write(LISTENERS + "transport: uvloop\n"), {})
    with pytest.raises(ConfigError, match="drain.transport: unknown key"):
        load_hub(write(LISTENERS + "drain:\n  transport: uvloop\n"), {})


def test_files_of_the_other_kind(write):
    with pytest.raises(ConfigError, match="this is an agent's file; run: ncfast agent"):
        load_hub(write(AGENT), {})
    with pytest.raises(ConfigError, match="this is a hub's file; run: ncfast hub"):
        load_agent(write(LISTENERS), {})


def test_loaded_models_are_frozen(write):
    config = load_hub(write(LISTENERS), {})
    with pytest.raises(ValueError, match="frozen"):
        config.ha = None
    assert FlowConfig(grace_sec=1).grace_sec == 1  # the file's key is flow_grace_sec


# Values


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:389", "127.0.0.1", 389),
        ("[::1]:389", "::1", 389),
        ("[0:0:0:0:0:0:0:1]:389", "::1", 389),
        (":0", "", 0),
        ("db-1.internal:65535", "db-1.internal", 65535),
        ("shared_db:1", "shared_db", 1),
    ],
)
def test_address(text, host, port):
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "389",
        "host",
        "host:",
        "host:65536",
        "host:-1",
        "host:٣",
        "::1:389",
        "[::1]",
        "[x]:1",
        "1.2.3:4",
        "a b:1",
    ]
    + ["256.0.0.1:1", "http://a:1", "-a:1", "a..b:1", f"{'a' * 64}:1"],
)
def test_not_an_address(write, text):
    (problem,) = problems_of(write(LISTENERS + f"edge: {{ bind: '{text}' }}"))
    assert problem.startswith("2: edge.bind: ")


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("0.0.0.0:389", "127.0.0.1:389", True),
        ("0.0.0.0:389", "127.0.0.1:390", False),
        (":389", "[::1]:389", True),
        (":389", "0.0.0.0:389", True),
        ("[::]:389", "0.0.0.0:389", False),
        ("[::]:389", "127.0.0.1:389", False),
        ("[::]:389", "[::1]:389", True),
        ("0.0.0.0:389", "[::1]:389", False),
        ("localhost:389", "127.0.0.1:389", True),
        ("localhost:389", "[::1]:389", True),
        ("127.0.0.1:389", "127.0.0.2:389", False),
        ("0.0.0.0:0", "127.0.0.1:0", False),
        ("Host.example:1", "host.example:1", True),
    ],
)
def test_overlap(one, other, overlap):
    assert Address.parse(one).overlaps(Address.parse(other)) is overlap
    assert Address.parse(other).overlaps(Address.parse(one)) is overlap


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.net/jwks",
        "http://127.0.0.1/jwks",
        "file:///etc/passwd",
        "ftp://id.example.net/jwks",
        "//id.example.net/jwks",
        "id.example.net/jwks",
        "https:///jwks",
        "https://user@id.example.net/jwks",
        "https://id.example.net/jwks#x",
        "https://id.example.net:99999/jwks",
        "https://id.example.net:0/jwks",
        "https://{tenant}.example.net/jwks",
        "https://*.example.net/jwks",
        "https://id.example.net\\@evil.example/jwks",
        "https://id.example.net /jwks",
        "https://1.2.3/jwks",
        "data:text/json,{}",
        "",
    ],
)
def test_jwks_url_is_https_to_a_fixed_host(write, url):
    text = LISTENERS + f"auth: {{ jwt: {{ algorithms: [RS256], jwks_url: '{url}' }} }}"
    (problem,) = problems_of(write(text))
    assert problem.startswith("2: auth.jwt.jwks_url: ")


@pytest.mark.parametrize(
    "url",
    [
        "https://hub.example.net/tunnel",
        "wss://hub.example.net",
        "wss://hub.example.net/tunnel?token=eyJ",
        "wss://user@hub.example.net/tunnel",
        "wss://hub.example.net/tunnel#x",
        "wss:///tunnel",
    ],
)
def test_hub_url_is_a_websocket_without_secrets(write, url):
    (problem,) = problems_of(write(AGENT.replace("wss://hub.example.net/tunnel", f"'{url}'")))
    assert problem.startswith("2: hubs[0]: ")


@pytest.mark.parametrize("network", ["10.0.0.0/8", "10.0.0.7", "2001:db8::/32", "0.0.0.0/0"])
def test_networks(write, network):
    text = f"listeners: [{{ name: a, bind: ':389', connector: c, deny: ['{network}'] }}]"
    assert load_hub(write(text), {}).listeners[0].deny == [ip_network(network)]


@pytest.mark.parametrize("network", ["10.0.0.0/33", "10.0.0", "ten", "10.0.0.1/8", "2001:db8::1/32"])
def test_not_networks(write, network):
    (problem,) = problems_of(write(f"listeners: [{{ name: a, bind: ':389', connector: c, deny: ['{network}'] }}]"))
    assert problem.startswith("1: listeners[0].deny[0]: ")


@pytest.mark.parametrize("target", [":389", "127.0.0.1:0", "0.0.0.0:389"])
def test_target_names_one_host_and_port(write, target):
    (problem,) = problems_of(write(AGENT.replace("127.0.0.1:389", target)))
    assert "connectors[0].target: an address to connect to needs a" in problem


@pytest.mark.parametrize(
    ("health", "problem"),
    [
        ("protocol: mysql, expect: x", "expect: a check has a protocol, or texts of its own"),
        ("protocol: redis, send: x, expect: y", "send: a check has a protocol, or texts of its own"),
        ("send: x", "send: send without expect"),
        ("user: check", "user: only protocol mysql logs in"),
        ("protocol: ldap, user: check", "user: only protocol mysql logs in"),
        ("protocol: mysql, user: ''", "user: not a user name"),
        ('protocol: mysql, user: "a\\0b"', "user: not a user name"),
        ("expect: ''", "expect: must be 1 to 1024 bytes"),
        (f"expect: {'x' * 1025}", "expect: must be 1 to 1024 bytes"),
        ("expect: \u0141", "expect: must be 1 to 1024 bytes"),
        ("protocol: smtp", "protocol: "),
    ],
)
def test_health_checks_that_cannot_be(write, health, problem):
    (said,) = problems_of(write(AGENT.replace("389'", f"389', health: {{ {health} }}")))
    assert said.startswith(f"5: connectors[0].health.{problem}")


def test_the_bytes_of_a_health_check_come_from_escapes(write):
    text = AGENT.replace("389'", """389', health: { send: "A\\r\\n\\x00\\xff", expect: "\\x30" }""")
    health = load_agent(write(text), {}).connectors[0].health
    assert health is not None and (health.send, health.expect) == ("A\r\n\0\xff", "0")


def test_proxy_protocol_goes_with_trusted_sources(write):
    text = "listeners: [{ name: a, bind: ':389', connector: c, %s }]"
    assert "proxy_protocol: proxy_protocol is on and no source" in problems_of(write(text % "proxy_protocol: v2"))[0]
    assert "proxy_from: proxy_from without proxy" in problems_of(write(text % "proxy_from: [10.0.0.0/8]"))[0]


# The command line, development and auth


def test_agent_from_flags():
    config = agent_from_flags(
        ["ws://127.0.0.1:8080/tunnel"], "site-1", ["ldap=127.0.0.1:389", "db=[::1]:5432"], "/run/token"
    )
    assert [(each.name, str(each.target)) for each in config.connectors] == [
        ("ldap", "127.0.0.1:389"),
        ("db", "[::1]:5432"),
    ]
    assert config.token_file == Path("/run/token")


def test_agent_from_all_flags():
    config = agent_from_flags(
        ["wss://h/tunnel"],
        "site-1",
        ["ldap=127.0.0.1:389", "db=[::1]:5432", "ssh=127.0.0.1:22"],
        "/run/token",
        checks=["ldap=ldap", "ssh"],
        admin="unix:/run/admin.sock",
        logging={"level": "debug", "mask_agents": "hash"},
    )
    checks = [each.health.protocol if each.health is not None else None for each in config.connectors]
    assert checks == ["ldap", None, "tcp"]
    assert config.admin is not None and (config.admin.unix, config.admin.bind) == (Path("/run/admin.sock"), None)
    assert (config.logging.level, config.logging.mask_agents) == ("debug", "hash")


def test_wrong_flags_of_an_agent_are_all_told():
    with pytest.raises(ConfigError) as refusal:
        agent_from_flags(
            ["wss://h/tunnel"],
            "site-1",
            ["ldap=127.0.0.1:389"],
            "/run/token",
            checks=["ldap=smtp", "db"],
            admin="0.0.0.0:9410",
            logging={"level": "loud"},
        )
    lines = str(refusal.value).splitlines()
    for says in ("health.protocol", "--check db: there is no such connector", "admin.bind", "logging.level"):
        assert sum(says in line for line in lines) == 1, (says, lines)


def test_agent_from_wrong_flags():
    with pytest.raises(ConfigError) as refusal:
        agent_from_flags(["http://h/tunnel"], "", ["ldap", "a=:1", "a=h:1"], "eyJhbGciOi.hunter2")
    lines = str(refusal.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "agent_id",
        "connectors[0].target",
        "connectors[1].target",
        "connectors[2].name",
        "hubs[0]",
        "token_file",
    ]
    assert all(line.startswith("command line: ") for line in lines) and "hunter2" not in str(refusal.value)
    assert "(got 'http://h/tunnel')" in lines[4]


def test_development_hub_takes_other_ports():
    config = development_hub(Path("k"), listener="127.0.0.1:0", edge="127.0.0.1:0", admin="127.0.0.1:0")
    assert {config.listeners[0].bind.port, config.edge.bind.port, config.admin.bind.port} == {0}


def test_auth_comes_from_the_file_or_the_environment(write):
    with_auth = load_hub(write(LISTENERS + "auth: { jwt: { key_file: /k } }"), {})
    without = load_hub(write(LISTENERS), {})
    assert resolve_auth(with_auth, {"NC_JWT_KEY_FILE": "/other"}).key_file == Path("/k")
    from_file = resolve_auth(without, {"NC_JWT_KEY_FILE": "/k"})
    assert (from_file.key_file, from_file.algorithms, from_file.audience) == (
        Path("/k"),
        ["HS256"],
        "nowconnect",
    )
    from_url = resolve_auth(without, {"NC_JWKS_URL": "https://id.example.net/jwks"})
    assert (from_url.jwks_url, from_url.algorithms) == ("https://id.example.net/jwks", ["RS256"])
    env = {"NC_JWT_KEY_FILE": "/k.pem", "NC_JWT_ALGORITHM": "ES256"}
    assert resolve_auth(without, env).algorithms == ["ES256"]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (
            {},
            ("environment: auth: no key to check the agents' tokens with; /tunnel is never open to all; add auth"),
        ),
        ({"NC_JWT_KEY_FILE": ""}, "environment: auth: no key"),
        (
            {"NC_JWT_KEY_FILE": "/k", "NC_JWKS_URL": "https://h/j"},
            "environment: jwks_url: both key_file and jwks_url",
        ),
        ({"NC_JWKS_URL": "http://h/j"}, "environment: jwks_url: the URL must start with https://"),
        (
            {"NC_JWKS_URL": "https://h/j", "NC_JWT_ALGORITHM": "none"},
            "environment: algorithms[0]: must be one of",
        ),
        (
            {"NC_JWKS_URL": "https://h/j", "NC_JWT_ALGORITHM": "HS256"},
            "environment: algorithms: HS256 checks with",
        ),
    ],
)
def test_hub_without_a_key_does_not_start(write, env, expected):
    with pytest.raises(ConfigError) as refusal:
        resolve_auth(load_hub(write(LISTENERS), {}), env)
    assert str(refusal.value).startswith(expected)


def test_public_key_algorithms_may_stand_together(write):
    text = LISTENERS + "auth: { jwt: { algorithms: [RS256, ES256, EdDSA], jwks_url: 'https://h/j' } }"
    assert load_hub(write(text), {}).auth.jwt.algorithms == ["RS256", "ES256", "EdDSA"]


def test_hubs_of_the_example_differ_in_name_and_ports_alone():
    texts = {name: (ROOT / "config" / "cluster" / f"hub-{name}.yaml").read_text() for name in "abc"}
    for name, number in (("b", "2"), ("c", "3")):
        expected = re.sub(r"replica_id: hub-a", f"replica_id: hub-{name}", texts["a"])
        assert re.sub(r"(700|808|940|950)1\b", rf"\g<1>{number}", expected) == texts[name]


# Warnings

BALANCED = (
    "listeners: [{ name: l1, bind: '127.0.0.1:1', connector: c, proxy_protocol: v2, proxy_from: [10.0.0.1/32] }]\n"
)
CLUSTER = "ha: { enabled: true, mode: active, replica_id: a, %s }\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LISTENERS, []),
        ("listeners: []\n", ["listeners"]),
        (
            LISTENERS + "admin: { bind: '0.0.0.0:9400' }\nedge: { bind: ':8080' }\n",
            ["admin.bind", "edge.bind"],
        ),
        (LISTENERS + "admin: { bind: '[::1]:9400' }\nedge: { bind: 'localhost:1' }\n", []),
        (LISTENERS + "ha: { mode: active }\n", ["ha.mode"]),
        (LISTENERS + "ha: { enabled: true, replica_id: a }\n", ["ha.mesh"]),
        (LISTENERS + CLUSTER % "redis_url: 'unix:///redis.sock', mesh: { listen_unix: /mesh.sock }", []),
        (
            LISTENERS
            + CLUSTER
            % "redis_url: 'redis://127.0.0.1', mesh: { listen: '127.0.0.1:9', require_mtls: false, secret_file: /s }",
            [],
        ),
        (LISTENERS + CLUSTER % "redis_url: 'rediss://r', mesh: { peers: ['unix:///b.sock'] }", []),
        (LISTENERS + CLUSTER % "mesh: { peers: ['unix:///b.sock'] }", ["ha.redis_url"]),
        (LISTENERS + CLUSTER % "redis_url: 'redis://r'", ["ha.redis_url", "ha.mesh"]),
        (
            LISTENERS
            + CLUSTER % "redis_url: 'rediss://r', mesh: { listen: ':9', require_mtls: false, secret_file: /s }",
            ["ha.mesh.listen", "ha.mesh.advertise"],
        ),
        (
            LISTENERS + CLUSTER % "redis_url: 'rediss://r', mesh: "
            "{ listen: '10.0.0.1:9', require_mtls: false, secret_file: /s }",
            ["ha.mesh.listen"],
        ),
        (
            LISTENERS + CLUSTER % "redis_url: 'rediss://r', mesh: "
            "{ peers: ['wss://b/mesh'], tls: { ca_bundle: /c, cert_file: /d, key_file: /e } }",
            ["ha.mesh.trusted_proxies", "ha.mesh.secret_file"],
        ),
        (
            LISTENERS + CLUSTER % "redis_url: 'rediss://r', mesh: "
            "{ listen: '10.0.0.1:9', require_mtls: false, tls: { ca_bundle: /c, cert_file: /d, key_file: /e } }",
            ["ha.mesh.require_mtls"],
        ),
        (LISTENERS.replace("listeners:", "flow: { open_timeout_sec: 5 }\nlisteners:"), ["flow.open_timeout_sec"]),
        (LISTENERS + "tunnel: { ping_timeout_sec: 9.5 }\n", []),
        (LISTENERS + "tunnel: { ping_timeout_sec: 15 }\n", ["flow.open_timeout_sec", "listeners[0].hold_sec"]),
        (
            LISTENERS + CLUSTER % "redis_url: 'rediss://r', mesh: { listen_unix: /s, ping_timeout_sec: 10 }",
            ["flow.open_timeout_sec", "listeners[0].hold_sec"],
        ),
        (LISTENERS + "drain: { timeout_sec: 81.9 }\n", []),
        (LISTENERS + "drain: { timeout_sec: 82 }\n", ["drain.timeout_sec"]),
        (LISTENERS + "drain: { delay_sec: 0, timeout_sec: 82 }\n", []),
        (BALANCED, []),
        (BALANCED.replace(" }]", ", open_on: first_byte }]"), []),
        (BALANCED.replace(" }]", ", open_on: first_byte, idle_timeout_sec: 0 }]"), ["listeners[0].open_on"]),
        (BALANCED.replace("0.1:1'", "0.1:3306'"), []),
        (BALANCED.replace("0.1:1'", "0.1:3306'").replace(" }]", ", open_on: first_byte }]"), ["listeners[0].open_on"]),
        (BALANCED + "drain: { delay_sec: 0 }\n", ["drain.delay_sec"]),
        (AGENT, []),
        (AGENT.replace("wss", "ws") + "allow_plaintext: true\n", ["hubs[0]"]),
        (AGENT.replace("wss://hub.example.net", "'ws://[::1]:8080").replace("tunnel", "tunnel'"), []),
        (AGENT.replace("wss", "ws") + "allow_plaintext: true\ntls: { ca_file: /ca }\n", ["hubs[0]", "tls"]),
        (BALANCED + "auth: { jwt: { key_file: /k } }\n", ["auth.jwt.require_connectors"]),
        (BALANCED + "auth: { jwt: { key_file: /k, require_connectors: true } }\n", []),
        (AGENT.replace("389'", "3306'"), []),
        (AGENT.replace("389'", "3306', health: {}"), ["connectors[0].health"]),
        (AGENT.replace("389'", "3306', health: { protocol: mysql }"), []),
    ],
)
def test_warnings(write, text, expected):
    if "hubs:" not in text and "edge:" not in text:
        text += "edge: { trusted_proxies: [127.0.0.1/32] }\n"  # it is warned of when it is left out
    assert [line.split(": ")[0] for line in warnings(load_any(write(text), {}))] == expected


NAMED = "auth: { jwt: { key_file: /k, certificate_name: '%s' } }\n"
ASKED = "edge: { tls: { cert_file: /c, key_file: /k, client_ca_file: /ca } }\n"
REDIS = "ha: { enabled: true, replica_id: a, redis_url: '%s', %s }\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (AGENT.replace("wss", "ws"), "the token would travel in clear to a hub reached by ws://"),
        (LISTENERS + NAMED % "DNS:{sub}", "auth: jwt.certificate_name, and no agent is asked for a certificate"),
        (LISTENERS + ASKED + NAMED % "{sub}", "not a name of a certificate"),
        (LISTENERS + ASKED + NAMED % "DNS:{sub}{", "not a name of a certificate"),
        (LISTENERS + ASKED + NAMED % "DNS:site", "it must have {sub} once"),
        (LISTENERS + ASKED + NAMED % "URI:{sub}/{sub}", "it must have {sub} once"),
        (LISTENERS + ASKED + NAMED % "DNS:{sub}.{tenant}.example", "nothing parts {sub} from {tenant}"),
        (LISTENERS + ASKED + NAMED % "DNS:{tenant}-{sub}", "nothing parts {sub} from {tenant}"),
        (LISTENERS + "edge: { forwarded_certificates: true }\n", "nobody is trusted to forward them"),
        (LISTENERS + "auth: { jwt: { key_file: /k, jwks_ca_file: /ca } }\n", "jwks_ca_file without jwks_url"),
        (LISTENERS + REDIS % ("rediss://h", "redis_cert_file: /c"), "redis_cert_file without redis_key_file"),
        (LISTENERS + REDIS % ("rediss://h", "redis_key_file: /c"), "redis_key_file without redis_cert_file"),
        (LISTENERS + REDIS % ("redis://h", "redis_cert_file: /c, redis_key_file: /k"), "not reached by TLS"),
        (LISTENERS + REDIS % ("redis://u:${P}@h", "redis_password_file: /p"), "beside a password in redis_url"),
        (LISTENERS + "ha: { redis_password_file: /p }\n", "redis_password_file without redis_url"),
    ],
)
def test_who_gets_in_is_said_whole(write, text, says):
    with pytest.raises(ConfigError) as caught:
        load_any(write(text), {"P": "secret"})
    assert any(says in str(problem) for problem in caught.value.problems), caught.value
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "text",
    [
        AGENT.replace("wss", "ws") + "allow_plaintext: true\n",
        LISTENERS + ASKED + NAMED % "DNS:{sub}",
        LISTENERS + ASKED + NAMED % "URI:spiffe://example.net/{tenant}/agents/{sub}",
        LISTENERS + NAMED % "DNS:{sub}" + "edge: { trusted_proxies: ['10.0.0.0/8'], forwarded_certificates: true }\n",
        LISTENERS + REDIS % ("redis://user@h", "redis_password_file: /p"),
        LISTENERS + REDIS % ("rediss://h", "redis_cert_file: /c, redis_key_file: /k"),
    ],
)
def test_ways_in_that_are_taken(write, text):
    load_any(write(text), {})


def test_changes_that_wait_for_a_restart(write):
    running = load_hub(write(LISTENERS), {})
    changed = LISTENERS.replace("389", "390") + "logging: { level: debug }\nauth: { jwt: { key_file: /k } }\n"
    assert waits_for_restart(running, load_hub(write(changed), {})) == []
    other = load_hub(write(LISTENERS + "limits: { max_flows: 7 }\nflow: { flow_grace_sec: 1 }\n"), {})
    assert sorted(waits_for_restart(running, other)) == ["flow.flow_grace_sec", "limits.max_flows"]


def test_value_of_a_file_that_is_no_configuration_is_not_shown(write):
    assert "hunter2" not in "\n".join(problems_of(write("hunter2\n")))
