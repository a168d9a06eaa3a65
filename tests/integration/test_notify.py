"""What hub and agent tell systemd: a real datagram socket where it would listen, which knows who sent what."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ncfast_process import merged
from support.peer import Peer, byte_exact, run_flow
from support.process import Program
from support.successor import OperatedAgent, OperatedHub
from support.topology import MakeTopology
from support.until import until, wait_until

from ncfast.serve.notify import Supervisor
from ncfast.serve.process import network

CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)


class Manager:
    """Messages by the process that sent them, each as its lines."""

    def __init__(self, address: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self._told: list[tuple[int, list[str]]] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self._address = self._sock.getsockname()

    def _read(self) -> None:
        while True:
            data, ancillary, _, _ = self._sock.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
            if not data:
                return
            self._told.append((CREDENTIALS.unpack(ancillary[0][2])[0], data.decode().split("\n")))

    def told(self, program: Program) -> list[str]:
        """The first lines of what a process has said, but for that it lives."""
        return self.told_by(program.pid)

    def told_by(self, pid: int) -> list[str]:
        """As `told`, of a process that the test has not started."""
        return [lines[0] for teller, lines in self._told if teller == pid and lines[0] != "WATCHDOG=1"]

    def lives(self, program: Program) -> int:
        """How often it has said that it lives."""
        return self.lives_by(program.pid)

    def lives_by(self, pid: int) -> int:
        return sum(teller == pid and lines == ["WATCHDOG=1"] for teller, lines in self._told)

    def order(self, pid: int, line: str) -> int:
        """Which message it was that began with this line."""
        return next(at for at, (teller, lines) in enumerate(self._told) if teller == pid and lines[0] == line)

    def reload_asked_at(self, program: Program) -> int:
        """Microseconds of CLOCK_MONOTONIC, as in its last message of a reload."""
        ((name, value),) = [lines[1].split("=") for pid, lines in self._told if pid == program.pid and lines[1:]][-1:]
        assert name == "MONOTONIC_USEC"
        return int(value)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._address)
        self._thread.join()
        self._sock.close()


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Either kind of `$NOTIFY_SOCKET`."""
    return str(tmp_path / "notify") if request.param == "path" else f"@ncfast-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    made = Manager(address)
    yield made
    made.close()


def test_a_supervisor_is_told_of_each_step(topology: MakeTopology, peer: Peer, address: str, manager: Manager) -> None:
    unit = ("env", f"NOTIFY_SOCKET={address}", "WATCHDOG_USEC=100000")
    made = topology({"peer": peer.address}, hub={"drain": {"timeout_sec": 60}}, prefix=unit)
    programs = [made.hub.program, made.agent.program]
    for program in programs:
        wait_until(lambda: manager.told(program) == ["READY=1"], "that it serves")
        wait_until(lambda: manager.lives(program) >= 3, "that the loop runs, told again and again")

    before = time.monotonic_ns() // 1000
    assert made.hub.reload(merged(made.hub.config, {"logging": {"level": "debug"}}))
    made.agent.program.signal(signal.SIGHUP)
    for program in programs:
        wait_until(lambda: manager.told(program) == ["READY=1", "RELOADING=1", "READY=1"], "a reload, begun and over")
        assert before <= manager.reload_asked_at(program) <= time.monotonic_ns() // 1000
    made.hub.expected_errors = frozenset({"config_refused"})
    assert not made.hub.reload({"listeners": "none"})
    wait_until(lambda: manager.told(made.hub.program)[3:] == ["RELOADING=1", "READY=1"], "a refused one, over as well")

    async def scenario() -> None:
        seed = peer.next_seed()
        script = [["send", 10], ["read", 10], ["wait", f"go {seed}"], ["fin"], ["drain"]]
        flow = asyncio.create_task(
            run_flow(peer, made.address("peer"), seed=seed, client=[["send", 10], ["drain"]], service=script)
        )
        await peer.reached(seed, 10)
        for program in reversed(programs):
            program.signal(signal.SIGTERM)
            await asyncio.to_thread(
                wait_until, lambda: manager.told(program)[-1] == "STOPPING=1", "the end, told at its beginning"
            )
            assert program.exit_code() is None
        await asyncio.to_thread(peer.open_gate, f"go {seed}")
        byte_exact((await flow).client, 10)

    asyncio.run(scenario())
    for program in programs:
        wait_until(lambda: program.exit_code() == 0, "its end")


