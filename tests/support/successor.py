"""Hubs and agents that are upgraded as an operator does it: by `ncfast upgrade`, or SIGUSR2; and processes that do what
they must not while one is under way."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from support.eventlog import EventLog
from support.ncfast_process import Agent, ncfast
from support.process import Program, child_env
from support.until import PATIENCE, wait_until
from support.upgrading import PassingHub

# Runs in each interpreter that has it on its path, before anything else. What a message is called says who sends it:
# `fault` is read anew before each, so that it meets the predecessor of an upgrade as well as the successor.
FAULTS = """
import os, resource, signal, time
def fault():
    with open(os.path.join(os.path.dirname(__file__), "fault")) as file:
        return file.read()
if "NCFAST_HANDOVER" in os.environ:
    if fault() == "dies at once":
        os._exit(3)
    if fault() == "is silent":
        time.sleep(3600)
    if fault() == "drops a flow":
        from ncfast.hub import taking
        unpacked = taking.unpacked
        def all_but_one(*message):
            first, *others = unpacked(*message)
            first.close()
            return others
        taking.unpacked = all_but_one
    if fault() == "has few descriptors":
        resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
from ncfast.net.channel import Channel
send = Channel.send
def sends(self, kind, body, *more, **named):
    if fault() == "waits before " + kind:
        open(f"waits.{os.getpid()}", "w").close()
    while fault() == "waits before " + kind:
        time.sleep(0.01)
    said = fault()
    if said == "speaks another format" and kind == "ready":
        body = {**body, "formats": [4711], "version": "0.0.1"}
    if said == "has no descriptors left from " + kind:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 2,) * 2)
    if said == "dies before " + kind:
        os._exit(3)
    if said == "is killed before " + kind:
        os.kill(os.getpid(), signal.SIGKILL)
    if said == "is frozen before " + kind:
        from ncfast.observe import log
        log.flush()  # what it has said is to be read
        os.kill(os.getpid(), signal.SIGSTOP)
    if said == "says nothing of " + kind:
        return
    send(self, kind, body, *more, **named)
    if said == "dies after " + kind:
        os._exit(3)
    if said == "is killed after " + kind:
        os.kill(os.getpid(), signal.SIGKILL)
Channel.send = sends
"""


class Plants:
    """Where the fault of one hub's, or one agent's, processes is written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        (directory / "sitecustomize.py").write_text(FAULTS)
        self.plant("")

    @property
    def environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": os.pathsep.join([str(self.directory), child_env()["PYTHONPATH"]])}

    def plant(self, fault: str) -> None:
        """What the next process that comes to it does wrong; never half of it is read."""
        fresh = self.directory / "fault.new"
        fresh.write_text(fault)
        fresh.rename(self.directory / "fault")


class OperatedHub(PassingHub):
    """The product's own process, which stays as the parent of its successors."""

    runs: type[Program] = Program

    def start(self) -> None:
        self.plants = plants = Plants(self._directory / f"{self.name}.faults")
        self.plant = plants.plant
        argv = [*self.prefix, *ncfast("hub", "--stay-parent", "--config", self.config_path)]
        env = plants.environment
        self.program = self.runs(self.name, argv, self._directory, max_files=self.max_files, env=env)
        self.log = EventLog(self.program.err_path, self.program.exit_code)
        self._begin = self.log.mark()
        self.ready = self.log.wait("hub_ready", after=self._begin)

    def upgrade(self) -> subprocess.CompletedProcess[str]:
        """By the command, to its end."""
        return operate("upgrade", "--url", f"http://{self.ready['admin']}", directory=self._directory)


class OperatedAgent(Agent):
    """The same of an agent, which can be asked at a Unix socket and at a port."""

    flags = ("--stay-parent",)

    def start(self, *, wait: bool = True) -> None:
        plants = Plants(self._directory / f"{self._name}.faults")
        self.plant = plants.plant
        self._env = {**(self._env or {}), **plants.environment}
        self.socket = self._directory / f"{self._name}.sock"
        self.config["admin"] = {"unix": str(self.socket), "bind": "127.0.0.1:0"}
        super().start(wait=wait)

    def upgrade(self) -> subprocess.CompletedProcess[str]:
        return operate("upgrade", "--agent", "--url", f"unix:{self.socket}", directory=self._directory)


class StayingProgram(Program):
    """A parent that stays, and the process that serves: what is looked at, and gets signals, is the latter."""

    @property
    def pid(self) -> int:
        stays = self._child.pid
        successors = Path(f"/proc/{stays}/task/{stays}/children").read_text().split()
        return int(successors[-1]) if successors else stays

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Its parent ends with it; where an upgrade is under way, the predecessor has to be ended, too."""
        while self.exit_code() is None:
            self.signal(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(0.1)


def second_generation(of: OperatedHub | OperatedAgent) -> int:
    """Upgrades once, so that the process that serves is not its own supervisor's child; its number."""
    mark = of.log.mark()
    of.program.signal(signal.SIGUSR2)
    pid: int = of.log.wait("upgraded", after=mark)["pid"]
    cmdline = Path(f"/proc/{of.program.pid}/cmdline")
    wait_until(lambda: b"parent.py" in cmdline.read_bytes(), "the first process to be nothing but a parent")
    return pid


def operate(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """A command of the product's."""
    return subprocess.run(
        ncfast(*arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=child_env(),
        cwd=directory,
    )
