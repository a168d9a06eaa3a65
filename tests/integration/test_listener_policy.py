"""Who may connect to a listener, how many, for how long, and under which address."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import services
from support.haproxy import HAProxy, listen_section
from support.ncfast_process import ACCESS
from support.peer import Peer, byte_exact, order_line, run_flow
from support.topology import MakeTopology, Topology
from support.until import PATIENCE, wait_until

V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1(source: str, port: int) -> bytes:
    return f"PROXY TCP4 {source} 10.9.8.7 {port} 389\r\n".encode()


def v2(source: str, port: int) -> bytes:
    body = socket.inet_aton(source) + socket.inet_aton("10.9.8.7") + struct.pack("!HH", port, 389)
    return V2_SIGNATURE + b"\x21\x11" + struct.pack("!H", len(body)) + body


@contextmanager
def client_from(made: Topology, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection(made.address("peer"), timeout=PATIENCE, source_address=(source, 0)) as sock:
        yield sock


def says_until_closed(sock: socket.socket) -> bytes:
    said = b""
    try:
        while data := sock.recv(65536):
            said += data
    except ConnectionResetError:
        pass
    return said


def is_served(made: Topology, source: str = "127.0.0.1") -> bool:
    """Whether the recording service's answer comes; False when the hub closes instead, at any moment."""
    try:
        with client_from(made, source) as sock:
            sock.sendall(b"hello")
            sock.shutdown(socket.SHUT_WR)
            said = says_until_closed(sock)
    except TimeoutError:
        raise
    except OSError:  # reset, at whatever call it is noticed
        said = b""
    assert said in (b"", b"answer"), said
    return said == b"answer"


# --- PROXY protocol in


@pytest.mark.parametrize(("spoken", "accepted"), [("v1", "v1"), ("v2", "v2"), ("v1", "any"), ("v2", "any")])
def test_proxy_header_from_a_trusted_source_names_the_client(
    topology: MakeTopology, spoken: str, accepted: str
) -> None:
    with services.recorder(b"answer") as (target, seen):
        trust = {"proxy_protocol": accepted, "proxy_from": ["127.0.0.0/8"]}
        made = topology({"peer": target}, listener=trust)
        head = {"v1": v1, "v2": v2}[spoken]("198.51.100.7", 4321)
        for whole in (True, False):
            with client_from(made) as sock:
                if whole:
                    sock.sendall(head + b"payload")
                else:
                    for byte in head:
                        sock.sendall(bytes([byte]))
                    sock.sendall(b"payload")
                sock.shutdown(socket.SHUT_WR)
                assert says_until_closed(sock) == b"answer"
        assert seen == [b"payload", b"payload"]
        line = made.hub.log.wait(ACCESS, count=2)
        assert line["client"].startswith("198.51.100.7"), line


def test_proxy_header_from_anyone_else_is_payload(topology: MakeTopology) -> None:
    with services.recorder(b"answer") as (target, seen):
        made = topology({"peer": target}, listener={"proxy_protocol": "any", "proxy_from": ["192.0.2.0/24"]})
        with client_from(made) as sock:
            sock.sendall(v1("198.51.100.7", 4321) + b"payload")
            sock.shutdown(socket.SHUT_WR)
            assert says_until_closed(sock) == b"answer"
        assert seen == [v1("198.51.100.7", 4321) + b"payload"]
        assert made.hub.log.wait(ACCESS)["client"].startswith("127.0.0.1")


