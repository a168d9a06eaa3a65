"""Places are for those who take them: silence, slow TLS and many tunnels of one token shut nobody else out."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trustme
from support.bystander import Bystander
from support.insider import Insider
from support.peer import Address, Peer
from support.topology import Topology
from support.until import PATIENCE, wait_until

ATTACKER = "127.0.0.2"  # whatever the machine: each address of 127/8 is its own
SILENT = 600  # connections; a hub has places for 512 that have said nothing


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def dial(stack: ExitStack, address: Address, source: str = ATTACKER) -> socket.socket:
    return stack.enter_context(socket.create_connection(address, timeout=PATIENCE, source_address=(source, 0)))


# silence


@pytest.fixture(scope="module")
def patient_hub(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """One that leaves silent connections their places for a minute, and does not ask how fast they come."""
    edge = {"handshakes_per_source_per_sec": 0, "handshake_timeout_sec": 60}
    made = Topology(tmp_path_factory.mktemp("hub"), {"peer": peer.address}, hub={"edge": edge})
    yield made
    made.check()
    made.close()


@pytest.mark.parametrize("door", ["edge", "admin"])
def test_silent_connections_of_one_source(
    request: pytest.FixtureRequest, patient_hub: Topology, peer: Peer, stack: ExitStack, door: str
) -> None:
    """Agents, health checks and operators come from elsewhere, and are served."""
    request.node.topologies = [patient_hub]
    hub = patient_hub.hub
    with Bystander(patient_hub, peer) as bystander:
        for _ in range(SILENT):
            dial(stack, hub.admin if door == "admin" else hub.edge)
        for admin in (False, True):
            assert hub.get("/readyz", admin=admin)[0] == 200
        assert hub.status()["agents"] and hub.metrics()
        newcomer = patient_hub.add_agent(f"late-{door}")  # waits for its tunnel
        bystander.goes_on()
        assert newcomer.stop() == 0
        patient_hub.agents.remove(newcomer)


# TLS that ends when nobody waits for it any more


PLACES = 8
DEADLINE = 0.5  # seconds from accept to request


class SlowTls:
    """A TLS handshake whose last message waits to be sent."""

    def __init__(self, stack: ExitStack, address: Address) -> None:
        self.sock = dial(stack, address)
        self.began = time.monotonic()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(self._came, self._goes)
        while True:
            try:
                tls.do_handshake()
                return  # what is left to be sent is the last of it
            except ssl.SSLWantReadError:
                self.sock.sendall(self._goes.read())
                data = self.sock.recv(65536)
                if not data:
                    return  # a machine so slow that the deadline has come first
                self._came.write(data)

    def finish(self) -> None:
        try:
            self.sock.sendall(self._goes.read())
        except OSError:
            pass  # closed already, as it should be

    def closed(self) -> None:
        """Waits for the hub to close."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass


def test_tls_that_ends_around_its_deadline_keeps_no_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, peer: Peer, stack: ExitStack
) -> None:
    directory = tmp_path_factory.mktemp("tls")
    pem = directory / "hub.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    edge = {
        "tls": {"cert_file": str(pem), "key_file": str(pem)},
        "handshakes_per_source_per_sec": 0,
        "handshake_timeout_sec": DEADLINE,
        "max_pending_handshakes": PLACES,
    }
    made = Topology(directory, {"peer": peer.address}, agents=0, hub={"edge": edge})
    request.node.topologies = [made]
    stack.callback(made.close)
    hub = made.hub
    for turn in range(6):
        slow = [SlowTls(stack, hub.edge) for _ in range(PLACES)]
        for number, attacker in enumerate(slow):
            # the attack's own pace: before, at and after the deadline
            when = attacker.began + DEADLINE + (number - PLACES // 2 + turn / 6) * 0.01
            time.sleep(max(0.0, when - time.monotonic()))
            attacker.finish()
        for attacker in slow:
            attacker.closed()
    evicted = hub.metric_by("nowconnect_handshakes_refused_total").get(("too_many_handshakes",), 0)
    reached = [dial(stack, hub.edge) for _ in range(PLACES)]
    wait_until(lambda: all(_over(sock) for sock in reached), "each of the next to have had its place, and its time")
    refused = hub.metric_by("nowconnect_handshakes_refused_total")
    assert refused.get(("too_many_handshakes",), 0) == evicted, "a place was still taken"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    asked = http.client.HTTPSConnection(*hub.edge, timeout=PATIENCE, context=context)
    asked.request("GET", "/readyz")
    assert asked.getresponse().status == 200
    asked.close()
    made.check()


def _over(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


# many tunnels of one token


def test_one_token_takes_no_more_than_three_tunnels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, peer: Peer, stack: ExitStack
) -> None:
    hub = {"edge": {"handshakes_per_source_per_sec": 0}, "limits": {"max_agents": 16}}
    made = Topology(tmp_path_factory.mktemp("tunnels"), {"peer": peer.address}, hub=hub)
    request.node.topologies = [made]
    stack.callback(made.close)
    with Bystander(made, peer) as bystander:
        token = made.token("mallory")
        owner = stack.enter_context(Insider(made.hub.edge, token))
        owner.behaves()
        for _ in range(40):
            stack.enter_context(Insider(made.hub.edge, token, standby=True)).behaves()
        tunnels = made.hub.status()["tunnels"]
        assert tunnels["owned"] == 2 and tunnels["standby"] <= 2, tunnels
        others = [made.add_agent(f"honest-{number}") for number in range(8)]  # each waits for its tunnel
        bystander.goes_on()
        for other in others:
            assert other.stop() == 0
            made.agents.remove(other)
    stack.pop_all().close()
