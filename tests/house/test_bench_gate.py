"""The gate beside HAProxy, and the releases that a run stands beside: on figures that are made up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench import gate, history
from bench.metric import Comparison, Metric
from docs import measured

CPU, RATE = Metric("rtt p50, 1cpu", "us", "lower"), Metric("-c 50", "1/s", "higher")
PAGE = {("pingpong", CPU.name): 1.0, ("redis", RATE.name): 1.2}


@pytest.fixture(autouse=True)
def rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "ROOM", dict.fromkeys(PAGE, 1.5))


def figure(metric: Metric, ratio: float) -> Comparison:
    return Comparison(metric, gate.OURS, ratio, ratio, ratio, ratio, ratio)


def judged(bench: str, metric: Metric, *ratios: float) -> tuple[list[gate.Held], int]:
    """What is found wrong when runs give these ratios, and how many of them were made."""
    left = list(ratios)
    bad, _ = gate.judge(bench, PAGE, lambda _: ([], [figure(metric, left.pop(0))]))
    return bad, len(ratios) - len(left)


def test_what_is_as_the_page_has_it_is_run_once() -> None:
    assert judged("pingpong", CPU, 1.49) == ([], 1)
    assert judged("redis", RATE, 0.81) == ([], 1)


def test_what_is_too_bad_once_is_noise() -> None:
    assert judged("pingpong", CPU, 3.0, 1.4) == ([], 2)


@pytest.mark.parametrize(("bench", "metric", "ratio"), [("pingpong", CPU, 1.51), ("redis", RATE, 0.79)])
def test_what_is_too_bad_twice_is_named(bench: str, metric: Metric, ratio: float) -> None:
    (bad,), runs = judged(bench, metric, ratio, ratio)
    assert runs == 2 and not bad.kept
    assert str(bad).startswith(f"{bench} {metric.name}: {ratio:.2f}") and "1.5 is allowed" in str(bad)


def test_another_figure_in_the_second_run_is_noise_too(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Metric("other", "us", "lower")
    page = PAGE | {("pingpong", "other"): 1.0}
    monkeypatch.setattr(gate, "ROOM", dict.fromkeys(page, 1.5))
    runs = [[figure(CPU, 9.0), figure(other, 1.0)], [figure(CPU, 1.0), figure(other, 9.0)]]
    assert gate.judge("pingpong", page, lambda _: ([], runs.pop(0)))[0] == []


def test_what_is_not_carried_is_too_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise RuntimeError("openloop over ncfast: 534 of 2050 failed")

    for bench in "pingpong", "redis":
        monkeypatch.setattr(gate.BENCHES[bench], "run", run)
        (bad,), _ = gate.judge(bench, PAGE)
        assert bad.worse == math.inf


def test_a_page_without_a_figure_is_no_promise() -> None:
    head = "| bench | figure | unit | haproxy | ncfast |\n"
    row = "| pingpong | rtt p50, 1cpu | us | 23.7 | 1,001.5 |\n"
    with pytest.raises(ValueError, match="no redis -c 50"):
        gate.promised(f"<!-- generated: bench -->\n{head}{row}<!-- end -->")


def test_the_page_has_what_the_gate_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    page = gate.promised(measured.SOURCE.read_text())
    assert page.keys() == gate.ROOM.keys()
    known = {(name, metric.name) for name, bench in gate.BENCHES.items() for metric in bench.METRICS}
    assert page.keys() <= known and {bench for bench, _ in page} == gate.BENCHES.keys()


# the releases


def run(low: float, high: float, when: str = "2026-01-01", **entry: Any) -> dict[str, Any]:
    """What python -m bench keeps of a run with one figure."""
    ratio = (low + high) / 2
    base = {"figure": "rtt", "unit": "us", "route": "ncfast", "median": 9.0, "worst": 9.5, "passed": True}
    ours = {**base, "ratio": ratio, "ratio_low": low, "ratio_high": high, **entry}
    haproxy = {**base, "route": "haproxy", "ratio": None, "ratio_low": None, "ratio_high": None}
    return {"machine": {"when": when}, "results": {"pingpong": [haproxy, ours]}, "samples": {}}


@pytest.mark.parametrize(
    ("unit", "low", "high", "verdict"),
    [
        ("us", 1.0, 1.2, ""),
        ("us", 1.19, 1.4, ""),  # the ranges meet
        ("us", 1.21, 1.4, "worse"),
        ("us", 0.8, 0.99, "better"),
        ("1/s", 1.21, 1.4, "better"),
        ("MB/s", 0.8, 0.99, "worse"),
    ],
)
def test_a_change_is_what_no_round_reaches(unit: str, low: float, high: float, verdict: str) -> None:
    then, now = (history.figures(run(*ends, unit=unit)) for ends in ((1.0, 1.2), (low, high)))
    (change,) = history.changes(then, now)
    assert change.verdict == verdict


def test_runs_are_kept_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(history, "HISTORY", tmp_path)
    older, newer, cluster = tmp_path / "old", tmp_path / "new", tmp_path / "cluster"
    older.write_text(json.dumps(run(1.0, 1.2)))
    newer.write_text(json.dumps(run(1.5, 1.6)))
    crossing = run(1.0, 1.1, route="mesh", figure="crossing rtt")
    cluster.write_text(json.dumps(crossing | {"results": {"crossing": crossing["results"]["pingpong"]}}))
    with pytest.raises(SystemExit, match="no release"):
        history.main([str(older)])
    assert history.main(["--keep", str(older), str(cluster)]) == 0
    kept = json.loads((tmp_path / f"{history.__version__}.json").read_text())
    assert kept["results"].keys() == {"pingpong", "crossing"} and "samples" not in kept
    assert history.main([str(older), str(cluster)]) == 0
    assert history.main([str(newer)]) == 1
    assert "worse" in capsys.readouterr().out


def test_the_latest_release_is_by_its_date(tmp_path: Path) -> None:
    for name, when in ("0.9.0", "2026-02-01"), ("0.10.0", "2026-03-01"), ("0.9.1", "2026-02-15"):
        (tmp_path / f"{name}.json").write_text(json.dumps(run(1.0, 1.0, when)))
    assert history.last(tmp_path).stem == "0.10.0"


def test_a_release_is_kept() -> None:
    release = json.loads(history.last(history.HISTORY).read_text())
    assert {"churn", "pingpong", "stream"} <= release["results"].keys() and release["machine"]["cpu"]