BAD_HEADERS = {
    "none": b"\x30\x0c\x02\x01\x01\x60\x07",  # an LDAP bind begins like this
    "v1 without end": b"PROXY TCP4 " + b"1" * 200,
    "v1 with a wrong address": b"PROXY TCP4 999.1.1.1 10.9.8.7 1 2\r\n",
    "v2 cut short": v2("198.51.100.7", 1)[:-3],
    "v2 with an unknown command": V2_SIGNATURE + b"\x2f\x11" + struct.pack("!H", 0),
    "silence": b"",
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_trusted_source_without_a_whole_header_is_closed(topology: MakeTopology, name: str) -> None:
    with services.recorder(b"answer") as (target, seen):
        made = topology({"peer": target}, listener={"proxy_protocol": "any", "proxy_from": ["127.0.0.0/8"]})
        with client_from(made) as sock:
            sock.sendall(BAD_HEADERS[name])
            assert says_until_closed(sock) == b""
        assert seen == []


# --- those who say nothing


def test_checks_of_haproxy_reach_no_service(topology: MakeTopology, tmp_path: Path) -> None:
    """It tries the listener itself, as it does where it does not ask /readyz: with `send-proxy-v2`, LOCAL."""
    text = listen_section()
    for there, instead in {
        "    option httpchk GET /readyz\n": "",
        " check port 8080 ": " check ",
        "2s": "20ms",
    }.items():
        assert there in text
        text = text.replace(there, instead)
    with services.recorder(b"answer") as (target, seen):
        made = topology({"peer": target}, listener={"proxy_protocol": "v2", "proxy_from": ["127.0.0.0/8"]})
        haproxy = HAProxy(tmp_path, {"hub-a": made.hub}, "peer", text)
        try:
            kind = ("proxy_local",)
            wait_until(lambda: made.hub.metric_by("nowconnect_probes_total").get(kind, 0) >= 10, "ten checks")
            assert haproxy.states() == {"hub-a": "UP"}
            assert made.hub.status()["flows"]["opened"] == 0 and seen == []
            with socket.create_connection(haproxy.address, timeout=PATIENCE) as sock:
                sock.sendall(b"payload")
                sock.shutdown(socket.SHUT_WR)
                assert says_until_closed(sock) == b"answer"
        finally:
            haproxy.stop()
        assert seen == [b"payload"]
        assert not made.hub.log.events("client_shed") and made.hub.metric("nowconnect_accept_shed_total") == 0


def test_with_open_on_first_byte_a_probe_reaches_no_service(topology: MakeTopology, peer: Peer) -> None:
    """Those who speak are served whole, whatever comes with the first byte."""
    made = topology({"peer": peer.address}, listener={"open_on": "first_byte"})
    for _ in range(10):
        with client_from(made) as sock:
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
    wait_until(lambda: made.hub.metric_by("nowconnect_probes_total")["silent",] == 10, "ten probes")
    assert made.hub.status()["flows"]["opened"] == 0
    script = [["both", [["send", 5 << 20], ["fin"]], [["drain"]]]]
    both = asyncio.run(run_flow(peer, made.address("peer"), client=script, service=script))
    byte_exact(both.client, 5 << 20)
    byte_exact(both.service, 5 << 20)


# --- PROXY protocol out


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_target_is_told_the_clients_address(topology: MakeTopology, version: str) -> None:
    with services.recorder(b"answer") as (target, seen):
        made = topology({"peer": target}, agent_connector={"proxy_protocol": version})
        with client_from(made) as sock:
            port = sock.getsockname()[1]
            sock.sendall(b"payload")
            sock.shutdown(socket.SHUT_WR)
            assert says_until_closed(sock) == b"answer"
        (data,) = seen
        assert data.endswith(b"payload")
        if version == "v1":
            assert data.startswith(b"PROXY TCP4 127.0.0.1 ") and f" {port} ".encode() in data, data
        else:
            assert data.startswith(V2_SIGNATURE + b"\x21\x11") and data[16:20] == bytes([127, 0, 0, 1]), data
            assert data[24:26] == struct.pack("!H", port)


def test_address_from_a_proxy_header_reaches_the_target(topology: MakeTopology) -> None:
    with services.recorder(b"answer") as (target, seen):
        made = topology(
            {"peer": target},
            listener={"proxy_protocol": "v2", "proxy_from": ["127.0.0.0/8"]},
            agent_connector={"proxy_protocol": "v1"},
        )
        with client_from(made) as sock:
            sock.sendall(v2("198.51.100.7", 4321) + b"payload")
            sock.shutdown(socket.SHUT_WR)
            assert says_until_closed(sock) == b"answer"
        assert seen[0].startswith(b"PROXY TCP4 198.51.100.7 ") and seen[0].endswith(b"payload")


# --- who


@pytest.mark.parametrize(
    ("rules", "served", "turned_away"),
    [
        ({"deny": ["127.0.0.2/32"]}, "127.0.0.1", "127.0.0.2"),
        ({"allow": ["127.0.0.2/32"]}, "127.0.0.2", "127.0.0.1"),
        ({"allow": ["127.0.0.0/8"], "deny": ["127.0.0.0/31"]}, "127.0.0.2", "127.0.0.1"),
    ],
    ids=["deny", "allow", "deny wins"],
)
def test_networks_are_let_in_or_kept_out(
    topology: MakeTopology, rules: dict[str, list[str]], served: str, turned_away: str
) -> None:
    with services.recorder(b"answer") as (target, seen):
        made = topology({"peer": target}, listener=rules)
        for _ in range(3):
            assert not is_served(made, turned_away)
            assert is_served(made, served)
        assert seen == [b"hello"] * 3
        assert made.hub.metric("nowconnect_accept_shed_total") == 3


def test_rules_judge_the_address_in_the_proxy_header(topology: MakeTopology) -> None:
    with services.recorder(b"answer") as (target, seen):
        made = topology(
            {"peer": target},
            listener={"proxy_protocol": "v1", "proxy_from": ["127.0.0.0/8"], "deny": ["198.51.100.0/24"]},
        )
        for source, answer in (("198.51.100.7", b""), ("203.0.113.7", b"answer")):
            with client_from(made) as sock:
                sock.sendall(v1(source, 1234) + b"payload")
                try:
                    sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                assert says_until_closed(sock) == answer
        assert seen == [b"payload"]


# --- how many


def test_connections_of_a_listener_are_capped(topology: MakeTopology) -> None:
    with services.recorder(b"answer") as (target, _):
        made = topology({"peer": target}, listener={"max_connections": 3})
        first = [socket.create_connection(made.address("peer"), timeout=PATIENCE) for _ in range(3)]
        wait_until(lambda: made.hub.status()["flows"]["active"] == 3, "three flows")
        assert not is_served(made)
        first[0].close()
        wait_until(lambda: made.hub.status()["flows"]["active"] == 2, "two flows")
        assert is_served(made)
        for client in first[1:]:
            client.close()


def test_connections_of_one_source_are_capped(topology: MakeTopology) -> None:
    with services.recorder(b"answer") as (target, _):
        made = topology({"peer": target}, listener={"max_connections_per_source": 2})
        with client_from(made, "127.0.0.2"), client_from(made, "127.0.0.2"):
            wait_until(lambda: made.hub.status()["flows"]["active"] == 2, "two flows")
            assert not is_served(made, "127.0.0.2")
            assert is_served(made, "127.0.0.3")
        wait_until(lambda: made.hub.status()["flows"]["active"] == 0, "no flow")
        assert is_served(made, "127.0.0.2")


def test_flows_of_the_hub_are_capped(topology: MakeTopology) -> None:
    with services.recorder(b"answer") as (target, _):
        made = topology({"peer": target}, hub={"limits": {"max_flows": 2}})
        with client_from(made), client_from(made):
            wait_until(lambda: made.hub.status()["flows"]["active"] == 2, "two flows")
            assert not is_served(made)
        wait_until(lambda: made.hub.status()["flows"]["active"] == 0, "no flow")
        assert is_served(made)


def test_opens_of_one_source_are_limited_in_rate(topology: MakeTopology) -> None:
    with services.recorder(b"answer") as (target, _):
        made = topology({"peer": target}, hub={"limits": {"opens_per_source_per_sec": 0.2}})
        served = [is_served(made, "127.0.0.2") for _ in range(30)]
        assert served[0] and not all(served)
        assert is_served(made, "127.0.0.3")


# --- how long


def test_idle_flow_is_closed_by_name(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, listener={"idle_timeout_sec": 1})
    script = [["send", 5], ["drain"]]
    both = asyncio.run(run_flow(peer, made.address("peer"), client=script, service=[["drain"]]))
    assert both.client.error == "ECONNRESET" and both.service.error == "ECONNRESET", both
    made.hub.log.wait(ACCESS, reason="idle_timeout")


def test_client_without_a_first_byte_is_closed_by_name(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address}, listener={"first_byte_timeout_sec": 0.5})
    with client_from(made) as sock:
        assert says_until_closed(sock) == b""
    made.hub.log.wait(ACCESS, reason="first_byte_timeout")


def test_half_closed_flow_without_progress_is_reset_by_name(topology: MakeTopology, peer: Peer) -> None:
    timers = {"flow": {"half_close_sec": 1}}
    made = topology({"peer": peer.address}, hub=timers, agent=timers)
    with client_from(made) as sock:
        sock.sendall(order_line(peer.next_seed(), [["drain"], ["wait", "for nothing"]]))
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    peer.open_gate("for nothing")
    made.hub.log.wait(ACCESS, reason="half_close_timeout")


def test_target_that_does_not_answer_is_given_up(topology: MakeTopology) -> None:
    """A listening socket whose queue is full drops SYNs: the dial hangs, and the client must not."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        made = topology({"peer": full.getsockname()}, agent_connector={"dial_timeout_sec": 0.5})
        assert not is_served(made)
        made.hub.log.wait(ACCESS, reason="target_timeout")
        for filler in fillers:
            filler.close()
