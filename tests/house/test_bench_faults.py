"""What fails while the bench measures: whose figure it costs, that the run goes on, what of it is kept."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import __main__ as bench
from bench import idle, page, report
from bench.load import Load
from bench.metric import Metric, Sample, Values, compare
from bench.peers import Ground, Peer, peer
from bench.plots import Lines, Sweep
from bench.process import cpu_sec, on_one_cpu
from bench.rig import Route
from bench.routes import ROUTES, routes
from bench.run import resumed
from bench.scale import SMOKE
from bench.turns import carried, in_turn
from bench.works import WORKS

TIME, RATE = Metric("time", "us", "lower"), Metric("rate", "1/s", "higher")
METRICS = (TIME, RATE)
FAILED = {"time": math.inf, "rate": 0.0}
GOOD = {"time": 2.0, "rate": 3.0}
NOWHERE = ("127.0.0.1", 0)


def broken(name: str = "", *_: object) -> Values:
    raise RuntimeError(f"{name} does not carry it")


# a peer


def test_what_a_peer_does_not_carry_is_infinitely_bad() -> None:
    assert carried("frp", METRICS, broken) == FAILED
    assert carried("frp", METRICS, GOOD.copy) == GOOD


@pytest.mark.parametrize("name", ["ncfast", "ncfast-tls", "mesh"])
def test_what_we_do_not_carry_ends_the_work(name: str) -> None:
    with pytest.raises(RuntimeError):
        carried(name, METRICS, broken)


def test_a_peer_that_does_not_start_fails_each_round_and_others_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def stands(name: str, *_: object) -> Iterator[Route]:
        yield Route(name, NOWHERE)

    @contextmanager
    def falls(name: str, *_: object) -> Iterator[Route]:
        broken(name)
        yield Route(name, NOWHERE)

    monkeypatch.setitem(ROUTES, "frp", stands)
    monkeypatch.setitem(ROUTES, "rathole", falls)
    with routes(["rathole", "frp"], NOWHERE, tmp_path) as ways:
        samples = list(in_turn(2, ["rathole", "frp"], ways, METRICS, lambda _: GOOD))
    assert samples == [(0, "rathole", FAILED), (0, "frp", GOOD), (1, "rathole", FAILED), (1, "frp", GOOD)]


def test_a_peer_whose_port_a_stranger_has_taken_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listens = "import socket, sys, time; held = [socket.create_server(('127.0.0.1', int(p))) for p in sys.argv[1:]]; "

    def commands(ground: Ground) -> tuple[list[str], list[str]]:
        program = [sys.executable, "-c", listens + "time.sleep(600)"]
        server = [*program, str(ground.tunnel)]
        asked.append(ground.tunnel)
        return server, [*program, str(taken if len(asked) == 1 else ground.public)]

    asked: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        with peer("frp", NOWHERE, tmp_path, Peer(commands, (), ())) as way:
            assert way.address[1] not in (taken, *asked)
    assert len(set(asked)) == 2


@contextmanager
def impatient() -> Iterator[Route]:
    """A peer that echoes a byte and ends the flow."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    with listener.accept()[0] as client:
                        client.sendall(client.recv(1))
            except OSError:
                return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Route("frp", listener.getsockname(), {"near": os.getpid(), "far": os.getpid()})
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed")
def test_a_peer_that_ends_idle_flows_does_not_carry_them() -> None:
    with impatient() as way:
        values = carried(way.name, idle.METRICS, partial(idle.measure, way, 8, SMOKE))
    assert values == {metric.name: math.inf for metric in idle.METRICS}


def test_idle_flows_that_have_ended_are_seen() -> None:
    way = Route("frp", NOWHERE)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            idle.check_standing([ours], way)
        with pytest.raises(ConnectionError, match="frp closed a flow"):
            idle.check_standing([ours], way)


def test_what_a_load_with_a_failure_has_measured_counts_for_nothing() -> None:
    load = Load(10, 9, 1000, 1.0, 5.0, 6.0, 7.0, 0.5, has_cpu=True)
    assert (load.rate, load.megabytes) == (9.0, 0.001)
    refused = load.refused()
    assert (refused.rate, refused.megabytes, refused.p50) == (0.0, 0.0, math.inf)
    assert refused.cpu_each("each") | refused.cpu_per_gigabyte("bytes") == {"each": math.inf, "bytes": math.inf}


def test_a_process_that_has_ended_disturbs_no_other_when_all_are_held_on_one_cpu() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ending = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    before = os.sched_getaffinity(0)
    with on_one_cpu([gone.pid, ending.pid]):
        assert len(os.sched_getaffinity(ending.pid)) == len(os.sched_getaffinity(0)) == 1
        ending.communicate(b"\n")
    assert os.sched_getaffinity(0) == before
    with pytest.raises(OSError):
        cpu_sec(ending.pid)


def test_a_plot_has_no_point_where_a_peer_carries_too_little(tmp_path: Path) -> None:
    rounds = iter([1.0, 2.0, 9.0, 3.0])
    carrying, load = Route("haproxy", NOWHERE), Load(1, 1, 0, 1.0, 0.0, 0.0, 0.0, 1.0, has_cpu=True)
    ways = [carrying, Route("frp", NOWHERE), Route("rathole", NOWHERE)]

    def measure(way: Route) -> Load:
        if way.name == "rathole":
            broken(way.name)
        return replace(load, route_cpu_sec=next(rounds), carried=way is carrying)

    lines: Lines = {}
    Sweep([], False, tmp_path).points(ways, 5, measure, lines)
    assert lines == {"haproxy": [(5, 3e6)]}, "of 1, 9 and 3; frp is not asked again"


