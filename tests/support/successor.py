"""Hubs and agents that are upgraded as an operator does it: by `ncfast upgrade`, or SIGUSR2; and successors that do
what they must not."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from support.eventlog import EventLog
from support.ncfast_process import Agent, ncfast
from support.process import Program, child_env
from support.until import PATIENCE
from support.upgrading import PassingHub

# Runs in each interpreter that has it on its path, before anything else; `fault` is read anew by each successor.
FAULTS = """
import os, sys, time
if "NCFAST_HANDOVER" in os.environ:
    fault = open(os.path.join(os.path.dirname(__file__), "fault")).read()
    if fault == "dies at once":
        os._exit(3)
    if fault == "is silent":
        time.sleep(3600)
    if fault == "drops a flow":
        from ncfast.hub import taking
        unpacked = taking.unpacked
        def all_but_one(*message):
            first, *others = unpacked(*message)
            first.close()
            return others
        taking.unpacked = all_but_one
    elif fault:
        from ncfast.net.channel import Channel
        send = Channel.send
        def sends(self, kind, body, *more, **named):
            if fault == "speaks another format" and kind == "ready":
                body = {**body, "formats": [4711], "version": "0.0.1"}
            if fault == "dies before " + kind:
                os._exit(3)
            if fault == "says nothing of " + kind:
                return
            send(self, kind, body, *more, **named)
            if fault == "dies after " + kind:
                os._exit(3)
        Channel.send = sends
"""


class OperatedHub(PassingHub):
    """The product's own process, which stays as the parent of its successors."""

    runs: type[Program] = Program

    def start(self) -> None:
        self.faults = self._directory / f"{self.name}.faults"
        self.faults.mkdir(exist_ok=True)
        (self.faults / "sitecustomize.py").write_text(FAULTS)
        self.plant("")
        argv = [*self.prefix, *ncfast("hub", "--stay-parent", "--config", self.config_path)]
        path = {"PYTHONPATH": f"{self.faults}:{child_env()['PYTHONPATH']}"}
        self.program = self.runs(self.name, argv, self._directory, max_files=self.max_files, env=path)
        self.log = EventLog(self.program.err_path, self.program.exit_code)
        self._begin = self.log.mark()
        self.ready = self.log.wait("hub_ready", after=self._begin)

    def plant(self, fault: str) -> None:
        """What the next successor does wrong."""
        (self.faults / "fault").write_text(fault)

    def upgrade(self) -> subprocess.CompletedProcess[str]:
        """By the command, to its end."""
        return operate("upgrade", "--url", f"http://{self.ready['admin']}", directory=self._directory)


class OperatedAgent(Agent):
    """The same for an agent, whose admin edge is a Unix socket."""

    flags = ("--stay-parent",)

    def start(self, *, wait: bool = True) -> None:
        self._edge = self._directory / f"{self.agent_id}.sock"
        self.config["admin"] = {"unix": str(self._edge)}
        super().start(wait=wait)

    def upgrade(self) -> subprocess.CompletedProcess[str]:
        """By the command, to its end."""
        return operate("upgrade", "--agent", "--url", f"unix:{self._edge}", directory=self._directory)


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
