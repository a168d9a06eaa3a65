"""What a process is given at its start: standard descriptors, limits, signals, address families."""

from __future__ import annotations

import http.client
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import no_ipv6
from support.eventlog import EventLog
from support.ncfast_process import FAST_HUB, Hub, merged, ncfast
from support.peer import Peer
from support.process import Program
from support.topology import MakeTopology
from support.until import PATIENCE, wait_until

from bench.ports import free_port

AGENT = """\
hubs: ['ws://127.0.0.1:1/tunnel']
agent_id: site-1
token_file: /nowhere/token
connectors: [{ name: c, target: '127.0.0.1:389' }]
logging: { format: json }
"""


def hub_config(directory: Path, over: dict[str, Any] | None = None) -> dict[str, Any]:
    """Of a hub with one listener."""
    key_file = directory / "jwt.key"
    key_file.write_text(secrets.token_hex(32))
    base = {
        "auth": {"jwt": {"key_file": str(key_file)}},
        "listeners": [{"name": "l", "bind": "127.0.0.1:0", "connector": "c"}],
    }
    return merged(merged(FAST_HUB, base), over or {})


def hub_file(directory: Path, over: dict[str, Any] | None = None) -> Path:
    path = directory / "hub.yaml"
    path.write_text(yaml.safe_dump(hub_config(directory, over)))
    return path


# address families


def test_a_hub_on_every_interface_starts_on_a_kernel_without_ipv6(tmp_path: Path) -> None:
    prefix = [sys.executable, no_ipv6.__file__]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no seccomp filters here")
    everywhere = {"bind": ":0"}
    over = {"listeners": [{"name": "l", "connector": "c", **everywhere}], "edge": everywhere, "admin": everywhere}
    mesh = {"listen": ":0", "secret_file": str(tmp_path / "jwt.key"), "require_mtls": False}
    over |= {"ha": {"enabled": True, "replica_id": "hub-a", "mode": "active", "mesh": mesh}}
    hub = Hub(tmp_path, hub_config(tmp_path, over), prefix=prefix)
    try:
        assert hub.get("/healthz")[0] == hub.get("/healthz", admin=True)[0] == 200
    finally:
        assert hub.stop() == 0


# standard descriptors


def answers(port: int) -> bool:
    """Whether the admin edge at `port` does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_descriptors_that_are_closed_are_no_harm(tmp_path: Path, closed: str) -> None:
    port = free_port("127.0.0.1")
    config = hub_file(tmp_path, {"admin": {"bind": f"127.0.0.1:{port}"}})
    shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh"]
    hub = Program("hub", [*shell, *ncfast("hub", "--config", config)], tmp_path)
    try:
        wait_until(lambda: answers(port) or hub.exit_code() is not None, "a hub that serves or ends")
        assert hub.exit_code() is None, hub.tail()
        opened = {number: os.readlink(f"/proc/{hub.pid}/fd/{number}") for number in range(3)}
        hub.signal(signal.SIGTERM)
        assert hub.wait() == 0, hub.tail()
    finally:
        hub.stop()
    missing = {number for number, sign in enumerate(("<&-", ">&-", "2>&-")) if sign in closed.split()}
    assert {number for number in (1, 2) if opened[number] == os.devnull} == missing - {0}  # Program gives it for 0
    assert opened[0] == os.devnull


# signals


@pytest.mark.parametrize("command", ["hub", "agent"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_before_its_handler_stands_does_not_kill(tmp_path: Path, command: str, number: int) -> None:
    """Neither what starts, nor the successor of a process that was upgraded by its name (`pkill -USR2`). The file is a
    FIFO: whoever has opened it for writing knows that the process has come as far as reading it."""
    token = tmp_path / "token"
    token.write_text("a.b.c")
    text = hub_file(tmp_path).read_text() if command == "hub" else AGENT.replace("/nowhere/token", str(token))
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo)
    process = Program(command, ncfast(command, "--config", fifo), tmp_path)
    try:
        with fifo.open("w") as file:
            process.signal(number)
            file.write(text)
        log = EventLog(process.err_path, process.exit_code)
        log.wait("hub_ready" if command == "hub" else "connect_failed")
    finally:
        assert process.stop() == 0, process.tail()


# limits


@pytest.mark.parametrize(("command", "limit", "key"), [("hub", 96, "64 of limits.fd_reserve"), ("agent", 40, "ulimit")])
def test_what_could_serve_nobody_does_not_start(tmp_path: Path, command: str, limit: int, key: str) -> None:
    config = hub_file(tmp_path)
    if command == "agent":
        config.write_text(AGENT)
    process = Program(command, ncfast(command, "--config", config), tmp_path, max_files=limit)
    assert process.wait() == 78
    said = process.err_path.read_text()
    assert said.count("\n") == 1 and f"may have {limit} descriptors" in said and "LimitNOFILE" in said and key in said


def test_an_agent_that_is_out_of_descriptors_says_so(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    agent = made.agent
    soft, hard = resource.prlimit(agent.program.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.program.pid, resource.RLIMIT_NOFILE, (3, hard))  # what is open stays so
    with socket.create_connection(made.address("peer")) as client:
        client.settimeout(PATIENCE)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    said = agent.log.wait("dial_failed")
    assert said["detail"] == "out of descriptors" and said["reason"] == "overloaded"
    resource.prlimit(agent.program.pid, resource.RLIMIT_NOFILE, (soft, hard))
