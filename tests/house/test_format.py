"""ruff has nothing to say: neither about the code nor about its format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def ruff(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache"], cwd=ROOT, capture_output=True, text=True, input=stdin
    )


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_has_nothing_to_say(command):
    done = ruff(*command, ".")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "source"),
    [
        (("check",), "import os\n"),
        (("check",), "def f(x=[]):\n    return x\n"),
        (("format", "--check"), "x  =  1\n"),
        (("check",), f"x = '{'x' * 120}'\n"),
    ],
)
def test_what_is_planted_is_seen(command, source):
    assert ruff(*command, "--stdin-filename", "ncfast/planted.py", "-", stdin=source).returncode == 1
