"""A cluster whose Redis lies in every way it can; and that the attacker would be seen, if a hub believed it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lie(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation.liar", "--seeds", "3", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_no_hub_and_no_frame_of_a_flow_comes_to_who_writes_to_redis():
    done = lie()
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    assert all(counts.get(what) for what in ("stranger", "moved", "swapped", "owner", "dialled", "relayed")), counts


@pytest.mark.parametrize("bug", ["whoever-answers", "any-connection"])
def test_planted_bugs_are_found(bug: str):
    done = lie("--plant", bug)
    assert done.returncode == 1 and done.stdout.startswith("seed "), done.stdout + done.stderr
