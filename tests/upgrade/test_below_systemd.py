"""Upgrades below a real systemd, by the repository's own units: what it shows, watches, reloads and ends is the
successor."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml
from support.peer import Peer
from support.places import Loopback
from support.successor import FAULTS
from support.systemd import ENVIRONMENT, Systemd
from support.until import wait_until
from support.upgrading import Steady

from bench.ports import free_port
from ncfast.auth import mint

HUB, AGENT = "ncfast-hub.service", "ncfast-agent@site-1.service"
SOCKETS = {HUB: "unix:/run/ncfast/admin.sock", AGENT: "unix:/run/ncfast-agent/site-1/admin.sock"}
LOW = 389  # a port that the hub may bind by its unit's capability alone
WATCHDOG_SEC = 8  # shorter than the units', so that the test sees it fed, every four seconds


@dataclass
class Site:
    systemd: Systemd
    client_address: tuple[str, int]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Site]:
    places = Loopback()
    host = places.host("hub")
    edge = f"{host}:{free_port(host)}"
    key = secrets.token_hex(32)
    hub = {
        "listeners": [{"name": "peer", "bind": f"{host}:{LOW}", "connector": "peer"}],
        "edge": {"bind": edge},
        "admin": {"bind": f"{host}:{free_port(host)}", "unix": SOCKETS[HUB].partition(":")[2]},
        "auth": {"jwt": {"algorithms": ["HS256"], "key_file": "${CREDENTIALS_DIRECTORY}/secret_jwt.key"}},
        "drain": {"delay_sec": 0},
        "logging": {"format": "json"},
    }
    agent = {
        "hubs": [f"ws://{edge}/tunnel"],
        "agent_id": "site-1",
        "token_file": "${CREDENTIALS_DIRECTORY}/secret_token",
        "connectors": [{"name": "peer", "target": f"{peer.address[0]}:{peer.address[1]}"}],
        "admin": {"unix": SOCKETS[AGENT].partition(":")[2]},
        "logging": {"format": "json"},
    }
    shorter = f"[Service]\nWatchdogSec={WATCHDOG_SEC}\nEnvironment={ENVIRONMENT}\n"
    made = Systemd(
        tmp_path_factory.mktemp("systemd"),
        {
            "plants/sitecustomize.py": FAULTS,
            "plants/fault": "",
            "ncfast/hub.yaml": yaml.safe_dump(hub),
            "ncfast/agents/site-1.yaml": yaml.safe_dump(agent),
            "ncfast/hub.credentials/jwt.key": key,
            "ncfast/agents/site-1.credentials/token": mint(key.encode(), "site-1", connectors=["peer"]),
            f"units/{HUB}.d/test.conf": shorter,
            "units/ncfast-agent@.service.d/test.conf": shorter,
        },
    )
    try:
        made.do("systemctl", "start", HUB, AGENT)
        yield Site(made, (host, LOW))
    finally:
        made.close()


def upgrade(systemd: Systemd, unit: str) -> tuple[int, int]:
    """From one main process to the next; the first has ended."""
    before = systemd.main_pid(unit)
    by = ["--agent"] if unit == AGENT else []
    systemd.do("/opt/ncfast/bin/ncfast", "upgrade", *by, "--url", SOCKETS[unit])
    wait_until(lambda: systemd.main_pid(unit) != before, "another main process")
    wait_until(lambda: systemd.run("kill", "-0", str(before)).returncode, "the former to end")
    return before, systemd.main_pid(unit)


def test_the_main_process_is_the_successor(site: Site, peer: Peer) -> None:
    systemd = site.systemd
    with Steady(peer, site.client_address) as transfer:
        transfer.wait_under_way()
        fed = {}
        for unit in (HUB, AGENT):
            before, after = upgrade(systemd, unit)
            by = ["--agent"] if unit == AGENT else []
            status = systemd.do("/opt/ncfast/bin/ncfast", "status", "--json", *by, "--url", SOCKETS[unit])
            assert json.loads(status)["pid"] == after
            transfer.wait_moved(1)
            assert "upgraded" in systemd.journal(unit, before)
            shown = systemd.do("systemctl", "status", "--no-pager", unit)
            assert f"Main PID: {after} " in shown and "active (running)" in shown, shown
            fed[unit] = int(systemd.shown(unit, "WatchdogTimestampMonotonic"))

            systemd.do("systemctl", "reload", unit)
            wait_until(lambda unit=unit, after=after: "config_reloaded" in systemd.journal(unit, after), "a reload")
            assert systemd.main_pid(unit) == after
        for unit in (HUB, AGENT):
            wait_until(
                lambda unit=unit: int(systemd.shown(unit, "WatchdogTimestampMonotonic")) > fed[unit],
                "the watchdog to be fed",
            )
            assert systemd.shown(unit, "NRestarts") == "0"
        transfer.wait_moved(1)


@pytest.mark.parametrize("unit", [HUB, AGENT])
def test_a_predecessor_that_dies_is_a_service_that_has_failed(site: Site, unit: str) -> None:
    systemd = site.systemd
    before, restarts = systemd.main_pid(unit), int(systemd.shown(unit, "NRestarts"))
    systemd.do("sh", "-c", "printf 'is killed after heritage' > /etc/plants/fault")
    systemd.do("systemctl", "kill", "--signal", "USR2", "--kill-whom", "main", unit)
    wait_until(lambda: int(systemd.shown(unit, "NRestarts")) == restarts + 1, "another start")
    systemd.do("sh", "-c", "printf '' > /etc/plants/fault")
    wait_until(lambda: systemd.shown(unit, "ActiveState") == "active", "it to serve")
    started = [json.loads(line) for line in systemd.journal(unit, before).splitlines() if "upgrade_started" in line]
    assert systemd.run("kill", "-0", str(started[-1]["pid"])).returncode, "the successor has ended"
    assert systemd.main_pid(unit) not in (before, started[-1]["pid"])


def test_stop_and_restart_are_about_the_successor(site: Site) -> None:
    systemd = site.systemd
    for unit in (AGENT, HUB):
        _, after = upgrade(systemd, unit)
        systemd.do("systemctl", "restart", unit)
        again = systemd.main_pid(unit)
        assert again not in (after, 0) and "draining" in systemd.journal(unit, after)
        _, last = upgrade(systemd, unit)
        systemd.do("systemctl", "stop", unit)
        shown = [systemd.shown(unit, name) for name in ("ActiveState", "Result", "ExecMainStatus")]
        assert shown == ["inactive", "success", "0"], shown
        assert "draining" in systemd.journal(unit, last)
