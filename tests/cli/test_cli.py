"""The command line as a shell script sees it: standard output, one message on standard error, exit code."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import jwt
import pytest
import trustme
from support.fake_hub import FakeHub
from support.until import PATIENCE

from ncfast.cli import main

HUB = """\
listeners:
  - { name: l1, bind: '127.0.0.1:0', connector: ldap, deny: [10.0.0.0/8, 192.0.2.0/24] }
ha: { redis_url: 'redis://:${REDIS_PASSWORD}@redis:6379/0' }
"""
AGENT = """\
hubs: ['wss://hub.example.net/tunnel']
agent_id: site-1
token_file: /nowhere/token
connectors: [{ name: ldap, target: '127.0.0.1:389' }]
"""
STATUS = {
    "role": "hub",
    "version": "0.1.0",
    "replica_id": "hub-a",
    "mode": "off",
    "pid": 7,
    "uptime_sec": 3700.5,
    "state": "serving",
    "ready": {"status": "degraded", "reasons": ["registry"]},
    "edge": "127.0.0.1:8080",
    "admin": "127.0.0.1:9400",
    "listeners": [
        {
            "name": "l1",
            "bind": "0.0.0.0:389",
            "connector": "ldap",
            "tenant": None,
            "active": 12,
            "accepted": 3456,
            "held": 0,
            "weight": 1,
            "held_bytes": 0,
            "own_bytes": 1 << 28,
            "accepting": True,
        }
    ],
    "agents": [
        {
            "agent_id": "si\x1b[2Jte",
            "tenant": None,
            "epoch": 3,
            "session": "s",
            "connectors": ["ldap"],
            "remote": "192.0.2.0/24",
            "rtt_ms": 1.25,
            "flows": 12,
            "bytes_in": 5_000_000,
            "bytes_out": 12,
            "connected_sec": 65,
            "queued_frames": 0,
            "inflight_bytes": 0,
            "token_expires_sec": 90_000,
            "draining": False,
        }
    ],
    "flows": {
        "active": 12,
        "opening": 0,
        "detached": 1,
        "held": 0,
        "opened": 99,
        "closed": {"closed": 80, "client_reset": 7},
        "resumed": 4,
    },
    "bytes": {"client_in": 2048, "client_out": 3 * 1024**3},
    "memory": {"budget_bytes": 1 << 30, "held_bytes": 65536, "segments_in_use": 1, "segments_free": 9},
    "links": {"frames_in": {}, "frames_out": {}, "bytes_in": 1, "bytes_out": 1},
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One real process."""
    return subprocess.run(
        [sys.executable, "-m", "ncfast", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def code_of(*arguments: str) -> int:
    """The exit code in this process, whether argparse leaves by SystemExit or the command returns."""
    try:
        return main(arguments)
    except SystemExit as left:
        return left.code


@pytest.fixture
def write(tmp_path):
    def write_file(text: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write_file


@pytest.fixture
def key_file(tmp_path) -> str:
    path = tmp_path / "jwt.key"
    path.write_text("k" * 32 + "\n")
    return str(path)


@pytest.fixture
def admin():
    """A fake admin edge; set `reply` to what it shall answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = server.reply
            self.send_response(status if self.path == "/status" else 404)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            server.posted.append(self.path)
            server.reply = server.after_drain or server.reply
            status, body = server.post_reply
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.reply = (200, json.dumps(STATUS).encode())
    server.posted, server.after_drain = [], None
    server.post_reply = (202, b'{"state":"draining"}')
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_command_explains_itself_and_the_exit_codes(capsys):
    names = ["hub", "agent", "check", "token", "status", "drain", "agents", "kick", "unlock", "demo", "version"]
    for command in ([], *([name] for name in names)):
        assert code_of(*command, "--help") == 0
        text = capsys.readouterr().out
        assert "usage: ncfast" in text and "exit codes:" in text and "78" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("hub", "--conf", "x"),
        ("hub", "x"),
        ("--bogus",),
        ("agent",),
        ("agent", "--hub", "ws://h/tunnel"),
        ("agent", "--config", "f", "--hub", "ws://h/tunnel"),
        ("agent", "--config", "f", "--ca-file", "c"),
        (
            "agent",
            "--hub",
            "ws://h/tunnel",
            "--agent-id",
            "a",
            "--connector",
            "c=h:1",
            "--token-file",
            "t",
            "--client-cert",
            "c",
        ),
        ("check",),
        ("token", "--agent-id", "a"),
        ("status", "--url", "localhost:9400"),
        ("status", "--watch", "0"),
        ("status", "--watch", "soon"),
        ("drain", "--url", "localhost:9400"),
        ("drain", "--wait", "0"),
        ("drain", "--wait", "long"),
        ("demo", "--size", "0"),
        ("demo", "--cuts", "two"),
        ("demo", "--cluster", "--cuts", "2"),
        ("version", "--verbose"),
    ],
)
def test_wrong_arguments_exit_2(arguments, capsys):
    assert code_of(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "error:" in captured.err


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("stauts", "did you mean: status"),
        ("chekc", "did you mean: check"),
        ("hub.yaml", "did you mean: ncfast hub --config hub.yaml"),
        ("serve", "ncfast --help lists them"),
    ],
)
def test_a_command_that_there_is_not(word, says, capsys):
    assert code_of(word, "--url", "http://h") == 2
    told = capsys.readouterr().err
    assert told.startswith(f"ncfast: error: there is no command '{word}'; ") and says in told and told.count("\n") == 1


@pytest.mark.parametrize("missing", ["orjson", "ncfast._frames"])
def test_a_python_without_what_it_needs_is_told_in_a_line(missing):
    script = f"import sys; sys.modules[{missing!r}] = None; from ncfast.cli import main; sys.exit(main(['hub']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert missing in done.stderr and "make build" in done.stderr


def test_a_module_of_ours_that_is_not_there_is_a_defect():
    script = "import sys; sys.modules['ncfast.config.loader'] = None; from ncfast.cli import main; main(['hub'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "Traceback" in done.stderr


def test_version_is_an_option_too(capsys):
    assert code_of("--version") == code_of("version") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second and first.startswith("ncfast 0.")


def test_version_and_help_load_nothing_heavy():
    script = (
        "import sys; from ncfast.cli import main; main(['version']);"
        "print([name for name in ('uvloop', 'pydantic', 'jwt', 'asyncio', 'yaml') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    version, loaded = out.splitlines()
    assert version.startswith("ncfast 0.") and loaded == "[]"


def test_token_alone_on_standard_output(key_file):
    scope = ["--connector", "ldap", "--connector", "db", "--tenant", "acme"]
    done = run("token", "--key-file", key_file, "--agent-id", "site-1", *scope, "--ttl", "60")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    claims = jwt.decode(done.stdout.strip(), "k" * 32, algorithms=["HS256"], audience="nowconnect")
    assert (claims["sub"], claims["connectors"], claims["tenant"]) == ("site-1", ["db", "ldap"], "acme")
    assert claims["exp"] - claims["iat"] == 60


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--agent-id", "a b"], 2),
        (["--agent-id", "a", "--ttl", "0"], 2),
        (["--agent-id", "a", "--ttl", "1e3"], 2),
        (["--agent-id", "a", "--key-file", "/nowhere/key"], 78),
    ],
)
def test_token_refuses(key_file, more, code, capsys):
    assert code_of("token", "--key-file", key_file, *more) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err


def test_a_weak_key_is_a_configuration_error(tmp_path, capsys):
    (tmp_path / "k").write_text("short")
    assert code_of("token", "--key-file", str(tmp_path / "k"), "--agent-id", "a") == 78
    assert "short" not in capsys.readouterr().err.replace("shorter", "").replace("too short", "")


def test_check_shows_a_hub(write, monkeypatch, capsys):
    monkeypatch.setenv("REDIS_PASSWORD", "canary")
    assert code_of("check", write(HUB)) == 0
    out = capsys.readouterr().out
    assert "a hub" in out and "listeners[0].deny" in out and "10.0.0.0/8, 192.0.2.0/24" in out
    assert "NC_JWT_KEY_FILE" in out  # no auth section: said, as the hub would not start by itself
    assert "canary" not in out and "redis:6379" in out
    assert "edge.bind" not in out  # a default


def test_check_all_shows_defaults(write, monkeypatch, capsys):
    monkeypatch.setenv("REDIS_PASSWORD", "canary")
    assert code_of("check", "--all", write(HUB)) == 0
    assert "127.0.0.1:8080" in capsys.readouterr().out


def test_check_shows_an_agent_and_the_file_that_is_missing(write, capsys):
    assert code_of("check", write(AGENT)) == 0
    out = capsys.readouterr().out
    assert "an agent" in out and "127.0.0.1:389" in out
    assert "warning: token_file: there is no file /nowhere/token" in out


def test_check_strict_takes_no_warning(tmp_path, write, capsys):
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("a.b.c")
    good = AGENT.replace("/nowhere/token", str(token))
    assert code_of("check", write(good)) == 0 and "warning" not in capsys.readouterr().out  # its CA is advice
    path = write(good)
    assert code_of("check", "--strict", path) == 78
    out, err = capsys.readouterr()
    assert "warning: tls.ca_file: not set" in out and err == f"ncfast: {path}: 1 warnings, and --strict takes none\n"
    assert code_of("check", "--strict", write(AGENT + "standby: false\n")) == 78  # a file that is missing, too
    assert "warning: token_file" in capsys.readouterr().out


def certificate(path: Path, *names: str, days: float) -> str:
    """A chain and its key, which end in so many days."""
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    trustme.CA().issue_cert(*names, not_after=ends).private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


@pytest.mark.parametrize(("days", "says"), [(-1, "has ended on"), (13, "warning: "), (15, "")])
@pytest.mark.parametrize("role", ["hub", "agent"])
def test_check_knows_until_when_certificates_count(tmp_path, write, capsys, role, days, says):
    pem = certificate(tmp_path / "own.pem", "hub.example.net", "other.example.net", days=days)
    section = f"tls: {{cert_file: '{pem}', key_file: '{pem}'}}"
    text = f"listeners: []\nedge: {{bind: '127.0.0.1:0', {section}}}\n" if role == "hub" else f"{AGENT}{section}\n"
    code = code_of("check", write(text))
    out, err = capsys.readouterr()
    key = "edge.tls.cert_file" if role == "hub" else "tls.cert_file"
    if days < 0:
        assert (code, out) == (78, "") and f"{key}: {pem}: {says}" in err
    else:
        assert code == 0 and f"{key} is for" in out and "hub.example.net, other.example.net; until 20" in out
        assert (f"warning: {key}: {pem}: ends on" in out) == bool(says)


def test_check_refuses_a_key_of_another_certificate(tmp_path, write, capsys):
    one, other = (certificate(tmp_path / name, "localhost", days=90) for name in ("one.pem", "other.pem"))
    assert code_of("check", write(f"listeners: []\nedge: {{tls: {{cert_file: '{one}', key_file: '{other}'}}}}\n")) == 78
    assert "edge.tls.key_file" in capsys.readouterr().err


def test_check_refuses_authorities_that_have_all_ended(tmp_path, write, capsys):
    paths = [certificate(tmp_path / str(days), "localhost", days=days) for days in (-1, 90)]
    for path, code in ((paths[0], 78), (None, 0)):
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(b"".join(Path(one).read_bytes() for one in ([path] if path else paths)))
        assert code_of("check", write(f"{AGENT}tls: {{ca_file: '{bundle}'}}\n")) == code
        out, err = capsys.readouterr()
        assert ("tls.ca_file" in err and "has ended" in err) == bool(code) and "ends on" not in out


@pytest.mark.parametrize(("edge", "warned"), [("", True), ("edge: {bind: '127.0.0.1:8080'}\n", False)])
def test_check_warns_of_an_edge_that_is_left_out(write, capsys, edge, warned):
    assert code_of("check", write(f"listeners: []\n{edge}")) == 0
    assert ("warning: edge: not in the file" in capsys.readouterr().out) == warned


def test_check_without_the_environment(tmp_path, write, monkeypatch, capsys):
    (tmp_path / "key").write_text("short")
    monkeypatch.setenv("NC_JWT_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("REDIS_PASSWORD", "canary")
    plain = write("listeners: []\n")
    assert code_of("check", plain) == 78 and "has 5 bytes" in capsys.readouterr().err  # as the hub would
    assert code_of("check", "--no-env", plain) == 0 and "NC_JWT_KEY_FILE" in capsys.readouterr().out
    assert code_of("check", "--no-env", "--connect", plain) == 78  # as such a hub would say
    assert "no key to check the agents' tokens with" in capsys.readouterr().err
    assert code_of("check", "--no-env", write(HUB)) == 78
    assert "REDIS_PASSWORD is not set" in capsys.readouterr().err


def test_a_token_is_bound_to_a_certificate_by_file(key_file, tmp_path, capsys):
    pem = trustme.CA().issue_cert("site-1").cert_chain_pems[0].bytes()
    (tmp_path / "site.pem").write_bytes(pem)
    arguments = ("token", "--key-file", key_file, "--agent-id", "a", "--certificate")
    assert code_of(*arguments, str(tmp_path / "site.pem")) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), options={"verify_signature": False})
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).digest()
    assert claims["cnf"] == {"x5t#S256": base64.urlsafe_b64encode(digest).decode().rstrip("=")}
    (tmp_path / "none.pem").write_text("no certificate")
    assert code_of(*arguments, str(tmp_path / "none.pem")) == 78
    assert "no certificate in PEM" in capsys.readouterr().err


def test_an_agent_by_flags_sends_no_token_in_clear_unless_told_so(tmp_path, capsys):
    agent = ("agent", "--hub", "ws://hub.example/tunnel", "--agent-id", "a", "--connector", "c=127.0.0.1:1")
    assert code_of(*agent, "--token-file", str(tmp_path / "t")) == 78
    assert "the token would travel in clear" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["token", "secret", "certificate", "mesh"])
def test_check_refuses_what_the_process_would_refuse(tmp_path, write, kind):
    """The same words, as one rule says both."""
    bad = tmp_path / "bad"
    bad.write_text("two\nlines")
    file, says = {
        "token": (AGENT.replace("/nowhere/token", str(bad)), "more than one line"),
        "secret": (f"{{listeners: [], auth: {{jwt: {{key_file: '{bad}'}}}}}}", "the HS256 secret has 9 bytes"),
        "certificate": (f"{{listeners: [], edge: {{tls: {{cert_file: '{bad}', key_file: '{bad}'}}}}}}", "edge.tls"),
        "mesh": (
            "{listeners: [], ha: {enabled: true, replica_id: a, mesh: {require_mtls: false, "
            f"secret_file: '{bad}', listen: '127.0.0.1:0'}}}}}}",
            "ha.mesh.secret_file",
        ),
    }[kind]
    path = write(file)
    checked = run("check", path)
    assert (checked.returncode, checked.stdout) == (78, "") and says in checked.stderr, checked
    if kind == "secret":
        started = run("hub", "--config", path)
        assert started.returncode == 78 and says in started.stderr


FILES = {  # each names one file that is to be read at the start
    "token_file": ("agent", "{}"),
    "tls.ca_file": ("agent", "tls: {{ca_file: '{}'}}"),
    "edge.tls.cert_file": ("hub", "edge: {{bind: '127.0.0.1:0', tls: {{cert_file: '{0}', key_file: '{0}'}}}}"),
    "admin.tls.cert_file": ("hub", "admin: {{bind: '127.0.0.1:0', tls: {{cert_file: '{0}', key_file: '{0}'}}}}"),
    "admin.token_file": ("hub", "admin: {{bind: '127.0.0.1:0', token_file: '{}'}}"),
    "ha.mesh.secret_file": (
        "hub",
        "ha: {{enabled: true, mode: active, replica_id: a, mesh: {{require_mtls: false,"
        " secret_file: '{}', listen: '127.0.0.1:0', advertise: 'tcp://127.0.0.1:1'}}}}",
    ),
}


@pytest.mark.parametrize("content", [None, "two\nlines"], ids=["absent", "malformed"])
@pytest.mark.parametrize("key", FILES)
def test_a_process_whose_files_are_of_no_use_exits_78_and_says_which(tmp_path, write, key, content):
    """So that a supervisor does not start it again and again (RestartPreventExitStatus=78)."""
    role, named = FILES[key]
    file, token, secret = tmp_path / "file", tmp_path / "token", tmp_path / "key"
    token.write_text("a.b.c")
    secret.write_text("s" * 32)
    if content is not None:
        file.write_text(content)
    if role == "agent":
        text = AGENT.replace("/nowhere/token", str(file if key == "token_file" else token))
        text += "" if key == "token_file" else named.format(file)
    else:
        ports = "".join(f"{one}: {{bind: '127.0.0.1:0'}}\n" for one in ("edge", "admin") if not key.startswith(one))
        text = f"listeners: []\nauth: {{jwt: {{key_file: '{secret}'}}}}\n{ports}{named.format(file)}\n"
    done = run(role, "--config", write(text))
    assert done.returncode == 78 and key in done.stderr and str(file) in done.stderr, done
    assert "Error" not in done.stderr and (content is not None or "No such file" in done.stderr), done.stderr


def test_check_names_all_problems_at_once(write):
    path = write(HUB.replace("connector:", "conector:").replace(":0'", ":99999'").replace("${REDIS_PASSWORD}", "pw"))
    done = run("check", path)
    assert done.returncode == 78 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) >= 3 and all(line.startswith(f"ncfast: {path}") for line in lines)
    assert "did you mean 'connector'?" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("check",), ("hub", "--config"), ("agent", "--config")])
def test_a_file_that_is_not_there_exits_78(command):
    done = run(*command, "/nowhere/config.yaml")
    assert done.returncode == 78
    assert done.stderr.startswith("ncfast: /nowhere/config.yaml: ") and done.stderr.count("\n") == 1


def test_status_as_a_table(admin, capsys):
    assert code_of("status", "--url", admin.url + "/") == 0
    out = capsys.readouterr().out
    assert "hub-a (ncfast 0.1.0, pid 7): serving, degraded (registry), up 1 h 1 min" in out
    assert "1 detached" in out and "closed 80" in out and "3.0 GiB" in out and "1.2" in out
    assert "\x1b" not in out  # an agent cannot drive the operator's terminal
    header = next(line for line in out.splitlines() if line.startswith("LISTENER"))
    row = out.splitlines()[out.splitlines().index(header) + 1]
    assert row.index("ldap") == header.index("CONNECTOR") and row.split()[-1] == "accepting"


AGENT_STATUS = {
    "role": "agent",
    "version": "0.1.0",
    "pid": 7,
    "agent_id": "site-1",
    "uptime_sec": 3671,
    "ready": {"status": "degraded", "reasons": ["target_down"]},
    "tunnels": [
        {
            "hub": "wss://hub-a/tunnel",
            "state": "owner",
            "replica": "hub-a",
            "epoch": 12,
            "draining": False,
            "rtt_ms": 1.25,
            "since_sec": 60,
        }
    ],
    "granted": 2,
    "dials": {
        "failed": {"owner": 3},
        "last_failure": {"hub": "wss://hub-b/tunnel", "role": "owner", "reason": "http_401", "ago_sec": 61},
    },
    "targets": [
        {"connector": "ldap", "target": "h:389", "checked": True, "healthy": False, "dials": 0, "held_bytes": 0},
        {"connector": "db", "target": "h:5432", "checked": False, "healthy": True, "dials": 1, "held_bytes": 2048},
    ],
    "flows": {"active": 4, "opened": 84, "closed": {"closed": 80}},
    "bytes": {"to_targets": 3 << 30, "from_targets": 1},
    "memory": {"budget_bytes": 1 << 30, "held_bytes": 0},
    "token": {"expires_sec": 86000.0, "fault": ""},
    "certificates": {"client": -61.0},
}


def test_status_of_an_agent(admin, capsys):
    admin.reply = (200, json.dumps(AGENT_STATUS).encode())
    assert code_of("status", "--agent", "--url", admin.url) == 0
    out = capsys.readouterr().out
    assert "site-1 (ncfast 0.1.0, pid 7): degraded (target_down), up 1 h 1 min" in out
    assert "counts for 23 h 53 min" in out and "client  certificate ended 1 min 1 s ago" in out
    assert "3 failed, the last 1 min 1 s ago at wss://hub-b/tunnel: http_401" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["ldap", "h:389", "DOWN", "0", "0", "B"] in rows
    assert ["owner", "wss://hub-a/tunnel", "hub-a", "12", "1.25", "1", "min", "0", "s"] in rows
    assert code_of("status", "--agent", "--json", "--url", admin.url) == 0
    assert json.loads(capsys.readouterr().out) == AGENT_STATUS


def test_status_of_an_agent_that_no_hub_owns_exits_1(admin, capsys):
    ready = {"status": "not_ready", "reasons": ["no_owner"]}
    token = {"expires_sec": -61.0, "fault": "expired 61 s ago; replace the file"}
    admin.reply = (200, json.dumps(AGENT_STATUS | {"tunnels": [], "ready": ready, "token": token}).encode())
    assert code_of("status", "--agent", "--url", admin.url) == 1
    out = capsys.readouterr().out
    assert "not_ready (no_owner)" in out and "no tunnel" in out and "expired 61 s ago" in out


def test_status_takes_no_hub_for_an_agent(admin, capsys):
    assert code_of("status", "--agent", "--url", admin.url) == 69
    assert "does not answer with the status of an agent" in capsys.readouterr().err
    admin.reply = (200, json.dumps(AGENT_STATUS).encode())
    assert code_of("status", "--url", admin.url) == 69


def test_status_of_an_empty_hub(admin, capsys):
    admin.reply = (200, json.dumps({**STATUS, "listeners": [], "agents": []}).encode())
    assert code_of("status", "--url", admin.url) == 0
    out = capsys.readouterr().out
    assert "no listeners" in out and "no agents connected" in out


def test_status_of_a_cluster(admin, capsys):
    hub = FakeHub(agents=2, peers=2)
    hub.rows[1] |= {"standby": True, "epoch": 0}
    hub.cluster["mesh"][1] |= {"peer": "tls://192.0.2.3:9500", "state": "backoff", "rtt_ms": None, "carrier": None}
    hub.cluster["mesh"][1] |= {"tls": None}
    hub.cluster_rows[1]["agent_id"] = "si\x1b[2Jte"
    hub.cluster["registry"] |= {"healthy": False, "breaker": "half_open"}
    status = hub.document()
    status["flows"] |= {"by_path": {"local": 4, "mesh": 5}, "relayed": 6}
    admin.reply = (200, json.dumps(status).encode())
    assert code_of("status", "--url", admin.url) == 0
    out = capsys.readouterr().out
    assert "registry in redis, UNHEALTHY, breaker half open" in out
    assert "4 to agents here, 5 across the mesh, 6 relayed" in out
    lines = out.splitlines()
    header = next(line for line in lines if line.startswith("HUB"))
    rows = lines[lines.index(header) + 1 :][:4]
    assert rows[0].startswith("hub-a (this one)")
    assert rows[1].split()[:5] == ["peer-0", "up", "0.25", "stream", "TLS"]
    assert rows[2].split()[:2] == ["peer-1", "none"]
    assert rows[3].split()[:4] == ["tls://192.0.2.3:9500", "backoff", "-", "out"] and rows[3].endswith(
        "connection_lost, 1 min 15 s ago"
    )
    assert any(line.split()[:4] == ["agent-canary-0", "-", "peer-0", "40"] for line in lines)
    assert "standby" in out and "\x1b" not in out


def test_status_of_a_hub_in_a_cluster_of_its_own(admin, capsys):
    hub = FakeHub(agents=0, peers=0)
    hub.cluster["registry"] |= {"kind": "memory", "view_age_sec": None}
    admin.reply = (200, json.dumps(hub.document()).encode())
    assert code_of("status", "--url", admin.url) == 0
    out = capsys.readouterr().out
    assert "registry in memory, healthy, breaker closed" in out and "hub-a (this one)" in out
    assert "AGENT OF THE CLUSTER" not in out and "paths" not in out


def test_drain_without_a_hub_exits_69(admin, capsys):
    admin.reply = (200, b'{"role": "something"}')
    assert code_of("drain", "--url", admin.url) == 69
    assert code_of("drain", "--url", "http://127.0.0.1:1") == 69
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 2


def test_a_hub_that_does_not_end_in_time_exits_1(admin, capsys):
    assert code_of("drain", "--url", admin.url, "--wait", "0.05") == 1
    captured = capsys.readouterr()
    assert captured.out == "hub-a: draining, 12 flows active\n"
    assert captured.err == "ncfast: hub-a still drains after 0.05 s\n" and admin.posted == ["/drain"]


def test_a_drain_that_does_not_wait_for_balancers(admin, capsys):
    assert code_of("drain", "--url", admin.url, "--now") == 0
    assert admin.posted == ["/drain?delay=off"]


def test_a_hub_that_was_started_again_has_ended(admin, capsys):
    admin.after_drain = (200, json.dumps({**STATUS, "pid": 8}).encode())
    assert code_of("drain", "--url", admin.url, "--wait") == 0
    assert "hub-a: ended after" in capsys.readouterr().out


def test_drain_ends_a_real_hub(write, key_file, capsys):
    with running("-m", "ncfast", "--config", write(FREE_PORTS_HUB), NC_JWT_KEY_FILE=key_file) as hub:
        url = f"http://{event(hub, 'hub_ready')['admin']}"
        assert code_of("drain", "--url", url, "--wait", "20") == 0
        assert hub.wait(PATIENCE) == 0
        assert code_of("drain", "--url", url) == 69
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith(": draining, 0 flows active") and ": ended after " in last


def test_an_agent_is_moved(admin, capsys):
    admin.post_reply = (202, b'{"agent":"acme/site-1","hub":"hub-b"}')
    assert code_of("agents", "move", "acme/site-1", "--url", admin.url) == 0
    assert code_of("agents", "move", "acme/site-1", "hub-b", "--url", admin.url) == 0
    assert admin.posted == ["/agents/move?agent=acme%2Fsite-1", "/agents/move?agent=acme%2Fsite-1&hub=hub-b"]
    assert capsys.readouterr().out == "acme/site-1: asked to move to hub-b\n" * 2


def test_why_an_agent_is_not_moved(admin, capsys):
    admin.post_reply = (409, b"site-1 is owned by hub-b: ask there\n")
    assert code_of("agents", "move", "site-1", "--url", admin.url) == 1
    admin.post_reply = (404, b"Not Found")
    assert code_of("agents", "move", "site-1", "--url", admin.url) == 69
    assert code_of("agents", "move", "site-1", "--url", "http://127.0.0.1:1") == 69
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "ncfast: site-1 is owned by hub-b: ask there" and len(others) == 2


def test_status_as_json(admin, capsys):
    assert code_of("status", "--json", "--url", admin.url) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_status_ignores_proxies_of_the_environment(admin, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert code_of("status", "--url", admin.url) == 0


@pytest.mark.parametrize("reply", [(500, b"{}"), (200, b"<html>"), (200, b"[]"), (200, b"{}"), (200, b"\xff")])
def test_status_of_something_else_exits_69(admin, reply, capsys):
    admin.reply = reply
    assert code_of("status", "--url", admin.url) == 69
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


def test_status_without_a_hub_exits_69():
    done = run("status", "--url", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == (
        "ncfast: no answer from http://127.0.0.1:1/status: Connection refused;"
        " does it run, and is --url its admin edge?\n"
    )


def test_status_watch_repeats_until_it_is_interrupted(admin):
    with subprocess.Popen(
        [sys.executable, "-m", "ncfast", "status", "--url", admin.url, "--json", "--watch", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs inherit that it is ignored
    ) as watching:
        assert [json.loads(watching.stdout.readline()) for _ in range(3)] == [STATUS] * 3
        watching.send_signal(2)
        assert watching.wait(PATIENCE) == 130
        assert watching.stderr.read() == ""


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\x1b[2J\r\n", b"HTTP/1.1 200 OK\r\n\r\n[]"],
)
def test_a_port_that_is_no_admin_edge_is_told_where_that_is(answer, capsys):
    def serve():
        with listener.accept()[0] as sock:
            sock.settimeout(PATIENCE)
            sock.recv(8192)
            sock.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        assert code_of("status", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}") == 69
        thread.join()
    told = capsys.readouterr().err
    assert "admin.bind" in told and "\x1b" not in told and told.count("\n") == 1


@pytest.mark.parametrize(("misknown", "code"), [(None, 0), (3, 1)])
def test_status_says_whether_shadow_is_ready_for_active(admin, capsys, misknown, code):
    row = {"connector": "ldap", "here": 1, "mesh": 2, "nobody": 1, "misknown_sec": misknown}
    other = {"replica_id": "hub-b", "self": False, "draining": False, "linked": True}
    cluster = {"registry": {"healthy": True, "fresh": True}, "replicas": [other], "shadow": [row]}
    admin.reply = (200, json.dumps(STATUS | {"mode": "shadow", "cluster": cluster}).encode())
    assert code_of("status", "--shadow", "--url", admin.url) == code
    text = capsys.readouterr().out
    assert "CONNECTOR" in text and "75 %" in text
    why = "not ready for active:\n  ldap: the registry knew our agents otherwise than we do, 3 s ago\n"
    assert text.endswith(why if code else "\n\nready for active\n")
    assert code_of("status", "--shadow", "--json", "--url", admin.url) == code
    assert json.loads(capsys.readouterr().out)["cluster"]["shadow"] == [row]


def test_status_of_a_hub_alone_is_not_ready_for_active(admin, capsys):
    assert code_of("status", "--shadow", "--url", admin.url) == 1
    assert capsys.readouterr().out == "not ready for active:\n  it is in no cluster (ha.enabled)\n"


def test_output_into_a_closed_pipe_is_no_traceback(admin):
    command = f"set -o pipefail; {sys.executable} -m ncfast status --json --watch 0.1 --url {admin.url} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and json.loads(done.stdout) == STATUS and done.stderr == ""


def test_docs_name_every_command_and_exit_code():
    text = Path(__file__).parents[2].joinpath("docs", "cli.md").read_text()
    for word in ("hub", "agent", "check", "token", "status", "drain", "agents", "demo", "version"):
        assert f"## {word}" in text
    for code in (0, 1, 2, 69, 78, 130):
        assert f"| {code} |" in text


HIDDEN = ("NC_CONFIG", "NC_JWT_KEY_FILE", "NC_JWKS_URL", "NC_JWT_ALGORITHM")
FREE_PORTS_HUB = """\
listeners: [{ name: l1, bind: '127.0.0.1:0', connector: ldap }]
edge: { bind: '127.0.0.1:0' }
admin: { bind: '127.0.0.1:0' }
drain: { delay_sec: 0 }
"""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    return {**kept, "NC_LOG_FORMAT": "json", **more}


@contextmanager
def running(*command: str, **more: str):
    """A process that is asked to end, by SIGTERM, and must do so with 0."""
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**more),
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def event(process, name: str) -> dict:
    """The next such line of its log."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if (fields := json.loads(line))["event"] == name:
            return fields
    raise AssertionError("".join(seen))


def test_a_hub_without_any_key_exits_78(write):
    done = subprocess.run(
        [sys.executable, "-m", "ncfast", "--config", write(FREE_PORTS_HUB)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(),
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("ncfast: ") and "NC_JWT_KEY_FILE" in done.stderr and done.stderr.count("\n") == 1


def test_a_hub_whose_port_is_taken_exits_1(write, key_file, admin):
    taken = FREE_PORTS_HUB.replace("127.0.0.1:0", f"127.0.0.1:{admin.server_port}", 1)
    done = subprocess.run(
        [sys.executable, "-m", "ncfast", "hub", "--config", write(taken)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(NC_JWT_KEY_FILE=key_file),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_hub_by_environment_agent_by_flags_status_by_url(write, key_file, tmp_path, capsys):
    token_file = tmp_path / "token"
    token_file.write_text(run("token", "--key-file", key_file, "--agent-id", "site-1", "--connector", "ldap").stdout)
    with running("-m", "ncfast", NC_CONFIG=write(FREE_PORTS_HUB), NC_JWT_KEY_FILE=key_file) as hub:
        ready = event(hub, "hub_ready")
        with running(
            "-m",
            "ncfast",
            "agent",
            "--hub",
            f"ws://{ready['edge']}/tunnel",
            "--agent-id",
            "site-1",
            "--connector",
            "ldap=127.0.0.1:389",
            "--token-file",
            str(token_file),
        ) as agent:
            event(agent, "tunnel_up")
            assert code_of("status", "--url", f"http://{ready['admin']}") == 0
            out = capsys.readouterr().out
            assert ready["listeners"]["l1"] in out and "AGENT" in out and "ldap" in out
            assert code_of("status", "--json", "--url", f"http://{ready['admin']}") == 0
            assert len(json.loads(capsys.readouterr().out)["agents"]) == 1
        event(hub, "agent_disconnected")


def test_development_mode_prints_a_command_that_works(tmp_path):
    on_free_ports = (
        "import sys; from functools import partial; from ncfast.cli import development, main;"
        "free = dict.fromkeys(('listener', 'edge', 'admin'), '127.0.0.1:0');"
        "development.development_hub = partial(development.development_hub, **free); sys.exit(main([]))"
    )
    with running("-c", on_free_ports, TMPDIR=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path)) as hub:
        for line in hub.stdout:
            if "start an agent" in line:
                break
        command = shlex.split(line.removeprefix("  start an agent"))
        secrets = list(tmp_path.glob("*/*"))
        assert {path.name for path in secrets} == {"jwt.key", "token"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in secrets)
        assert not any(path.read_text() in line for path in secrets)
        with running(*command[1:]) as agent:
            event(agent, "tunnel_up")
    assert list(tmp_path.iterdir()) == []


# agents, kick, unlock


def test_agents_are_listed_with_their_locks(admin, capsys):
    lock = {"agent_id": "site-9", "tenant": "acme", "reason": "stolen", "left_sec": 3599.0}
    rows = [{**STATUS["agents"][0], "agent_id": "site-1", "epoch": 7, "standby": False}]
    admin.reply = (200, json.dumps({**STATUS, "agents": rows, "locks": [lock]}).encode())
    for words in (["agents"], ["agents", "list"]):
        assert code_of(*words, "--url", admin.url) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["site-9", "acme", "-", "-", "-"] == lines[2][:5] and lines[2][-1] == "(stolen)"
        assert lines[1][0] == "site-1" and lines[1][2:4] == ["hub-a", "7"] and lines[1][-1] == "-"
    assert code_of("agents", "--url", admin.url, "list") == 0  # said before the action
    admin.reply = (200, json.dumps({**STATUS, "agents": [], "locks": []}).encode())
    capsys.readouterr()
    assert code_of("agents", "--url", admin.url) == 0 and capsys.readouterr().out == "no agents\n"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], "for=3600&reason="),
        (["--for", "0"], "for=0&reason="),
        (["--for", "90"], "for=90&reason="),
        (["--for", "15m", "--reason", "lost it"], "for=900&reason=lost+it"),
        (["--for", "7d", "--tenant", "acme"], "tenant=acme&for=604800&reason="),
    ],
)
def test_kick_asks_for_a_lock(admin, capsys, words, asked):
    admin.post_reply = (202, b'{"agent":"site-1","until":1800000000,"locked":true,"known":true}')
    assert code_of("kick", "site-1", *words, "--url", admin.url) == 0
    assert admin.posted == [f"/agents/kick?agent=site-1&{asked}"]
    assert capsys.readouterr().out == "site-1: locked out until 2027-01-15 08:00:00 UTC\n"


def test_kick_says_when_nobody_has_that_name_and_unlock_when_it_is_over(admin, capsys):
    admin.post_reply = (202, b'{"agent":"site-1","until":1800000000,"locked":true,"known":false}')
    assert code_of("kick", "site-1", "--url", admin.url) == 0
    assert "no hub of the cluster has an agent of that name" in capsys.readouterr().out
    admin.post_reply = (202, b'{"agent":"site-1","until":1800000000,"locked":false,"known":true}')
    assert code_of("unlock", "site-1", "--url", admin.url) == 0
    assert capsys.readouterr().out == "site-1: let in again\n"
    assert admin.posted[1] == "/agents/unlock?agent=site-1"


@pytest.mark.parametrize("status", [400, 401, 403, 409, 421])
@pytest.mark.parametrize("words", [["kick", "a"], ["unlock", "a"], ["agents", "move", "a"], ["drain"]])
def test_what_the_hub_refuses_exits_1_with_its_words(admin, capsys, words, status):
    admin.post_reply = (status, b"not \x1b[2Jso\n")
    assert code_of(*words, "--url", admin.url) == 1
    assert capsys.readouterr().err == "ncfast: not ?[2Jso\n"


@pytest.mark.parametrize("time", ["", "h", "1w", "-1", "1.5h", "1h30m"])
def test_a_time_that_is_none_is_refused(capsys, time):
    assert code_of("kick", "site-1", f"--for={time}") == 2
    assert "90s, 15m, 1h, 7d" in capsys.readouterr().err


def test_a_token_file_that_is_not_there_is_said(admin, capsys, tmp_path):
    assert code_of("unlock", "a", "--url", admin.url, "--token-file", str(tmp_path / "none")) == 1
    assert "--token-file" in capsys.readouterr().err and admin.posted == []
