"""The soak for half a minute, that it ends whatever it has started, and that it finds what it is for."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.ncfast_process import ACCESS
from support.process import require
from support.script import Outcome as End
from support.until import PATIENCE, wait_until

from bench.ldap.load import Felt, Histogram, Load

from . import announced, ldap_load, programs, samples
from .accounts import both_ends
from .clients import whole
from .ledger import CleanEnd, Corrupt, Fault, Ledger, Logs, Lost, Trial, stamp
from .report import Outcome, render
from .samples import MIB, Life, Sample

ROOT = Path(__file__).parents[2]
PROGRAMS = ("slapd", "ldapsearch", "redis-server", "redis-cli", "redis-benchmark", "nginx", "curl", "iperf3")


def command(*arguments: str) -> list[str]:
    require(*PROGRAMS)
    return [sys.executable, "-m", "tests.soak", *arguments]


def test_half_a_minute(tmp_path: Path) -> None:
    """What continuous integration has time for, 60 to 90 s in all; `make soak` is the long form, with every fault."""
    report = tmp_path / "soak.md"
    faults = "tunnel_reset,mesh_reset,owner_killed,agent_killed,reload"
    argv = command("--minutes", "0.5", "--seed", "1", "--faults", faults, "--report", str(report))
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + (report.read_text() if report.exists() else "")
    text = report.read_text()
    for words in ("**passed**", "| conversation |", "| LDAP load, "):
        assert words in text, words
    assert " 0 faults;" not in text


def below(pid: int) -> dict[int, str]:
    """All processes that a process, or one of those below it, has started: id and time of birth."""
    found: dict[int, str] = {}
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            if born := birth(child):
                found |= {child: born} | below(child)
    return found


def birth(pid: int) -> str:
    """When the process began, in the kernel's ticks; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_broken_off_it_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    report, told = tmp_path / "soak.md", tmp_path / "told"
    argv = command(
        "--minutes", "60", "--faults", "hub_frozen", "--report", str(report), "--keep", str(tmp_path / "kept")
    )
    with told.open("wb") as file:
        child = subprocess.Popen(argv, cwd=ROOT, stdout=file, stderr=file)
    try:
        logs = [tmp_path / "kept" / "cluster" / f"{name}.err" for name in ("hub-a", "hub-b", "hub-c")]
        wait_until(
            lambda: child.poll() is not None or any('"flow_closed"' in log.read_text() for log in logs if log.exists()),
            "a client served",
            seconds=2 * PATIENCE,
        )
        assert child.poll() is None, told.read_text()
        started = below(child.pid)
        child.send_signal(number)
        assert child.wait(2 * PATIENCE) == 1
    finally:
        child.kill()
        child.wait()
    assert len(started) > 10
    assert not {pid for pid, born in started.items() if birth(pid) == born}
    assert "**broken off**" in report.read_text()


class NoLogs:
    """Stands in where no process has logged anything."""

    lines: list[dict[str, str]] = []

    def access_lines(self, trial: Trial) -> list[dict[str, str]]:
        return self.lines

    def around(self, began: float, ended: float) -> list[str]:
        return ["a line"]


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    for wait in ("AROUND_SEC", "LINE_SEC", "SETTLE_SEC"):
        monkeypatch.setattr(f"soak.ledger.{wait}", 0)
    return Ledger(NoLogs())


def lose(ledger: Ledger, error: Exception, received: int = 100, source: str = "") -> None:
    async def client() -> None:
        async with ledger.trial("stream", "hub-a", "solo", PATIENCE) as trial:
            trial.received, trial.source = received, source
            raise error

    asyncio.run(client())


@pytest.mark.parametrize(("error", "manner"), [(None, CleanEnd), ("EOF", CleanEnd), ("ECONNRESET", Lost)])
def test_a_reset_that_a_write_has_heard_of_is_no_clean_end(error: str | None, manner: type[Lost]) -> None:
    """The kernel tells of it once; a read beside the write sees an end of stream."""
    with pytest.raises(Lost) as told:
        whole(End(received=3, eof=True, error=error), 10, "the client")
    assert told.type is manner


@pytest.mark.parametrize("error", [Lost("x"), CleanEnd("x"), Corrupt("x"), ConnectionResetError(104, "x")])
def test_a_loss_without_a_fault_is_a_failure(ledger: Ledger, error: Exception) -> None:
    lose(ledger, error)
    assert ledger.failed["stream"] == 1 and len(ledger.failures) == 1
    assert ledger.failures[0].evidence == ["a line"]


