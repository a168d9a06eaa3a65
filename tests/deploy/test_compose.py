"""The Compose file: Docker Compose takes it, and its services run as it says, as processes on this machine's programs.

Grafana and the images are not had here: for the one its provisioning files are looked at, for the others
`make image-rehearsal` builds what is ours.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.containers import Containers
from support.eventlog import EventLog
from support.process import Program, child_env, require
from support.until import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "config" / "compose"
HUBS = ("hub-a", "hub-b", "hub-c")
SERVICES = {*HUBS, "keys", "agent", "redis", "slapd", "prometheus", "grafana"}
PROCESSES = (*HUBS, "agent", "redis", "slapd", "prometheus")


def document() -> dict[str, Any]:
    """What Docker Compose makes of the file: anchors and shorthands resolved, every key one that it knows."""
    (compose,) = require("docker-compose", places=[str(Path(sys.executable).parent)])
    done = subprocess.run(
        [compose, "-f", str(COMPOSE / "compose.yaml"), "config", "--format", "json", "--no-interpolate"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=child_env({"HOME": "/nonexistent"}),
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return document()["services"]


# the file


def test_all_parts_are_there(services):
    assert set(services) == SERVICES


def test_what_is_mounted_exists(services):
    mounts = [mount for service in services.values() for mount in service.get("volumes", ()) if mount["type"] == "bind"]
    assert len(mounts) >= len(HUBS) + 5
    assert not [mount["source"] for mount in mounts if not Path(mount["source"]).exists()]
    assert all(mount["read_only"] for mount in mounts)


def test_our_containers_can_change_nothing(services):
    for name in (*HUBS, "agent", "keys"):
        service = services[name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert ("user" in service) == (name == "keys"), "the image's user, but for the volume's owner"


def test_ports_are_for_this_machine_alone(services):
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    assert len({port["published"] for port in published}) == len(published)


def test_a_drain_has_the_time_that_it_may_take(services):
    drain = yaml.safe_load((COMPOSE / "hub.yaml").read_text())["drain"]
    for hub in HUBS:
        assert int(services[hub]["stop_grace_period"].removesuffix("s")) >= sum(drain.values()) + 10


def test_every_file_of_rules_is_loaded():
    loaded = {Path(path).name for path in yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["rule_files"]}
    rules = {
        path.name
        for path in (ROOT / "config" / "prometheus").glob("*.yaml")
        if "groups" in yaml.safe_load(path.read_text())
    }
    assert rules <= loaded


def test_grafana_finds_prometheus_and_the_dashboards(services):
    (source,) = yaml.safe_load((COMPOSE / "grafana" / "datasource.yaml").read_text())["datasources"]
    assert urllib.parse.urlsplit(source["url"]).hostname in services
    (provider,) = yaml.safe_load((COMPOSE / "grafana" / "dashboards.yaml").read_text())["providers"]
    (dashboards,) = [
        mount for mount in services["grafana"]["volumes"] if mount["target"] == provider["options"]["path"]
    ]
    assert list(Path(dashboards["source"]).glob("*.json"))


# its services


def image_environment() -> dict[str, str]:
    """Settings of ours that the Dockerfile gives to whatever runs in the image."""
    return dict(re.findall(r"\b(NC_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))


class Stack:
    """The services as processes; Docker Compose's order is kept."""

    def __init__(self, directory: Path, services: dict[str, dict[str, Any]]) -> None:
        require("redis-server", "slapd", "slapadd", "prometheus")
        self._services = services
        self.containers = Containers(directory, {name: [] for name in PROCESSES})
        self.programs: dict[str, Program] = {}
        self.logs: dict[str, EventLog] = {}
        self._keys = directory / "keys"
        self._scraped = directory / "prometheus.yml"
        often = (COMPOSE / "prometheus.yml").read_text().replace("scrape_interval: 15s", "scrape_interval: 1s")
        self._scraped.write_text(often)

    def _make_keys(self) -> None:
        """By the script of the service, but that it changes no owners."""
        self._keys.mkdir()
        (script,) = self._services["keys"]["command"]
        script = script.replace("$$", "$").replace("chown 10001:10001", "stat")
        entry = self._services["keys"]["entrypoint"]
        for _ in "12":  # the second start keeps what is there
            env = child_env({"PATH": f"{self.containers.programs}:{Path(sys.executable).parent}:{child_env()['PATH']}"})
            done = subprocess.run(
                [*entry, script], cwd=self._keys, capture_output=True, text=True, timeout=PATIENCE, env=env
            )
            assert done.returncode == 0, done.stderr
        assert {path.stat().st_mode & 0o777 for path in self._keys.iterdir()} == {0o600}

    def start(self, name: str, argv: list[str], **more: Any) -> Program:
        """With the service's mounts and environment."""
        service = self._services[name]
        files: dict[str, Path | str] = {}
        for mount in service.get("volumes", ()):
            files[mount["target"]] = self._keys if mount["source"] == "keys" else Path(mount["source"])
        files |= {f"{place.partition(':')[0]}/": "" for place in service.get("tmpfs", ())}
        files |= more.pop("files", {})
        env = {**image_environment(), **service.get("environment", {})}
        program = self.containers.run(name, argv, files=files, env=env, **more)
        self.programs[name], self.logs[name] = program, EventLog(program.err_path, program.exit_code)
        return program

    def start_all(self) -> None:
        self._make_keys()
        self.start("redis", [*self._services["redis"]["command"], "--protected-mode", "no", "--dir", "/run"])
        self._start_slapd()
        for hub in HUBS:
            self.start(hub, ["ncfast", "hub"], files={})
        for hub in HUBS:
            self.logs[hub].wait("hub_ready")
        self.start("agent", ["ncfast", *self._services["agent"]["command"]])
        self.logs["agent"].wait("tunnel_up")
        # the command of its image
        own = ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/run/prometheus"]
        self.start("prometheus", ["prometheus", *own], files={"/etc/prometheus/prometheus.yml": self._scraped})

    def _start_slapd(self) -> None:
        """By its Dockerfile's steps."""
        steps = (COMPOSE / "slapd" / "Dockerfile").read_text()
        (load,) = [line.removeprefix("RUN ") for line in steps.splitlines() if line.startswith("RUN slapadd")]
        (serve,) = [
            json.loads(line.removeprefix("ENTRYPOINT ")) for line in steps.splitlines() if line.startswith("ENTRYPOINT")
        ]
        files = {f"/etc/ldap/{name}": COMPOSE / "slapd" / name for name in ("slapd.conf", "people.ldif")}
        self.start("slapd", ["sh", "-c", f'{load} && exec "$@"', "sh", *serve], files=files, scratch=["/var/lib/ldap"])

    def ask_prometheus(self, path: str) -> Any:
        with urllib.request.urlopen(
            f"http://{self.containers.address('prometheus')}:9090{path}", timeout=PATIENCE
        ) as answer:
            return json.load(answer)["data"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, services: dict[str, dict[str, Any]]) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("compose"), services)
    try:
        running.start_all()
        yield running
    finally:
        running.containers.close()