def test_the_successor_of_an_upgrade_is_the_service(
    topology: MakeTopology, peer: Peer, address: str, manager: Manager
) -> None:
    unit = ("env", f"NOTIFY_SOCKET={address}", "WATCHDOG_USEC=100000", f"WATCHDOG_PID={os.getpid()}")
    made = topology({"peer": peer.address}, prefix=unit)
    hub = made.hub
    wait_until(lambda: manager.told(hub.program) == ["READY=1"], "that it serves")
    hub.program.signal(signal.SIGUSR2)
    pid = hub.log.wait("upgraded")["pid"]
    assert hub.program.wait() == 0
    assert manager.told(hub.program) == ["READY=1", f"MAINPID={pid}"]
    wait_until(lambda: manager.told_by(pid) == ["READY=1"], "that the successor serves")
    assert manager.order(hub.program.pid, f"MAINPID={pid}") < manager.order(pid, "READY=1")
    wait_until(lambda: manager.lives_by(pid) >= 3, "that its loop runs, for whom the watchdog was not set")
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: manager.told_by(pid) == ["READY=1", "RELOADING=1", "READY=1"], "a reload")
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: manager.told_by(pid)[-1] == "STOPPING=1", "its end")
    wait_until(lambda: len(hub.log.events("stopped")) == 2, "that it has ended")


@pytest.mark.parametrize("which", ["hub", "agent"])
def test_a_successor_whose_predecessor_dies_in_its_last_moment_is_the_service(
    topology: MakeTopology, peer: Peer, address: str, manager: Manager, which: str
) -> None:
    """The supervisor knows of it already, and would end it if it did not say that it lives."""
    unit = ("env", f"NOTIFY_SOCKET={address}", "WATCHDOG_USEC=100000")
    operated = {"make_hub": OperatedHub} if which == "hub" else {"make_agent": OperatedAgent}
    made = topology({"peer": peer.address}, prefix=unit, **operated)
    of = made.hub if which == "hub" else made.agent
    of.plant("is killed before main")
    of.program.signal(signal.SIGUSR2)
    pid = of.log.wait("upgrade_started")["pid"]
    try:
        assert of.program.wait() == -signal.SIGKILL
        assert manager.told(of.program) == ["READY=1", f"MAINPID={pid}"]
        wait_until(lambda: manager.told_by(pid) == ["READY=1"] and manager.lives_by(pid) >= 3, "it to say so")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: manager.told_by(pid) == ["READY=1", "RELOADING=1", "READY=1"], "a reload")
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: of.log.events("stopped"), "that it has ended")
    assert manager.told_by(pid)[-1] == "STOPPING=1"


def test_reloads_are_told_one_after_the_other(address: str, manager: Manager) -> None:
    """Signals that waited for an upgrade are worked off at once; and an end that has begun is the last word."""

    async def scenario() -> None:
        supervisor = Supervisor(network(), environment={"NOTIFY_SOCKET": address})
        supervisor.ready()
        begun: list[int] = []

        async def reload(number: int, gate: asyncio.Event) -> None:
            async with supervisor.reloading():
                begun.append(number)
                await gate.wait()

        gate = asyncio.Event()
        reloads = [asyncio.create_task(reload(number, gate)) for number in range(3)]
        await until(lambda: begun, "the first to begin")
        gate.set()
        await asyncio.gather(*reloads)
        last = asyncio.create_task(reload(3, gate := asyncio.Event()))
        await until(lambda: 3 in begun, "another")
        supervisor.stopping()
        gate.set()
        await last
        await reload(4, gate)
        assert begun == [0, 1, 2, 3, 4]

    asyncio.run(scenario())
    pair = ["RELOADING=1", "READY=1"]
    expected = ["READY=1", *pair, *pair, *pair, "RELOADING=1", "STOPPING=1"]
    wait_until(lambda: len(manager.told_by(os.getpid())) >= len(expected), "all that was said")
    assert manager.told_by(os.getpid()) == expected


def test_a_supervisor_that_is_away_is_told_of_in_the_log(topology: MakeTopology, peer: Peer, tmp_path: Path) -> None:
    made = topology({"peer": peer.address}, prefix=("env", f"NOTIFY_SOCKET={tmp_path}/nobody"))
    for process in (made.hub, made.agent):
        told = process.log.wait("notify_failed")
        assert (told["detail"], told["error"]) == ("READY=1", "No such file or directory")
    script = [["send", 10], ["fin"], ["drain"]]
    both = asyncio.run(run_flow(peer, made.address("peer"), seed=peer.next_seed(), client=script, service=script))
    byte_exact(both.client, 10)
