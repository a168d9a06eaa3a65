"""`ncfast check --connect` of an agent's file, and `ncfast agent --dry-run`: against real hubs, and what stands before
them."""

from __future__ import annotations

import contextlib
import datetime
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.bystander import Bystander
from support.connect_proxy import connect_proxy
from support.peer import Peer
from support.prechecked import OwnProcess, Prechecked, check
from support.silent import silent_address
from support.topology import MakeTopology, Topology
from support.until import PATIENCE

from ncfast.auth import mint

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def file_of(made: Topology, directory: Path, **over: Any) -> dict[str, Any]:
    """An agent's file beside a hub's topology."""
    token = directory / "checked.token"
    token.write_text(over.pop("token", None) or made.token("site-1"))
    token.chmod(0o600)
    host, port = made.connectors["peer"]
    connectors = [{"name": "peer", "target": f"{host}:{port}"}]
    return {
        "hubs": [made.tunnel_url],
        "agent_id": "site-1",
        "token_file": str(token),
        "connectors": connectors,
        "http_proxy": "off",
        **over,
    }


@pytest.mark.parametrize("command", ["check", "agent"])
def test_a_running_agent_of_the_same_id_is_not_disturbed(shared: Topology, peer: Peer, command: str) -> None:
    made = shared
    seen_before = len(made.hub.log.events("standby_connected"))
    with Bystander(made, peer):
        (before,) = made.hub.status()["agents"]
        config = made.agent.config_path
        for number in range(4):  # one more than an agent may have tunnels
            words = ("check", "--connect", config) if command == "check" else ("agent", "--dry-run", "--config", config)
            seen = OwnProcess(*words) if number == 0 else Prechecked(*words)
            assert seen.code == 0 and not seen.failed, seen.out + seen.err
            assert seen.of("ws://") == {
                "DNS": "SKIP",
                "TCP": "PASS",
                "proxy": "SKIP",
                "TLS": "SKIP",
                "upgrade": "PASS",
                "token": "PASS",
                "clock": "PASS",
                "HELLO": "PASS",
            }
            assert seen.of("peer at") == seen.of("armed at") == {"DNS": "SKIP", "TCP": "PASS", "health": "SKIP"}
        (after,) = made.hub.status()["agents"]
        assert (after["session"], after["epoch"]) == (before["session"], before["epoch"])
    assert len(made.agent.log.events("tunnel_up")) == 1 and not made.agent.log.events("tunnel_down")
    assert (
        not made.hub.log.events("agent_superseded") and len(made.hub.log.events("standby_connected")) == seen_before + 4
    )


class Issued:
    """A certificate for an edge, and who signed it."""

    def __init__(self, directory: Path, *names: str, not_after: datetime.datetime | None = None) -> None:
        directory.mkdir()
        authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        issued = authority.issue_cert(*names, not_after=not_after)
        issued.private_key_and_cert_chain_pem.write_to_path(directory / "edge.pem")
        self.edge = {"cert_file": str(directory / "edge.pem"), "key_file": str(directory / "edge.pem")}


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return Issued(tmp_path_factory.mktemp("issued") / "pki", "localhost")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, peer: Peer, issued: Issued) -> Iterator[Topology]:
    """A hub with TLS on its edge, and a certificate for localhost."""
    made = Topology(
        tmp_path_factory.mktemp("secured"), {"peer": peer.address}, agents=0, hub={"edge": {"tls": issued.edge}}
    )
    yield made
    made.close()


@pytest.mark.parametrize(
    ("fault", "says", "remedy"),
    [
        ("none", "", ""),
        ("name", "mismatch", "the URL needs a name that the certificate has"),
        ("authority", "certificate", "see tls.ca_file"),
        ("plain", "does not speak TLS", "a hub without edge.tls is ws://"),
    ],
)
def test_the_hubs_certificate(
    shared: Topology, secured: Topology, issued: Issued, tmp_path: Path, fault: str, says: str, remedy: str
) -> None:
    trusted = Issued(tmp_path / "other", "localhost") if fault == "authority" else issued
    made = shared if fault == "plain" else secured
    url = f"wss://{'127.0.0.1' if fault == 'name' else 'localhost'}:{made.hub.edge[1]}/tunnel"
    seen = check(tmp_path, file_of(made, tmp_path, hubs=[url], tls={"ca_file": str(trusted.ca_file)}))
    steps = seen.of("wss://")
    assert steps["TCP"] == "PASS", seen.out + seen.err
    if fault == "none":
        assert seen.code == 0 and steps["DNS"] == steps["TLS"] == steps["HELLO"] == "PASS"
        assert "certificate for localhost, ends in" in seen.out
    else:
        assert seen.code == 1 and list(seen.failed) == ["TLS"] and says in seen.failed["TLS"], seen.out + seen.err
        assert remedy in seen.out and steps["upgrade"] == steps["HELLO"] == "SKIP"


