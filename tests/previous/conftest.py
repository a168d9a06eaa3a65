"""The last release, out of this repository's history, built beside the working tree."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.peer import Peer

REPOSITORY = Path(__file__).resolve().parents[2]
# What counts as the last release: a commit, and a tag as soon as there is one. Who makes a release writes it here.
RELEASE = "5456aef2d2f7"
# The same of the hand-over, which RELEASE had not yet; goes when that has it.
HANDS_OVER = "04d6850364da"


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, check=False)


def _built(commit: str) -> Path:
    """Its tree, with modules that are compiled: for `PYTHONPATH`. It stands on the packages of this environment, as it
    asks for no others; kept in `build/`, since it never changes."""
    tree = REPOSITORY / "build" / "previous" / commit
    tree.mkdir(parents=True, exist_ok=True)
    with (tree / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (tree / "built").exists():
            _build(commit, tree)
    return tree


def _build(commit: str, tree: Path) -> None:
    archive = _git("archive", commit, "ncfast", "setup.py")
    if archive.returncode:
        pytest.skip(f"the history of this repository does not reach back to {commit}")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--parallel", str(os.cpu_count() or 1)]
    # as fast to build as may be: nothing is measured here
    subprocess.run(build, cwd=tree, env={**os.environ, "CFLAGS": "-O0 -w"}, check=True)
    (tree / "built").touch()


@pytest.fixture(scope="package")
def released() -> Path:
    """The release's tree."""
    return _built(RELEASE)


@pytest.fixture(scope="package")
def handing_over() -> Path:
    """That of a release that hands over."""
    return _built(HANDS_OVER)


@pytest.fixture(scope="package")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """The scripted service."""
    service = Peer(tmp_path_factory.mktemp("peer"))
    yield service
    service.stop()
