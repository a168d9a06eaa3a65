"""Names at the agent: a DNS server that is away, addresses that are dead. The agent is a host of its own; hub and
services are here, and have a route to it."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.ncfast_process import FAST_HUB, Agent, Hub, merged
from support.resolving import Dnsmasq, Resolving
from support.until import PATIENCE, wait_until

from ncfast.auth import mint

GREETING = b"220 at your service\r\n"
DIAL_SEC = 2  # of every connector


class Site:
    """Hub and service here, the agent at ``site``; a listener for each connector."""

    def __init__(self, directory: Path, places: Resolving) -> None:
        self.directory, self.places = directory, places
        self.here = places.host("here")
        self.ending = ExitStack()
        self._service = self.ending.enter_context(socket.create_server((self.here, 0)))
        self.port = self._service.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._service.accept()
            except OSError:
                return
            with client:
                client.sendall(GREETING)

    def start(self, connectors: Mapping[str, str], *, hub: str) -> None:
        """The connectors' targets by name, and the host by which the agent dials the hub."""
        key_file = self.directory / "jwt.key"
        key_file.write_text(secrets.token_hex(32))
        listeners = [{"name": name, "bind": "127.0.0.1:0", "connector": name} for name in connectors]
        over: dict[str, Any] = {
            "auth": {"jwt": {"key_file": str(key_file)}},
            "listeners": listeners,
            "edge": {"bind": f"{self.here}:0"},
        }
        self.hub = Hub(self.directory, merged(FAST_HUB, over))
        self.ending.callback(self.hub.stop)
        self.agent = Agent(
            self.directory,
            hubs=[f"ws://{hub}:{self.hub.edge[1]}/tunnel"],
            agent_id="site-1",
            token=mint(key_file.read_bytes(), "site-1", connectors=list(connectors)),
            connectors={
                name: {"target": f"{host}:{self.port}", "dial_timeout_sec": DIAL_SEC, "max_dials": 64}
                for name, host in connectors.items()
            },
            overrides={"allow_plaintext": True},
            prefix=self.places.prefix("site"),
        )
        self.ending.callback(self.agent.stop)

    def client(self, connector: str) -> socket.socket:
        return self.ending.enter_context(socket.create_connection(self.hub.listener(connector), timeout=PATIENCE))

    def greets(self, connector: str) -> bool:
        """Whether a client of the connector is served, or reset."""
        with self.client(connector) as client:
            try:
                return client.recv(64) == GREETING
            except ConnectionResetError:
                return False

    def check(self) -> None:
        """Orderly ends, and clean logs."""
        assert self.agent.stop() == 0, self.agent.program.tail()
        assert self.hub.stop() == 0, self.hub.program.tail()
        self.agent.check_log()
        self.hub.check_log()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    places = Resolving()
    made = Site(tmp_path, places)
    try:
        yield made
    finally:
        made.ending.close()
        places.close()


def test_names_that_hang_hold_up_neither_literals_nor_other_names_nor_the_hub(site: Site) -> None:
    """The DNS server swallows questions, about more names than the loop's thread pool ever had threads."""
    hung = {f"hung-{number}": f"hung-{number}.test" for number in range(6)}
    site.places.names("site", {"hub.test": [site.here], "known.test": [site.here]}, site.places.host("dns"))
    site.places.partition("site", "dns")
    site.start({"literal": site.here, "known": "known.test", **hung}, hub="hub.test")
    waiting = [site.client(name) for name in hung]
    wait_until(lambda: len({line["host"] for line in site.agent.log.events("name_hangs")}) == len(hung), "all hang")
    assert site.greets("literal") and site.greets("known")
    mark = site.agent.log.mark()
    site.hub.pin()
    site.hub.stop()
    site.hub.start()
    site.agent.wait_tunnel(mark)
    assert site.greets("literal")
    for client in waiting:
        client.close()
    failures = site.agent.log.events("dial_failed")
    assert {line["reason"] for line in failures} == {"target_timeout"}
    assert {line["connector"] for line in failures} <= set(hung)
    site.check()


def test_the_last_answer_serves_while_the_dns_server_is_away(site: Site) -> None:
    dns = Dnsmasq(site.directory, site.places, {"db.test": site.here})
    site.ending.callback(dns.stop)
    site.places.names("site", {}, dns.address)
    site.start({"db": "db.test", "none": "none.test"}, hub=site.here)
    assert site.greets("db") and not site.greets("none")
    site.places.partition("site", "dns")

    def told() -> bool:
        assert site.greets("db")
        return bool(site.agent.log.events("name_hangs"))

    wait_until(told, "told that the name hangs")
    (line,) = site.agent.log.events("name_hangs")
    assert line["host"] == "db.test" and line["share"] == "target" and line["kept_sec"] >= 1
    site.places.heal()
    wait_until(lambda: site.greets("db") and site.agent.log.events("name_answers"), "told that it answers")
    (failed,) = site.agent.log.events("dial_failed")
    assert failed["connector"] == "none" and failed["detail"] == "the name is not found"
    site.check()


def test_hub_and_target_whose_first_address_is_dead(site: Site) -> None:
    dead = site.places.silent("site")
    site.places.names("site", {"both.test": [dead, site.here]}, dead)
    site.start({"both": "both.test"}, hub="both.test")
    assert site.greets("both") and site.greets("both")
    assert not site.agent.log.events("connect_failed") and not site.agent.log.events("dial_failed")
    site.check()


def test_a_target_of_which_all_addresses_refuse(site: Site) -> None:
    site.places.names("site", {"both.test": ["127.0.0.1", site.places.host("site")]}, site.here)
    site.start({"both": "both.test"}, hub=site.here)
    assert not site.greets("both")
    assert site.agent.log.wait("dial_failed")["reason"] == "target_refused"
    site.check()