def test_a_certificate_that_has_ended(topology: MakeTopology, peer: Peer, tmp_path: Path) -> None:
    past = Issued(tmp_path / "pki", "localhost", not_after=PAST)
    made = topology({"peer": peer.address}, agents=0, hub={"edge": {"tls": past.edge}})
    url = f"wss://localhost:{made.hub.edge[1]}/tunnel"
    seen = check(tmp_path, file_of(made, tmp_path, hubs=[url], tls={"ca_file": str(past.ca_file)}))
    assert seen.code == 1 and "expired" in seen.failed["TLS"] and "has to be renewed at the hub" in seen.out


def test_a_client_certificate_that_is_lacking(
    topology: MakeTopology, peer: Peer, issued: Issued, tmp_path: Path
) -> None:
    tls = {**issued.edge, "client_ca_file": str(issued.ca_file)}
    made = topology({"peer": peer.address}, agents=0, hub={"edge": {"tls": tls}})
    url = f"wss://localhost:{made.hub.edge[1]}/tunnel"
    seen = check(tmp_path, file_of(made, tmp_path, hubs=[url], tls={"ca_file": str(issued.ca_file)}))
    assert seen.code == 1 and list(seen.failed) == ["upgrade"] and "tls.cert_file" in seen.out, seen.out + seen.err


def test_a_refusal_behind_tls(secured: Topology, issued: Issued, tmp_path: Path) -> None:
    """What was passed is told, though the connection is gone by then."""
    url = f"wss://localhost:{secured.hub.edge[1]}/tunnel"
    ours = {"hubs": [url], "tls": {"ca_file": str(issued.ca_file)}, "token": mint(b"k" * 32, "site-1", [])}
    seen = check(tmp_path, file_of(secured, tmp_path, **ours))
    steps = seen.of("wss://")
    assert list(seen.failed) == ["token"] and steps["TLS"] == steps["upgrade"] == "PASS", seen.out + seen.err
    assert "certificate for localhost, ends in" in seen.out


@pytest.mark.parametrize(
    ("fault", "file_says", "hub_says"),
    [
        ("expired", "expired", "expired"),
        ("other", "another agent's: its sub is site-2", None),
        ("key", None, "the hub refused the token"),
        ("none", "is empty", None),
    ],
)
def test_the_token(shared: Topology, tmp_path: Path, fault: str, file_says: str | None, hub_says: str | None) -> None:
    made = shared
    token = {
        "expired": lambda: made.token("site-1", ttl=60, now=time.time() - 3600),
        "other": lambda: made.token("site-2"),
        "key": lambda: mint(b"k" * 32, "site-1", ["peer"]),
        "none": lambda: "\n",
    }[fault]()
    seen = check(tmp_path, file_of(made, tmp_path, token=token))
    if fault == "none":  # no better than a file that is wrong
        assert seen.code == 78 and "is empty" in seen.err
        return
    told = {row["what"]: row["detail"] for row in seen.rows if row["result"] == "FAIL"}
    assert seen.code == 1 and ("token_file" in told) == (file_says is not None), seen.out + seen.err
    assert file_says is None or file_says in told["token_file"]
    steps = seen.of("ws://")
    if hub_says is not None:
        assert hub_says in told[made.tunnel_url] and steps["token"] == "FAIL"
        assert steps["clock"] == "PASS" and steps["HELLO"] == "SKIP"  # a refusal has a Date, too
    else:
        assert steps["token"] == "PASS" and steps["HELLO"] == "FAIL"


def test_connectors_that_the_token_does_not_name(shared: Topology, tmp_path: Path) -> None:
    made = shared
    seen = check(tmp_path, file_of(made, tmp_path, token=made.token("site-1", connectors=["db"])))
    assert seen.code == 1 and seen.failed == {"HELLO": "the token does not name peer"}
    assert "claim connectors" in seen.out


