"""Two hundred seeds of the simulated cluster, and that a seed repeats itself. `make simulate SEEDS=…` runs as many as
wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEEDS = 200


def simulate(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )


def test_what_a_cluster_promises_holds_for_every_seed():
    done = simulate("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "never awaited" not in done.stderr, "a process that is killed leaves nothing half begun"
    for place in ("hub", "agent"):
        assert f"flow_closed closed at {place}" in done.stdout, "the judge hears of flows that end"


def test_a_seed_is_the_same_in_every_process():
    runs = [simulate("--seeds", "12", "--jobs", "1", "--fingerprints", hash_seed=seed) for seed in ("1", "2")]
    assert [run.returncode for run in runs] == [0, 0]
    one, other = (run.stdout.splitlines()[:12] for run in runs)
    assert one == other and len(set(one)) == 12


def test_every_planted_bug_is_where_the_code_is_now():
    code = "from tests.simulation.mutants import planted; planted()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
