"""Every benchmark runs: once each, with the least work, so that none rots unseen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import instructions, profiles
from bench.peers import PEERS
from bench.routes import TLS

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


def kept(folder: Path, name: str) -> list[dict]:
    """The figures that the one run has written."""
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())["results"][name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_bench_compares_hub_and_agent_with_haproxy(name: str, tmp_path: Path) -> None:
    need("cc", "haproxy", *PROGRAMS[name])
    output = run("bench", "--smoke", "--only", name, "--routes", "direct,haproxy,ncfast", "--output", str(tmp_path))
    figures = {figure["figure"]: figure for figure in kept(tmp_path, name) if figure["route"] == "ncfast"}
    assert any(figure["ratio"] for figure in figures.values()), output
    assert any(figure["passed"] is not None for figure in figures.values()), "no floor was judged"


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_carries_the_bench_plain_and_encrypted(name: str, tmp_path: Path) -> None:
    need("cc", "haproxy", *PEERS[name].programs)
    run("bench", "--smoke", "--only", "churn,tls", "--routes", f"haproxy,{name}", "--output", str(tmp_path))
    assert {figure["route"] for figure in kept(tmp_path, "tls")} == {"haproxy-tls", name + TLS * PEERS[name].tls}


def test_bench_has_idle_agents_beside(tmp_path: Path) -> None:
    need("cc")
    run("bench", "--smoke", "--only", "agents", "--routes", "ncfast", "--output", str(tmp_path))
    assert {figure["route"] for figure in kept(tmp_path, "agents")} == {"ncfast"}


@pytest.mark.parametrize("name", ["failover", "crossing", "lookups"])
def test_bench_of_a_cluster(name: str, tmp_path: Path) -> None:
    need("cc", "redis-server")
    output = run("bench", "--smoke", "--only", name, "--output", str(tmp_path))
    figures = kept(tmp_path, name)
    assert any(figure["route"] == "mesh" and figure["passed"] is not None for figure in figures), output


def test_a_run_with_an_earlier_tree_and_with_tls_is_written_into_a_page(tmp_path: Path) -> None:
    need("cc", "haproxy", *REDIS)
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- generated: bench -->\nold\n<!-- end -->\nbelow\n")
    options = ["--before", str(ROOT), "--routes", "haproxy,ncfast", "--output", str(tmp_path), "--page", str(page)]
    run("bench", "--smoke", "--only", "churn,tls", *options)
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("<!-- end -->\nbelow\n") and "old" not in text
    assert text.count("| unit | haproxy | before | ncfast |") == 2, text


def test_plots_are_drawn(tmp_path: Path) -> None:
    need("cc", "haproxy", "redis-server")
    run("bench.plots", "--smoke", "--output", str(tmp_path))
    drawn = {path.stem: ElementTree.parse(path) for path in tmp_path.glob("*.svg")}
    assert drawn.keys() == {path.stem for path in (ROOT / "docs" / "plots").glob("*.svg")}
    assert all("ncfast" in "".join(plot.getroot().itertext()) for plot in drawn.values())


def test_connections_and_messages_stay_within_their_budget_of_instructions(tmp_path: Path) -> None:
    need("cc", *instructions.PROGRAMS)
    budget = instructions.budget()
    if budget is None:
        pytest.skip(f"no budget for Python {instructions.interpreter()}: python -m bench.instructions --keep")
    for attempt in "first", "second":  # work that the clock brings may fall into one measurement, not into both
        folder = tmp_path / attempt
        folder.mkdir()
        if not (over := instructions.over(instructions.measure(folder), budget)):
            break
    assert not over


def test_what_the_clock_brings_is_taken_off_by_time() -> None:
    idle_meanwhile = instructions.Count(3_000, 3.0)
    assert instructions.Count(12_000, 2.0).each(10, idle_meanwhile) == 1_000


def test_what_exceeds_a_budget_is_named() -> None:
    most = {"hub open": 1000, "agent open": 1000}
    assert instructions.over({"hub open": 1100, "agent open": 900}, most) == []
    assert instructions.over({"hub open": 1300, "agent open": 900}, most) == [
        "hub open: 1,300 instructions, +30% over its budget of 1,000"
    ]


def test_profile_names_symbols_of_both_processes(tmp_path: Path) -> None:
    need("perf")
    output = run("bench.profile", "pingpong", "--seconds", "1", "--keep", str(tmp_path))
    assert "near side" in output and "far side" in output and "%" in output


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("    47.75%  libpython3.11.so.1.0", "47.75% libpython3.11"),
        ("  8.9%  [k] finish_task_switch.isra.0     [kernel.kallsyms]", "8.9% `finish_task_switch` kernel"),
        (
            "  1.28%  [.] __pyx_f_6ncfast_7_frames_9DedupRing__probe   _frames.cpython-311-x86_64-linux-gnu.so",
            "1.28% `ncfast._frames.DedupRing._probe` _frames",
        ),
        (
            "  0.65%  [.] __pyx_pw_10aiofastnet_5utils_3Way_3_read_ready  utils.cpython-311-x86_64-linux-gnu.so",
            "0.65% `aiofastnet.utils.Way._read_ready` utils",
        ),
    ],
)
def test_a_profiles_lines_are_told_as_the_source_has_them(line: str, words: str) -> None:
    assert profiles.words(line) == words


def test_micro_benchmarks_run_once() -> None:
    run("pytest", "bench/micro", "-q", "--benchmark-disable")
