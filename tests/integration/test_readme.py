"""Commands of README and docs, in the order written, in a clone, by a reader who has nothing else.

By default the clone is a folder with the configuration, and this interpreter stands in for what `make demo` builds.
With FRESH=1 (`make readme`) it is a real one, and `make demo` is what builds it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.namespaces import Namespaces
from support.process import PACKAGE_ROOT, child_env, require
from support.reader import README, first_use, mutual_tls
from support.until import wait_until
from support.walk import Walk, blocks

ROOT = Path(__file__).parents[2]
FRESH = os.environ.get("FRESH") == "1"
SHORTER = {"256M": "32M", "16M": "8M"}  # so that a download takes seconds


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clone")
    if FRESH:
        subprocess.run(["git", "clone", "-q", ROOT, made], check=True)
        walk = Walk(made, [], os.environ)
        try:
            for line in blocks(README, "See it")[0]:
                assert "Nothing was lost, repeated or reordered." in walk.type(line)
        finally:
            walk.close()
        return made
    shutil.copytree(ROOT / "config", made / "config")
    tools = made / ".venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "activate").write_text(f"export PATH={tools}:$PATH PYTHONPATH={PACKAGE_ROOT}\n")
    for name, words in (("ncfast", f"{sys.executable} -m ncfast"), ("python", sys.executable)):
        (tools / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (tools / name).chmod(0o755)
    return made


@pytest.fixture
def begin(clone: Path) -> Iterator[Callable[[], Walk]]:
    """A shell in the clone, on a machine on which no port is taken."""
    walks = []
    spaces = Namespaces()

    def walk() -> Walk:
        env = {name: value for name, value in child_env({"PYTHONUNBUFFERED": "1"}).items() if name != "PYTHONPATH"}
        walks.append(Walk(clone, spaces.prefix("reader"), env))
        return walks[-1]

    yield walk
    for each in walks:
        each.close()
    spaces.close()


def test_first_use(begin, tmp_path: Path) -> None:
    first_use(begin(), tmp_path)


def test_three_hubs_with_mutual_tls(begin, tmp_path: Path) -> None:
    mutual_tls(begin(), tmp_path)


def test_three_hubs(begin, clone: Path) -> None:
    require("redis-server", "curl")
    walk = begin()
    start, break_ = blocks(README, "Three hubs on one machine")
    text = "\n".join(start)
    assert text.count("256M") == 1
    for line in start:
        said = walk.type(line.replace("256M", SHORTER["256M"]))
    agent = clone / f"terminal-{walk._started}.log"
    assert '"tunnel_up"' in said
    wait_until(lambda: '"standby_up"' in agent.read_text(), "the agent's standby")

    def status(port: int) -> dict:
        return json.loads(walk.type(f"ncfast status --json --url http://127.0.0.1:{port}"))

    hubs = {port: status(port) for port in (9401, 9402, 9403)}
    (owner,) = (port for port, seen in hubs.items() if seen["tunnels"]["owned"])
    door = next(port for port in (9403, 9402) if port != owner)  # README: "take a hub that has not"
    look, download, kill, compare = break_
    assert "AGENT OF THE CLUSTER" in walk.type(look.replace("9403", str(door)))
    wait_until(lambda: status(door)["cluster"]["agents"], "the owner known there")
    sum_ = walk.start(download.replace("7003", str(door - 2400)).replace("16M", SHORTER["16M"]))
    wait_until(lambda: status(door)["bytes"]["client_out"] > 1 << 20, "a download under way")
    walk.type(kill.replace("PID", str(hubs[owner]["pid"])))
    wait_until(lambda: sum_.read_text().rstrip().endswith("-"), lambda: f"the download's sum: {sum_.read_text()}")
    assert sum_.read_text().split()[-2] == walk.type(compare).split()[0]
    wait_until(lambda: status(door)["flows"]["closed"] == {"closed": 1}, "the flow's end, for no other reason")
