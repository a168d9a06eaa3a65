"""A look into processes that carry traffic: their flows, an archive for a ticket, their stacks."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.ncfast_process import ncfast
from support.topology import MakeTopology, Topology
from support.until import PATIENCE, wait_until

CANARY = "canary"


@pytest.fixture
def target() -> Iterator[socket.socket]:
    """A service that reads when it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(PATIENCE)
        yield door


def connected(made: Topology, target: socket.socket) -> tuple[socket.socket, socket.socket]:
    """A client, and the service's end of its flow."""
    client = socket.socket()
    client.settimeout(PATIENCE)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that what it does not read waits at the hub
    client.connect(made.address("peer"))
    client.sendall(b"x" * 1000)
    service, _ = target.accept()
    service.settimeout(PATIENCE)
    return client, service


def asked(made: Topology, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    host, port = made.hub.admin
    command = ncfast(*arguments, "--url", f"http://{host}:{port}")
    return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)


def flows_of(made: Topology, *arguments: str) -> dict[str, Any]:
    done = asked(made, "flows", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_who_fills_the_memory_is_found_and_ended_at_both_ends(topology: MakeTopology, target: socket.socket) -> None:
    made = topology({"peer": target.getsockname()})
    quiet, quiet_service = connected(made, target)
    busy, busy_service = connected(made, target)
    with quiet, quiet_service, busy, busy_service:
        busy_service.setblocking(False)

        def holds() -> str | None:
            """Its cid, once so much waits for the client, which reads nothing."""
            with suppress(BlockingIOError):
                busy_service.send(b"y" * 65536)
            first = json.loads(made.hub.get("/flows?top=1", admin=True)[1])["flows"][0]
            return str(first["cid"]) if first["to_client_bytes"] > 65536 else None

        cid = wait_until(holds, "bytes wait for the client")
        first, *_ = flows_of(made)["flows"]
        assert first["cid"] == cid and first["client"].endswith(f":{busy.getsockname()[1]}")
        done = asked(made, "flows", "kill", first["cid"])
        assert done.returncode == 0 and b": killed, of " in done.stdout, done
        busy_service.settimeout(PATIENCE)
        for end in (busy, busy_service):
            with pytest.raises(ConnectionResetError):
                while end.recv(65536):
                    pass
        for log in (made.hub.log, made.agent.log):
            assert log.wait("flow_closed", cid=first["cid"])["reason"] == "killed"
        assert asked(made, "flows", "kill", first["cid"]).returncode == 1
        assert [one["cid"] != first["cid"] for one in flows_of(made)["flows"]] == [True]
        quiet_service.sendall(b"still here")
        assert quiet.recv(100)


def unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return {Path(one.name).name: tar.extractfile(one).read() for one in tar.getmembers()}  # type: ignore[union-attr]


def test_an_archive_for_a_ticket_has_everything_but_secrets(topology: MakeTopology, target: socket.socket) -> None:
    made = topology({"peer": target.getsockname()}, hub={"logging": {"mask": "truncate"}})
    client, service = connected(made, target)
    with client, service:
        client.sendall(CANARY.encode())
        received = b""
        while not received.endswith(CANARY.encode()):
            received += service.recv(65536)
        done = asked(made, "diag", "--output", "-")
        assert done.returncode == 0, done.stderr
        parts = unpacked(done.stdout)
        place = "127.0.0.1:%d" % client.getsockname()[1]
    assert {"about.json", "process.json", "config.json", "stacks.json", "log.txt", "status.json"} <= parts.keys()
    assert b"hub_ready" in parts["log.txt"] and b"agent_connected" in parts["log.txt"]
    assert json.loads(parts["config.json"])["auth"]["jwt"]["key_file"] == str(made.key_file)
    assert json.loads(parts["flows-held.json"])["flows"][0]["client"] == "127.0.0.0/24"
    assert b"nowconnect_flows_opened_total" in parts["metrics.txt"]
    secrets = [made.key_file.read_bytes().strip(), made.agent.token_file.read_bytes().strip(), CANARY.encode()]
    for name, content in parts.items():
        assert place.encode() not in content, name
        assert not any(secret in content for secret in secrets), name


def test_an_archive_is_a_file_for_its_owner_alone(
    topology: MakeTopology, target: socket.socket, tmp_path: Path
) -> None:
    made = topology({"peer": target.getsockname()}, agents=0)
    output = tmp_path / "diag.tar.gz"
    assert asked(made, "diag", "--output", str(output)).returncode == 0
    assert output.stat().st_mode & 0o777 == 0o600
    assert asked(made, "diag", "--output", str(output)).returncode == 1, "it is there already"


def test_stacks_are_told_at_a_signal(topology: MakeTopology, target: socket.socket) -> None:
    made = topology({"peer": target.getsockname()})
    for process in (made.hub, made.agent):
        process.program.signal(signal.SIGUSR1)
        told = process.log.wait("task_stack")
        assert told["count"] >= 1 and all(" " in place for place in told["trace"])
        threads = [line for line in process.log.stray if "hread 0x" in line]
        assert len(threads) >= 2 and all("most recent call first" in line for line in threads), process.log.stray
        process.log.stray.clear()
    client, service = connected(made, target)
    with client, service:
        assert service.recv(1000), "both serve on"