@pytest.mark.parametrize("way", ["well", "refuses", "away", "malformed", "environment"])
def test_through_a_proxy(shared: Topology, tmp_path: Path, way: str) -> None:
    made = shared
    with connect_proxy("Basic xyz" if way == "refuses" else None) as proxy:
        url = "http://%s:%d" % proxy.address
        if way == "away":
            url = "http://127.0.0.1:1"
        setting = {"malformed": "ftp://proxy", "environment": "env"}.get(way, url)
        env = {"http_proxy": "ftp://proxy" if way == "malformed" else url}
        seen = check(tmp_path, file_of(made, tmp_path, http_proxy="env" if way == "malformed" else setting), env)
        steps = seen.of("ws://")
        if way in ("well", "environment"):
            assert seen.code == 0 and steps["proxy"] == steps["HELLO"] == "PASS", seen.out + seen.err
            assert proxy.requests == ["CONNECT %s:%d HTTP/1.1" % made.hub.edge]
        elif way == "away":
            assert seen.code == 1 and "refused" in seen.failed["TCP"] and steps["HELLO"] == "SKIP"
        else:
            assert seen.code == 1 and list(seen.failed) == ["proxy"] and steps["HELLO"] == "SKIP", seen.out
            assert "ftp://" in seen.failed["proxy"] or "status 407" in seen.failed["proxy"]


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A port where every request is answered so."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as sock:
                    sock.settimeout(PATIENCE)
                    if sock.recv(8192):
                        sock.sendall(answer)
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(8192):
                            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    ("answer", "minutes", "step", "remedy"),
    [
        ("404 Not Found", None, "upgrade", "the URL ends in /tunnel"),
        ("426 Upgrade Required", 0, "upgrade", "Upgrade"),
        ("503 Service Unavailable", 59, "upgrade", "/readyz"),
        ('401 x\r\nWWW-Authenticate: Basic realm="x"', -59, "token", "auth_failed"),
    ],
)
def test_answers_and_clocks(
    shared: Topology, tmp_path: Path, answer: str, minutes: int | None, step: str, remedy: str
) -> None:
    made = shared
    date = "" if minutes is None else f"Date: {formatdate(time.time() + minutes * 60, usegmt=True)}\r\n"
    with answering(f"HTTP/1.1 {answer}\r\n{date}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()) as port:
        seen = check(tmp_path, file_of(made, tmp_path, hubs=[f"ws://127.0.0.1:{port}/tunnel"]))
    assert seen.code == 1 and remedy in seen.out, seen.out + seen.err
    assert set(seen.failed) == ({step, "clock"} if minutes else {step})
    assert seen.of("ws://")["clock"] == ("SKIP" if minutes is None else "FAIL" if minutes else "PASS")
    if minutes:
        assert "behind" in seen.failed["clock"] if minutes > 0 else "ahead of" in seen.failed["clock"]


def test_hubs_that_do_not_answer(shared: Topology, tmp_path: Path) -> None:
    """Each step is blamed for what is its own, and the hub that is well is tried all the same."""
    made = shared
    with silent_address() as (host, port), socket.create_server(("127.0.0.1", 0)) as mute:
        urls = {
            "DNS": "wss://no-such-host.invalid:1/tunnel",
            "TCP": f"ws://{host}:{port}/tunnel",
            "upgrade": f"ws://127.0.0.1:{mute.getsockname()[1]}/tunnel",
        }
        config = file_of(made, tmp_path, hubs=[*urls.values(), made.tunnel_url])
        seen = check(tmp_path, {**config, "reconnect": {"connect_timeout_sec": 1.5}})
    for step, url in urls.items():
        steps = seen.of(url)
        assert [one for one, result in steps.items() if result == "FAIL"] == [step], seen.out + seen.err
        assert steps["HELLO"] == "SKIP"
    assert seen.code == 1 and seen.of(made.tunnel_url)["HELLO"] == "PASS"


def test_targets(shared: Topology, tmp_path: Path) -> None:
    made = shared
    expects = {"send": "PING\r\n", "expect": "+PONG"}
    with answering(b"+PONG\r\n") as well, answering(b"-ERR\r\n") as ill:
        connectors = [
            {"name": "well", "target": f"127.0.0.1:{well}", "health": expects},
            {"name": "ill", "target": f"127.0.0.1:{ill}", "health": expects},
            {"name": "dead", "target": "127.0.0.1:1", "health": expects},
            {"name": "plain", "target": "127.0.0.1:1"},
            {"name": "nowhere", "target": "no-such-host.invalid:1"},
        ]
        names = [one["name"] for one in connectors]
        token = made.token("site-1", connectors=names)
        seen = check(tmp_path, file_of(made, tmp_path, connectors=connectors, token=token))
    verdicts = {name: list(seen.of(f"{name} at").values()) for name in names}
    assert verdicts == {
        "well": ["SKIP", "PASS", "PASS"],
        "ill": ["SKIP", "PASS", "FAIL"],
        "dead": ["SKIP", "FAIL", "SKIP"],
        "plain": ["SKIP", "FAIL", "SKIP"],
        "nowhere": ["FAIL", "SKIP", "SKIP"],
    }, seen.out + seen.err
    assert seen.code == 1 and "nobody listens on that port" in seen.out and "is the name right" in seen.out


def test_by_flags_alone(shared: Topology, tmp_path: Path) -> None:
    made = shared
    config = file_of(made, tmp_path)
    target = config["connectors"][0]["target"]
    words = ["--hub", made.tunnel_url, "--agent-id", "site-1", "--connector", f"peer={target}"]
    seen = OwnProcess("agent", "--dry-run", *words, "--token-file", config["token_file"])
    assert seen.code == 0 and seen.of("ws://")["HELLO"] == "PASS", seen.out + seen.err
    assert len(made.hub.log.events("agent_connected")) <= 1  # by the agent that runs
