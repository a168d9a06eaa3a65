"""The process that stays as the parent of those that serve: real processes of a few lines instead of hubs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.process import child_env, require
from support.until import PATIENCE, wait_until

# A generation: writes its name when it is up, starts the next at SIGUSR2 and ends, ends at SIGTERM with its code.
GENERATION = """
import os, signal, subprocess, sys, time
name, code, leaves = int(sys.argv[1]), int(sys.argv[2]), []
def next_one(*_):
    subprocess.Popen([sys.executable, sys.argv[0], str(name + 1), str(code + 1)])
    while not os.path.exists(f"up.{name + 1}"):
        time.sleep(0.01)
    if name:
        os._exit(0)
    os.environ["NEXT"] = "up"
    from ncfast.serve.parent import become, children
    become(children()[-1])
signal.signal(signal.SIGUSR2, next_one)
signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
signal.signal(signal.SIGHUP, lambda *_: open(f"hup.{name}", "w").close())
with open(f"writing.{name}", "w") as file:
    file.write(str(os.getpid()))
os.rename(f"writing.{name}", f"up.{name}")
while True:
    time.sleep(1)
"""


class Family:
    def __init__(self, directory: Path, *prefix: str) -> None:
        self.directory = directory
        program = directory / "generation.py"
        program.write_text(GENERATION)
        argv = [*prefix, sys.executable, str(program), "0", "40"]
        self.first = subprocess.Popen(argv, cwd=directory, env=child_env())

    def up(self, name: int) -> int:
        """The process's number, as it sees it."""
        path = self.directory / f"up.{name}"
        wait_until(path.exists, f"generation {name}")
        return int(path.read_text())

    def upgrade(self, name: int) -> None:
        """From this generation to the next."""
        self.first.send_signal(signal.SIGUSR2)
        self.up(name + 1)
        stays(self.first.pid)
        wait_until(lambda: self._gone(name), "the generation before to end, and to be reaped")

    def _gone(self, name: int) -> bool:
        return name < 1 or not Path(f"/proc/{self.up(name)}").exists()

    def end(self) -> None:
        if self.first.poll() is None:
            self.first.kill()
        self.first.wait()


def stays(pid: int) -> None:
    """Until that process is a parent and nothing else."""
    wait_until(lambda: b"parent.py" in Path(f"/proc/{pid}/cmdline").read_bytes(), "the parent")


def inner_children(pid: int) -> list[int]:
    """The numbers of its children, as they see them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    try:
        states = [Path(f"/proc/{child}/status").read_text() for child in children]
    except OSError:  # one has just ended
        return []
    return [int(line.split()[-1]) for state in states for line in state.splitlines() if line.startswith("NSpid")]


@pytest.fixture
def family(tmp_path: Path):
    made = Family(tmp_path)
    made.up(0)
    yield made
    made.end()


def test_it_passes_signals_on_reaps_and_ends_with_the_code_of_the_last(family: Family) -> None:
    for name in range(3):
        family.upgrade(name)
    family.first.send_signal(signal.SIGHUP)
    wait_until((family.directory / "hup.3").exists, "SIGHUP at the one that serves")
    assert not (family.directory / "hup.0").exists()
    assert family.first.poll() is None
    family.first.send_signal(signal.SIGTERM)
    assert family.first.wait(PATIENCE) == 43


def test_a_signal_that_ends_the_last_is_told_as_shells_do(family: Family) -> None:
    family.upgrade(0)
    os.kill(family.up(1), signal.SIGKILL)
    assert family.first.wait(PATIENCE) == 128 + signal.SIGKILL


def test_as_the_first_process_of_a_container(tmp_path: Path) -> None:
    (unshare,) = require("unshare")
    probe = subprocess.run([unshare, "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no PID namespaces here")
    family = Family(tmp_path, unshare, "--pid", "--fork", "--mount-proc", "--kill-child")
    try:
        assert family.up(0) == 1
        inside = int(Path(f"/proc/{family.first.pid}/task/{family.first.pid}/children").read_text())
        for name in (1, 2):
            os.kill(inside, signal.SIGUSR2)
            assert family.up(name) > 1
            stays(inside)
            wait_until(lambda name=name: inner_children(inside) == [family.up(name)], "the last to be the only child")
        os.kill(inside, signal.SIGTERM)
        assert family.first.wait(PATIENCE) == 42
    finally:
        family.end()