def search(stack: Stack, hub: str) -> str:
    """The command that the file's head shows, at the hub's own address."""
    (ldapsearch,) = require("ldapsearch")
    at = f"ldap://{stack.containers.address(hub)}:1389"
    done = subprocess.run(
        [ldapsearch, "-x", "-LLL", "-H", at, "-b", "dc=example,dc=net", "(uid=user7)"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.stdout


def test_the_directory_answers_at_every_hub(stack):
    for hub in HUBS:
        wait_until(
            lambda hub=hub: "mail: user7@example.net" in search(stack, hub), lambda: stack.programs["slapd"].tail()
        )


def test_the_images_health_check_says_yes(stack, services):
    (check,) = [
        line.partition("CMD ")[2] for line in (ROOT / "Dockerfile").read_text().splitlines() if "CMD ncfast" in line
    ]
    for hub in HUBS:
        assert "healthcheck" not in services[hub]
        assert stack.containers.exec(hub, ["sh", "-c", check]).returncode == 0


def test_prometheus_scrapes_the_hubs_and_has_the_rules(stack):
    query = urllib.parse.urlencode({"query": 'sum(up{job="ncfast"})'})

    def up() -> bool:
        try:
            result = stack.ask_prometheus(f"/api/v1/query?{query}")["result"]
        except OSError:
            return False  # it does not listen yet
        return bool(result) and float(result[0]["value"][1]) == len(HUBS)

    wait_until(up, stack.programs["prometheus"].tail)
    loaded = {group["file"].rpartition("/")[2] for group in stack.ask_prometheus("/api/v1/rules")["groups"]}
    assert "alerts.yaml" in loaded


def test_a_hub_may_go(stack):
    done = stack.containers.exec("hub-a", ["ncfast", "drain", "--url", "unix:/run/ncfast/admin.sock"])
    assert done.returncode == 0, done.stderr
    assert stack.programs["hub-a"].wait() == 0
    for hub in HUBS[1:]:
        wait_until(lambda hub=hub: "uid: user7" in search(stack, hub), "the others serve on")
