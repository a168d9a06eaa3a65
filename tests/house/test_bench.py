"""Every benchmark runs: once each, with the least work, so that none rots unseen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REDIS = ["redis-server", "redis-benchmark"]
PROGRAMS = dict.fromkeys(["churn", "pingpong", "openloop", "stream", "mixed", "start", "idle"], []) | {"redis": REDIS}


def run(*argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize("name", PROGRAMS)
def test_bench_compares_hub_and_agent_with_haproxy(name: str, tmp_path: Path) -> None:
    need("haproxy", *PROGRAMS[name])
    output = run("bench", "--smoke", "--only", name, "--output", str(tmp_path))
    (kept,) = tmp_path.glob("*.json")
    figures = json.loads(kept.read_text())["results"][name]
    compared = [figure for figure in figures if figure["route"] == "ncfast"]
    assert compared and all(figure["median"] >= 0 for figure in compared), output
    assert any(figure["ratio"] is not None and figure["ratio"] > 0 for figure in compared), output
    assert any(figure["passed"] is not None for figure in compared), "no floor was judged"


@pytest.mark.parametrize("name", ["failover", "crossing", "lookups"])
def test_bench_of_a_cluster(name: str, tmp_path: Path) -> None:
    need("redis-server")
    output = run("bench", "--cluster", "--smoke", "--only", name, "--output", str(tmp_path))
    (kept,) = tmp_path.glob("*.json")
    figures = json.loads(kept.read_text())["results"][name]
    assert any(figure["route"] == "mesh" and figure["passed"] is not None for figure in figures), output


def test_bench_compares_plain_and_tls(tmp_path: Path) -> None:
    routes = "ncfast,ncfast-tls"
    run("bench", "--smoke", "--only", "pingpong", "--routes", routes, "--output", str(tmp_path))


def test_bench_compares_with_an_earlier_tree(tmp_path: Path) -> None:
    output = run(
        "bench", "--smoke", "--only", "churn", "--routes", "ncfast", "--before", str(ROOT), "--output", str(tmp_path)
    )
    assert "before" in output


def test_profile_names_symbols_of_both_processes(tmp_path: Path) -> None:
    need("perf")
    output = run("bench.profile", "pingpong", "--seconds", "1", "--keep", str(tmp_path))
    assert "near side" in output and "far side" in output and "%" in output


def test_micro_benchmarks_run_once() -> None:
    run("pytest", "bench/micro", "-q", "--benchmark-disable")
