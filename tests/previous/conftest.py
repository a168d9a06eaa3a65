"""The last release, out of this repository's history, built beside the working tree."""

from __future__ import annotations

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


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, check=False)


@pytest.fixture(scope="package")
def released() -> Path:
    """Its tree, with modules that are compiled: for `PYTHONPATH`. It stands on the packages of this environment, as it
    asks for no others; kept in `build/`, since it never changes."""
    tree = REPOSITORY / "build" / "previous" / RELEASE
    if not (tree / "built").exists():
        archive = _git("archive", RELEASE, "ncfast", "setup.py")
        if archive.returncode:
            pytest.skip(f"the history of this repository does not reach back to {RELEASE}")
        tree.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
        build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--parallel", str(os.cpu_count() or 1)]
        # as fast to build as may be: nothing is measured here
        subprocess.run(build, cwd=tree, env={**os.environ, "CFLAGS": "-O0 -w"}, check=True)
        (tree / "built").touch()
    return tree


@pytest.fixture(scope="package")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """The scripted service."""
    service = Peer(tmp_path_factory.mktemp("peer"))
    yield service
    service.stop()
