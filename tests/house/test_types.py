"""The annotations of the product and its benchmarks hold, the stubs of the Cython modules included. What the core calls
by name in hub, agent and mesh, and what these keep in a flow's `info`, is checked like a call in Python."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What is planted: the room, its text, the text instead; and what is said of it somewhere in the room.
MEMBER, ATTRIBUTE, OTHER = "note: +{}$", 'error: .* has no attribute "{}"', "error: .*{}"
PLANTS = [
    # what only Cython calls
    ("hub", "def _on_frame__goaway(", "def _on_frame__going_away(", MEMBER.format("_on_frame__goaway")),
    ("mesh", "def _on_frame__goaway(", "def _on_frame__going_away(", MEMBER.format("_on_frame__goaway")),
    ("agent", "def _on_frame__lost(", "def _on_frame__gone(", MEMBER.format("_on_frame__lost")),
    ("mesh", "def foreign(self, cid: bytes)", "def foreign(self, cid: str)", MEMBER.format(r"    def foreign\(.*")),
    ("hub", "def flow_closed(", "def flow_ended(", MEMBER.format("flow_closed")),
    ("agent", "def flow_closed(", "def flow_ended(", MEMBER.format("flow_closed")),
    ("agent", "def socket_gone(", "def socket_closed(", MEMBER.format("socket_gone")),
    ("hub", "def relay_ended(", "def relay_over(", OTHER.format('"_InfoT" of "Relay"')),
    # what only Python uses, behind Cython
    ("hub", "info.sought_at = now", "info.sought = now", ATTRIBUTE.format("sought")),
    ("hub", "info.resumes += 1", "info.resumed += 1", ATTRIBUTE.format("resumed")),
    ("hub", "relay.info.away_since = -1.0", "relay.info.away = -1.0", ATTRIBUTE.format("away")),
    ("agent", "info.resumes += 1", "info.resumed += 1", ATTRIBUTE.format("resumed")),
]


def mypy(tree, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", *arguments],
        cwd=tree,
        capture_output=True,
        text=True,
    )


def test_annotations_hold():
    done = mypy(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What mypy says of a copy of the product with all plants in it."""
    tree = tmp_path_factory.mktemp("typed")
    shutil.copy(ROOT / "pyproject.toml", tree)
    for path in (ROOT / "ncfast").rglob("*.py*"):
        if path.suffix in (".py", ".pyi"):
            copy = tree / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    for room, old, new, _ in PLANTS:
        (path,) = [path for path in (tree / "ncfast" / room).glob("*.py") if old in path.read_text()]
        path.write_text(path.read_text().replace(old, new))
    return mypy(tree, "ncfast").stdout.splitlines()


@pytest.mark.parametrize("room, old, new, expected", PLANTS, ids=lambda value: str(value)[:40])
def test_a_name_that_only_one_side_of_the_core_has_is_found(said, room, old, new, expected):
    assert [line for line in said if re.match(rf"ncfast/{room}/\w+\.py:\d+: {expected}", line)], "\n".join(said)