@pytest.mark.parametrize(
    ("announcement", "target", "reason", "received", "announces"),
    [
        (announced.ORIGIN_KILLED, "hub-a", None, 100, True),
        (announced.ORIGIN_KILLED, "hub-b", None, 100, False),
        (announced.ORIGIN_DRAINED, "hub-a", None, 0, True),
        (announced.ORIGIN_DRAINED, "hub-a", None, 100, False),
        (announced.AGENT_RESTARTED, "site-3", "agent_restarted", 100, True),
        (announced.AGENT_RESTARTED, "site-3", "internal", 100, False),
        (announced.MODE_SHADOW, "all hubs", "no_agent", 0, True),
        (announced.MODE_SHADOW, "all hubs", "no_agent", 100, False),
        (announced.MODE_SHADOW, "all hubs", "link_lost", 0, False),
        (None, "hub-a", None, 0, False),
    ],
)
def test_a_loss_is_excused_by_what_is_announced_alone(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    announcement: announced.Announcement | None,
    target: str,
    reason: str | None,
    received: int,
    announces: bool,
) -> None:
    monkeypatch.setattr(NoLogs, "lines", [{"reason": reason}] if reason else [])
    told = () if announcement is None else (announcement,)
    with ledger.fault("a fault", target, *told, connectors=frozenset({"solo"}), patience=PATIENCE):
        lose(ledger, ConnectionResetError(104, "x"), received)
    assert ledger.lost["stream", "a fault"] == announces
    assert ledger.failed["stream"] == (not announces)


def test_nothing_excuses_wrong_bytes_and_only_a_dead_hub_a_clean_end(ledger: Ledger) -> None:
    with ledger.fault("killed", "hub-a", announced.ORIGIN_KILLED):
        lose(ledger, CleanEnd("x"))
        lose(ledger, Corrupt("x"))
    assert (ledger.lost["stream", "killed"], ledger.failed["stream"]) == (1, 1)


@pytest.mark.parametrize(
    ("away", "held", "reason", "received", "alone", "announces"),
    [
        (12, 10.1, "hold_timeout", 0, {"solo"}, True),
        (12, 10.1, "open_timeout", 0, {"solo"}, True),
        (9, 10.1, "hold_timeout", 0, {"solo"}, False),
        (12, 9, "hold_timeout", 0, {"solo"}, False),
        (12, 10.1, "hold_timeout", 0, set(), False),
        (12, 10.1, "hold_timeout", 1, {"solo"}, False),
        (12, 10.1, "no_agent", 0, {"solo"}, False),
        (40, 30, "no_agent", 0, {"solo"}, True),
        (40, 28, "no_agent", 0, {"solo"}, False),
        (40, 30, "no_agent", 0, set(), False),
    ],
)
def test_who_was_held_in_vain_is_excused_by_an_agent_that_was_away_as_long(
    away: float, held: float, reason: str, received: int, alone: set[str], announces: bool
) -> None:
    solo = frozenset({"solo"})
    fault = Fault("agent killed", "site-3", 100, connectors=solo, alone=frozenset(alone), struck=100.2, over=100 + away)
    trial = Trial("short", "hub-a", "solo", 101, received=received, ended=101 + held)
    assert announced.AGENT_AWAY.covers(fault, trial, frozenset({reason})) == announces


def access_line(age: float, duration: float, reason: str, client: str = "127.0.0.1:1") -> str:
    line = {"ts": stamp(time.monotonic() - age), "event": ACCESS, "listener": "solo", "client": client}
    return json.dumps({**line, "duration": duration, "reason": reason}) + "\n"


def test_a_client_whose_port_nobody_knows_has_lines_of_flows_that_began_meanwhile(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        access_line(1, 9, "earlier")
        + access_line(1, 2, "its own")
        + access_line(1, 2, "closed")
        + access_line(0, 0, "late")
    )
    now = time.monotonic()
    trial = Trial("curl", "hub-a", "solo", now - 4, ended=now - 2)
    found = Logs(lambda: {"hub-a": log}).access_lines(trial)
    assert [line["reason"] for line in found] == ["its own"]


@pytest.mark.parametrize("source", ["", "127.0.0.1:1"])
@pytest.mark.parametrize("other", ["LINE_SEC", "SETTLE_SEC"])
def test_a_loss_waits_for_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, other: str) -> None:
    """The line comes after the loss, also that of a client who was reset while it connected, so that its port is not
    known; for a while, or for as long as the fault lasts."""
    monkeypatch.setattr(f"soak.ledger.{other}", 0)
    log = tmp_path / "log"
    log.touch()
    logs = Logs(lambda: {"hub-a": log})
    ledger = Ledger(logs)
    read = logs.access_lines

    def written_meanwhile(trial: Trial) -> list[dict[str, Any]]:
        before = read(trial)
        if not log.stat().st_size:
            log.write_text(access_line(0, 0, "no_agent"))
        return before

    monkeypatch.setattr(logs, "access_lines", written_meanwhile)
    with ledger.fault("mode shadow", "all hubs", announced.MODE_SHADOW):
        lose(ledger, ConnectionResetError(104, "x"), 0, source)
    assert ledger.lost["stream", "mode shadow"] == 1 and not ledger.failures