# the table


def test_a_figure_that_failed_says_so() -> None:
    entries = list(compare(METRICS, [(0, "haproxy", GOOD), (0, "frp", FAILED), (0, "ncfast", GOOD)], "haproxy"))
    assert report.table({"churn": entries}, "haproxy").count("failed") == 4  # median and worst of both figures
    machine = {"cpus": 1, "cpu": "", "kernel": "", "python": "", "load": [0.0], "when": "", "programs": {}}
    assert "| churn | time | us | 2.0 | failed | 1.00 |" in page.render({"churn": entries}, machine, 1)


def test_a_program_says_its_version_in_any_line() -> None:
    said = "rathole \\nBuild Timestamp:  2026-11-27T09:56:42.031829632Z\\nBuild Version:  0.5.0\\n"
    assert report.version(["printf", said], "rathole") == "rathole Build Version: 0.5.0"
    assert report.version(["ncfast-no-such-program"], "rathole") is None


def test_one_failed_round_is_not_the_median_and_is_the_worst() -> None:
    samples = [(turn, "haproxy", GOOD) for turn in range(3)]
    samples += [(0, "frp", GOOD), (1, "frp", FAILED), (2, "frp", GOOD)]
    frp = [entry for entry in compare(METRICS, samples, "haproxy") if entry.route == "frp"]
    assert [(entry.value, entry.ratio, entry.worst) for entry in frp] == [(2.0, 1.0, math.inf), (3.0, 1.0, 0.0)]


def test_a_round_that_the_reference_failed_has_no_ratio() -> None:
    samples = [(0, "haproxy", FAILED), (1, "haproxy", GOOD), (0, "ncfast", GOOD), (1, "ncfast", GOOD)]
    ours = [entry for entry in compare(METRICS, samples, "haproxy") if entry.route == "ncfast"]
    assert [(entry.ratio, entry.low, entry.high) for entry in ours] == [(1.0, 1.0, 1.0)] * 2
    nothing = [sample for sample in samples if sample[0] == 0]
    assert [entry.ratio for entry in compare(METRICS, nothing, "haproxy")] == [None] * 4


# a run


class Work:
    """Of one figure; counts how often it is run, and breaks off in the run of this number."""

    METRICS = METRICS

    def __init__(self, breaks: int = 0) -> None:
        self.breaks = breaks
        self.runs = 0

    def run(self, *_: object) -> Iterator[Sample]:
        self.runs += 1
        yield 0, "direct", FAILED
        if self.runs == self.breaks:
            broken("ncfast")
        yield 1, "direct", FAILED


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    made = SimpleNamespace(churn=Work(breaks=1), stream=Work())
    for name in list(WORKS):
        monkeypatch.delitem(WORKS, name)
    for name, work in vars(made).items():
        monkeypatch.setitem(WORKS, name, work)
    handler = signal.getsignal(signal.SIGTERM)
    yield made
    signal.signal(signal.SIGTERM, handler)


def test_a_run_goes_on_after_a_work_that_broke_off_and_another_makes_what_is_left(
    works: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--rounds", "2", "--routes", "direct", "--output", str(tmp_path)]
    assert bench.main(options) == 1
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["samples"].keys() == {"stream"}, "a work with fewer rounds is not kept"
    assert f"ended early: churn; the same command with --resume {path}" in capsys.readouterr().out
    assert bench.main([*options, "--resume", str(path)]) == 0
    assert (works.churn.runs, works.stream.runs) == (2, 1)
    run = resumed(path, ["direct"], bench.replace(bench.FULL, rounds=2))
    assert run.samples == dict.fromkeys(("stream", "churn"), [(turn, "direct", FAILED) for turn in range(2)])


def test_a_work_is_measured_again_by_its_name(works: SimpleNamespace, tmp_path: Path) -> None:
    works.churn.breaks = 0
    options = ["--routes", "direct", "--output", str(tmp_path)]
    assert bench.main(options) == 0
    (path,) = tmp_path.iterdir()
    assert bench.main([*options, "--only", "stream", "--resume", str(path)]) == 0
    assert (works.churn.runs, works.stream.runs) == (1, 2)
    assert json.loads(path.read_text())["results"].keys() == {"churn", "stream"}


def test_only_the_same_run_goes_on(works: SimpleNamespace, tmp_path: Path) -> None:
    bench.main(["--routes", "direct", "--output", str(tmp_path)])
    (path,) = tmp_path.iterdir()
    for other in ["--routes", "direct,haproxy"], ["--routes", "direct", "--quick"]:
        with pytest.raises(SystemExit, match="is of other"):
            bench.main([*other, "--resume", str(path)])


def test_a_run_that_lacks_a_work_is_not_written_into_the_page(works: SimpleNamespace, tmp_path: Path) -> None:
    shown = tmp_path / "page.md"
    shown.write_text("as it was")
    options = ["--routes", "direct", "--output", str(tmp_path / "results"), "--page", str(shown)]
    assert bench.main(options) == 1
    assert shown.read_text() == "as it was"
