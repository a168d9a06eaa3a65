"""Hubs that are upgraded as an operator does it: by `ncfast upgrade`, or SIGUSR2; and successors that do what they must
not."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.eventlog import EventLog
from support.ncfast_process import Hub, ncfast
from support.process import Program, child_env
from support.until import PATIENCE

# Runs in each interpreter that has it on its path, before anything else; `fault` is read anew by each successor.
FAULTS = """
import os, signal, sys, time
if "NCFAST_HANDOVER" in os.environ:
    fault = open(os.path.join(os.path.dirname(__file__), "fault")).read()
    if fault == "dies at once":
        os._exit(3)
    if fault == "is silent":
        time.sleep(3600)
    if fault:
        from ncfast.net.channel import Channel
        send = Channel.send
        def sends(self, kind, body, *more, **named):
            if fault == "speaks another format" and kind == "ready":
                body = {**body, "formats": [4711], "version": "0.0.1"}
            if fault == "dies before " + kind:
                os._exit(3)
            if fault == "is frozen before " + kind:
                from ncfast.observe import log
                log.flush()  # what it has said is to be read
                os.kill(os.getpid(), signal.SIGSTOP)
            if fault == "says nothing of " + kind:
                return
            send(self, kind, body, *more, **named)
            if fault == "dies after " + kind:
                os._exit(3)
        Channel.send = sends
"""


class OperatedHub(Hub):
    """The product's own process, which stays as the parent of its successors."""

    def start(self) -> None:
        self._faults = self._directory / f"{self.name}.faults"
        self._faults.mkdir(exist_ok=True)
        (self._faults / "sitecustomize.py").write_text(FAULTS)
        self.plant("")
        argv = [*self.prefix, *ncfast("hub", "--stay-parent", "--config", self.config_path)]
        path = {"PYTHONPATH": f"{self._faults}:{child_env()['PYTHONPATH']}"}
        self.program = Program(self.name, argv, self._directory, max_files=self.max_files, env=path)
        self.log = EventLog(self.program.err_path, self.program.exit_code)
        self._begin = self.log.mark()
        self.ready = self.log.wait("hub_ready", after=self._begin)

    def plant(self, fault: str) -> None:
        """What the next successor does wrong."""
        (self._faults / "fault").write_text(fault)

    def upgrade(self) -> subprocess.CompletedProcess[str]:
        """By the command, to its end."""
        return operate("upgrade", "--url", f"http://{self.ready['admin']}", directory=self._directory)


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