@pytest.mark.parametrize("one", announced.ALL, ids=lambda one: one.words)
def test_what_is_announced_is_on_the_page(one: announced.Announcement) -> None:
    assert one.words in " ".join((ROOT / one.page).read_text().split())


def life(*rss: int, files: int = 10, threads: int = 5) -> Life:
    return Life("hub-a", 1, [Sample(10.0 * k, mib * MIB, files, threads) for k, mib in enumerate(rss)])


def test_growth_is_seen_and_scatter_is_not() -> None:
    assert not list(life(*[80, 95, 82, 90] * 10).grown(60))
    assert list(life(*range(80, 120)).grown(60)) == ["rss of hub-a (pid 1) has grown from 91 MiB to 114 MiB"]
    assert not list(life(*range(80, 85)).grown(0)), "it has not lived long enough"
    assert not list(life(*[20] * 6, *[80] * 20).grown(60)), "the warm-up counts for nothing"


def test_the_slowest_timer_between_two_readings() -> None:
    inf = float("inf")
    before, now = {0.1: 5.0, 1.0: 5.0, inf: 6.0}, {0.1: 8.0, 1.0: 9.0, inf: 10.0}
    assert samples.slowest(before, now) == 1.0
    assert samples.slowest({}, now) == inf


def felt(failures: dict[str, int], dropped: dict[str, int]) -> Felt:
    none = dict.fromkeys(("reset", "closed", "late", "refused", "result", "wrong"), 0)
    load = Load(20, 1, {"search": 1}, 1)
    times = {"search": Histogram(9, sum(failures.values()), 7000, [(7000, 9)])}
    return Felt(load, 0, 0, none | dropped, none | failures, Histogram(), times, [])


@pytest.mark.parametrize(
    ("failures", "dropped", "error"),
    [
        ({"reset": 1}, {}, Lost),
        ({"late": 1}, {}, Lost),
        ({}, {"reset": 1}, Lost),
        ({"reset": 1, "closed": 1}, {}, CleanEnd),
        ({}, {"closed": 1}, CleanEnd),
        ({"closed": 1, "wrong": 1}, {}, Corrupt),
        ({"result": 1}, {}, Corrupt),
    ],
)
def test_an_ldap_load_that_lost_something_is_a_loss(
    failures: dict[str, int], dropped: dict[str, int], error: type[Lost]
) -> None:
    with pytest.raises(Lost) as raised:
        ldap_load.judge(felt(failures, dropped))
    assert raised.type is error
    ldap_load.judge(felt({}, {}))


def test_what_ldap_clients_felt_is_reported(ledger: Ledger) -> None:
    ledger.felt("load", felt({"reset": 1}, {}))
    ledger.felt("load", felt({}, {}))
    text = render(Outcome(60, 1, ledger, [], 60, 10, {}))
    assert "| load | search | 18 | 1 | 7.0 |" in text


def test_two_ends_that_do_not_agree_are_seen() -> None:
    def line(sent: int, received: int, reason: str = "closed") -> dict[str, object]:
        return {"cid": "1", "reason": reason, "bytes_in": sent, "bytes_out": received}

    assert not list(both_ends([line(5, 7)], [line(5, 7)]))
    assert not list(both_ends([line(5, 7, "client_reset")], [line(4, 8, "client_reset")]))
    assert list(both_ends([line(5, 7)], [line(4, 7)]))
    assert list(both_ends([line(5, 7, "link_lost")], [line(6, 7, "origin_lost")]))
    assert list(both_ends([], [line(5, 7), line(5, 7)]))


def test_the_report_tells_of_failures(ledger: Ledger) -> None:
    lose(ledger, Lost("cut off"))
    outcome = Outcome(60, 1, ledger, [life(*[80] * 20)], 60, 10, {"hub-a": {"opened": 1, "closed": 1}})
    assert not outcome.passed
    text = render(outcome)
    for words in ("**FAILED**", "| stream | 0 | 0 | 1 |", "80 → 80", "cut off", "a line", "| hub-a | 1 | 1 |"):
        assert words in text, words


@pytest.mark.parametrize(
    ("error", "connected", "busy", "again"),
    [
        ("error - the server is busy running a test. try again later", [], False, True),
        ("unable to receive control message: Connection reset by peer", [], True, True),
        ("unable to receive control message: Connection reset by peer", [], False, False),
        ("unable to receive control message: Connection reset by peer", [{}], True, False),
        ("control socket has closed unexpectedly", [], True, False),
    ],
)
def test_who_is_refused_by_a_busy_iperf3_asks_again(error: str, connected: list[Any], busy: bool, again: bool) -> None:
    assert programs.refused({"start": {"connected": connected}, "error": error}, busy) == again
    assert not programs.refused({"start": {"connected": [{}]}}, busy)
