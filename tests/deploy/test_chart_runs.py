"""The chart's pods as processes, with the network, names, files, environment and rights that their objects say."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.containers import Containers
from support.eventlog import EventLog
from support.helm import NAMESPACE, Rendered, render
from support.process import Program
from support.until import PATIENCE, wait_until

from ncfast.auth import mint

KEY = "k" * 64
REDIS, TARGET, AGENT = "redis", "target", "ncfast-agent"
PORT = 8000  # the target's


class Installation:
    """The objects with what a cluster adds to them: Redis, a target, Secrets."""

    def __init__(self, directory: Path, rendered: Rendered) -> None:
        self._rendered = rendered
        hubs = rendered.one("StatefulSet")
        domain = f"{hubs['spec']['serviceName']}.{NAMESPACE}.svc"
        self.hubs = [f"{hubs['metadata']['name']}-{number}" for number in range(hubs["spec"]["replicas"])]
        self._secrets = self._make_secrets(directory / "secrets")
        self.containers = Containers(
            directory, {**{hub: [f"{hub}.{domain}"] for hub in self.hubs}, REDIS: [], TARGET: [], AGENT: []}
        )
        self.logs: dict[str, EventLog] = {}
        self.programs: dict[str, Program] = {}

    def _make_secrets(self, directory: Path) -> dict[str, Path]:
        """Folders, a file for each key."""
        token = mint(KEY.encode(), "site-1", connectors=["web"])
        mesh = trustme.CA()
        contents: dict[str, dict[str, bytes]] = {
            "ncfast-tokens": {"jwt.key": KEY.encode()},
            "ncfast-agent-token": {"token": token.encode()},
            "ncfast-mesh": {"ca.crt": mesh.cert_pem.bytes()},
        }
        for hub in self.hubs:
            issued = mesh.issue_cert(hub)
            contents["ncfast-mesh"][f"{hub}.crt"] = b"".join(one.bytes() for one in issued.cert_chain_pems)
            contents["ncfast-mesh"][f"{hub}.key"] = issued.private_key_pem.bytes()
        for name, files in contents.items():
            (directory / name).mkdir(parents=True)
            for key, content in files.items():
                path = directory / name / key
                path.touch(mode=0o600)
                path.write_bytes(content)
        return {name: directory / name for name in contents}

    def start_pod(self, name: str, pod: dict[str, Any]) -> None:
        """Its only container, as the image would run it."""
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        files: dict[str, Path | str] = {}
        for mount in container["volumeMounts"]:
            volume, path = volumes[mount["name"]], mount["mountPath"]
            if "configMap" in volume:
                config = self._rendered.one("ConfigMap", volume["configMap"]["name"])
                files |= {f"{path}/{key}": text for key, text in config["data"].items()}
            elif "secret" in volume:
                files[path] = self._secrets[volume["secret"]["secretName"]]
            else:
                files[f"{path}/"] = ""
        env = {one["name"]: one.get("value", name) for one in container.get("env", ())}  # or metadata.name
        program = self.containers.run(name, ["ncfast", *container["args"]], files=files, env=env)
        self.programs[name], self.logs[name] = program, EventLog(program.err_path, program.exit_code)

    def status(self, hub: str) -> dict[str, Any]:
        done = self.containers.exec(hub, ["ncfast", "status", "--json", "--url", "unix:/run/ncfast/admin.sock"])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def serves(self, hub: str) -> bool:
        """Whether a client of the hub's listener gets what the target has."""
        try:
            return self.get(hub, 1080, "/word") == (200, b"found")
        except ConnectionError:
            return False  # it knows of no agent yet, or not yet where it is

    def get(self, name: str, port: int, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.containers.address(name), port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


VALUES = {
    "hub": {
        "listeners": [{"name": "web", "port": 80, "bind": ":1080", "connector": "web"}],
        "config": {
            "auth": {"jwt": {"algorithms": ["HS256"], "key_file": "/run/secrets/tokens/jwt.key"}},
            "ha": {"redis_url": f"redis://{REDIS}:6379/0"},
            "drain": {"delay_sec": 1, "timeout_sec": 30},
        },
    },
    "agent": {
        "enabled": True,
        "config": {
            "hubs": [f"ws://ncfast-{n}.ncfast-peers.{NAMESPACE}.svc:8080/tunnel" for n in range(3)],
            "allow_plaintext": True,
            "agent_id": "site-1",
            "connectors": [{"name": "web", "target": f"{TARGET}:{PORT}"}],
        },
    },
}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    rendered = render(VALUES)
    made = Installation(tmp_path_factory.mktemp("chart"), rendered)
    try:
        options = "--bind * --protected-mode no --appendonly no --save".split()
        made.containers.run(REDIS, ["redis-server", *options, "", "--dir", "/run"], files={})
        made.containers.run(
            TARGET, ["python3", "-m", "http.server", "-d", "/etc", str(PORT)], files={"/etc/word": "found"}
        )
        pod = rendered.one("StatefulSet")["spec"]["template"]["spec"]
        for hub in made.hubs:
            made.start_pod(hub, pod)
        for hub in made.hubs:
            made.logs[hub].wait("hub_ready")
        made.start_pod(AGENT, rendered.one("Deployment", AGENT)["spec"]["template"]["spec"])
        made.logs[AGENT].wait("tunnel_up")
        yield made
    finally:
        made.containers.close()


def test_pods_are_well_by_their_own_probes(installation):
    (container,) = render(VALUES).one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for name in ("readinessProbe", "livenessProbe"):
        probe = container[name]["httpGet"]
        for hub in installation.hubs:
            wait_until(
                lambda h=hub, p=probe: installation.get(h, ports[p["port"]], p["path"])[0] == 200, f"{name} of {hub}"
            )


def test_hubs_find_each_other_by_their_certificates(installation):
    for hub in installation.hubs:
        others = set(installation.hubs) - {hub}
        wait_until(
            lambda hub=hub, others=others: linked(installation.status(hub)) == others,
            lambda hub=hub: str(installation.status(hub)["cluster"]["mesh"]),
        )


def linked(status: dict[str, Any]) -> set[str]:
    """The hubs to which a link is up."""
    return {row["peer"] for row in status["cluster"]["mesh"] if row["state"] == "up"}


def test_clients_of_every_hub_reach_the_agents_target(installation):
    for hub in installation.hubs:
        wait_until(lambda hub=hub: installation.serves(hub), f"an answer by {hub}")


def test_the_hook_and_sigterm_are_one_drain(installation):
    hub = installation.hubs[0]
    (container,) = render(VALUES).one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    done = installation.containers.exec(hub, container["lifecycle"]["preStop"]["exec"]["command"])
    assert done.returncode == 0, done.stderr
    installation.programs[hub].signal(signal.SIGTERM)
    assert installation.programs[hub].wait() == 0
    assert [one["event"] for one in installation.logs[hub].events() if one["event"] in ("leaving", "draining")] == [
        "leaving",
        "draining",
    ]
    for other in installation.hubs[1:]:
        wait_until(lambda other=other: installation.serves(other), "the rest serve on")
