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

# A generation: writes its name when it is up, starts the next at SIGUSR2 and ends, or lingers before that as long as
# there is a file of its name; ends at SIGTERM with its code. The first is the parent of the others afterwards.
GENERATION = """
import os, signal, subprocess, sys, time
from ncfast.serve.parent import adopt, become, hold, leave, pass_on
name, code = int(sys.argv[1]), int(sys.argv[2])
SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP)
def next_one(*_):
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if not name:
        adopt()
    subprocess.Popen([sys.executable, "generation.py", str(name + 1), str(code + 1)])
    while not os.path.exists(f"up.{name + 1}"):
        time.sleep(0.01)
    for number in SIGNALS:
        signal.signal(number, lambda number, _: pass_on(number))
    leave()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    while os.path.exists(f"lingers.{name}"):
        time.sleep(0.01)
    if name:
        os._exit(0)
    become(hold())
for number, act in zip(SIGNALS, (
    next_one, lambda *_: os._exit(code), lambda *_: open(f"hup.{name}", "w").close()
)):
    signal.signal(number, act)
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
with open(f"writing.{name}", "w") as file:
    file.write(str(os.getpid()))
os.rename(f"writing.{name}", f"up.{name}")
while True:
    time.sleep(1)
"""


# A first generation with a loop, that stops for a while just before it becomes a parent.
HOLDING = """
import asyncio, os, signal, subprocess, sys, threading, time, uvloop
from ncfast.serve.parent import adopt, become, hold
async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: None)
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    adopt()
    subprocess.Popen([sys.executable, "generation.py", "1", "41"])
    while not os.path.exists("up.1"):
        time.sleep(0.01)
    held = hold()
    open("held", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    become(held)
uvloop.run(main())
"""


class Family:
    def __init__(self, directory: Path, *prefix: str, first: str = GENERATION) -> None:
        self.directory = directory
        (directory / "generation.py").write_text(GENERATION)
        program = directory / "first.py"
        program.write_text(first)
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


def programs_below(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/comm").read_text().strip() for child in children]


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


@pytest.mark.parametrize("lingers", [0, 1])
def test_one_that_lingers_is_passed_over(family: Family, lingers: int) -> None:
    mark = family.directory / f"lingers.{lingers}"
    mark.touch()
    if lingers:
        family.upgrade(0)
    for name in range(lingers + 1, lingers + 3):  # it lingers while two more upgrades are made
        family.first.send_signal(signal.SIGUSR2)
        family.up(name)
        if name > lingers + 1:
            wait_until(lambda name=name: not Path(f"/proc/{family.up(name - 1)}/exe").exists(), "its end")
    family.first.send_signal(signal.SIGHUP)
    wait_until((family.directory / f"hup.{lingers + 2}").exists, "SIGHUP at the one that serves")
    if not lingers:
        mark.unlink()
        stays(family.first.pid)
    os.kill(family.up(lingers + 2), signal.SIGKILL)
    assert family.first.wait(PATIENCE) == 128 + signal.SIGKILL
    mark.unlink(missing_ok=True)


def test_a_signal_that_comes_before_it_is_the_parent_is_passed_on(tmp_path: Path) -> None:
    family = Family(tmp_path, first=HOLDING)
    try:
        wait_until((tmp_path / "held").exists, "the first to be about to become a parent")
        family.first.send_signal(signal.SIGHUP)
        (tmp_path / "go").touch()
        wait_until((tmp_path / "hup.1").exists, "SIGHUP at the one that serves")
        family.first.send_signal(signal.SIGTERM)
        assert family.first.wait(PATIENCE) == 41
    finally:
        family.end()


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
        # what a shell that was opened in the container has left is not taken for the one that serves
        enter = ["nsenter", "--mount", "--pid", "--target", str(inside), "setsid", "--fork", "sleep", str(PATIENCE)]
        subprocess.run(enter, check=True)
        wait_until(lambda: "sleep" in programs_below(inside), "the stranger to be taken in, in its own session")
        os.kill(inside, signal.SIGHUP)
        wait_until((tmp_path / "hup.2").exists, "SIGHUP at the one that serves")
        os.kill(inside, signal.SIGTERM)
        assert family.first.wait(PATIENCE) == 42
    finally:
        family.end()
