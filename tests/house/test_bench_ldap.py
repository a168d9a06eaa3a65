"""The LDAP runner: short runs through a cluster, budgets kept and broken, and a generator that hides no wait."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.ldap.budget import Budget
from bench.ldap.directory import PEOPLE
from bench.ldap.faults import FAULTS
from bench.ldap.load import Clients, Felt, Histogram, Load
from bench.ldap.run import Hit, Steady
from bench.rig import Address

ROOT = Path(__file__).resolve().parents[2]
SEARCHES = Load(rate=200, sec=0.5, mix={"search": 1}, connections=1, warm_sec=0, limit_sec=120)
BIND, SEARCH = 0x60, 0x63  # tags of requests


# the runner


def run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    for name in ("cc", "slapd", "slapadd", "redis-server"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    always = ["--rate", "40", "--seconds", "0.5", "--limit", "120", "--output", str(tmp_path)]
    return subprocess.run(
        [sys.executable, "-m", "bench.ldap", *always, *options], cwd=ROOT, capture_output=True, text=True
    )


def test_ways_and_a_fault_are_told_of(tmp_path: Path) -> None:
    ways = ["shadow", "active-local", "active-mesh"]
    budgets = "--p99", "600000", "--errors", "100"
    done = run(tmp_path, "--ways", ",".join(ways), "--style", "once", "--faults", "failover", *budgets)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.json")
    runs = json.loads(path.read_text())["runs"]
    assert [one["way"] for one in runs[:-1]] == ways
    assert all(one["felt"]["operations"]["search"]["count"] for one in runs[:-1])
    assert runs[-1]["marks"][0][1] == "owner killed" and runs[-1]["felt"].keys() == {"once"}


def test_a_broken_budget_is_the_exit_code(tmp_path: Path) -> None:
    done = run(tmp_path, "--ways", "off", "--style", "kept", "--faults", "none", "--p99", "0.001")
    assert done.returncode == 1, done.stderr
    assert "off, connections kept: p99 is" in done.stdout


def test_the_report_has_words_and_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="of the extra bench")
    page = tmp_path / "page.md"
    done = run(tmp_path, "--ways", "direct", "--faults", "redis", "--report", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    for words in ("**within the budget**", "| direct |", "| redis | connections kept |", "load average", "slapd 2"):
        assert words in text, words
    for name in "latency", "redis":
        assert f"]({page.stem}/{name}.svg)" in text and (tmp_path / page.stem / f"{name}.png").stat().st_size
    drawn = ElementTree.parse(tmp_path / page.stem / "redis.svg")
    assert "Redis killed" in "".join(drawn.getroot().itertext())


# its generator, at a directory of our own


def element(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([tag, 0x82]) + len(body).to_bytes(2, "big") + body


def answer(number: bytes, tag: int, code: int = 0) -> bytes:
    return element(0x30, element(2, number), element(tag, element(10, bytes([code])), element(4), element(4)))


def entry(number: bytes, uid: str, mail: str = "") -> bytes:
    values = element(0x31, element(4, (mail or f"{uid}@example.net").encode()))
    attributes = element(0x30, element(0x30, element(4, b"mail"), values))
    return element(0x30, element(2, number), element(0x64, element(4, f"uid={uid},{PEOPLE}".encode()), attributes))


Answer = Callable[[int, bytes, str], bytes | None]
"""From a request's tag, the number of its message and the uid it asks for: what is sent, or None for a clean end."""


def right(tag: int, number: bytes, uid: str) -> bytes:
    return answer(number, 0x61) if tag == BIND else entry(number, uid) + answer(number, 0x65)


@contextmanager
def directory(say: Answer) -> Iterator[Address]:
    def serve(client: socket.socket) -> None:
        with client, client.makefile("rb") as stream:
            while head := stream.read(2):
                length = head[1] if head[1] < 128 else int.from_bytes(stream.read(head[1] & 127), "big")
                body = stream.read(length)
                number, rest = body[2 : 2 + body[1]], body[2 + body[1] :]
                asked = re.search(rb"uid\x04(.)", rest, re.DOTALL)
                uid = rest[asked.end() :][: asked[1][0]].decode() if asked else ""
                said = say(rest[0], number, uid) if rest[0] in (BIND, SEARCH) else None
                if said is None:
                    return
                client.sendall(said)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)


def felt_of(load: Load, *addresses: Address) -> Felt:
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    with Clients(load, addresses) as clients:
        return clients.wait()


def test_all_that_were_due_in_a_pause_have_waited() -> None:
    held = 0.5
    paused = threading.Event()

    def pausing(tag: int, number: bytes, uid: str) -> bytes:
        if tag == SEARCH and not paused.is_set():
            paused.set()
            time.sleep(held)  # the pause
        return right(tag, number, uid)

    with directory(pausing) as address:
        felt = felt_of(SEARCHES, address)
    assert not felt.failed
    half = sum(count for value, count in felt.every.buckets if value >= held / 2 * 1e6)
    assert half >= SEARCHES.rate * held / 2, "one client that waits for its answer would tell of one"


def test_a_histogram_is_as_exact_as_it_says() -> None:
    with directory(right) as address:
        felt = felt_of(replace(SEARCHES, connections=5, mix={"bind": 1, "search": 3, "unbind": 1}), address)
    assert not felt.failed and felt.asked == SEARCHES.rate * SEARCHES.sec + 5, "and what opened the connections"
    for one in felt.operations.values():
        assert sum(count for _, count in one.buckets) == one.count
        assert not one.count or abs(one.buckets[-1][0] - one.max) <= 1 + one.max / 1000


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (lambda tag, number, uid: None if tag == SEARCH else right(tag, number, uid), "closed"),
        (lambda tag, number, uid: answer(number, 0x61, 49), "result"),
        (lambda tag, number, uid: b"" if tag == SEARCH else right(tag, number, uid), "late"),
        (lambda tag, number, uid: right(tag, number, uid and "user" + uid[:3:-1] + "0"), "wrong"),
        (lambda tag, number, uid: answer(number, 0x61 if tag == BIND else 0x65), "wrong"),
        (lambda tag, number, uid: right(tag, b"\x7f\x00", uid), "wrong"),
        (lambda tag, number, uid: b"\x30\x84\xff\xff\xff\xff", "wrong"),
        (lambda tag, number, uid: b"HTTP/1.1 400 Bad Request\r\n\r\n", "wrong"),
    ],
)
def test_what_fails_is_called_by_its_name(say: Answer, why: str) -> None:
    with directory(say) as address:
        felt = felt_of(replace(SEARCHES, sec=0.1, once=True, limit_sec=0.2 if why == "late" else 120), address)
    assert felt.failures[why] == felt.failed >= SEARCHES.rate * 0.1


def test_who_is_refused_takes_the_next_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()
    load = replace(SEARCHES, sec=0.1)
    assert felt_of(load, nobody).failures["refused"] == load.rate * load.sec + 1, "the first is that of the connection"
    with directory(right) as address:
        assert not felt_of(load, nobody, address).failed


# budgets


def felt(ms: float, failed: int = 0) -> Felt:
    times = Histogram(99, failed, int(ms * 1e3), [(1000, 97), (int(ms * 1e3), 2)])
    operations = {"bind": Histogram(), "search": times, "modify": Histogram(), "unbind": Histogram()}
    return Felt(SEARCHES, 0, 0, {}, {"reset": failed}, Histogram(), operations, [])


@pytest.mark.parametrize(
    ("run", "broken"),
    [
        (Steady("off", "kept", felt(40)), ["p99"]),
        (Steady("off", "kept", felt(20)), []),
        (Steady("direct", "kept", felt(40, failed=9)), []),
        (Steady("active-mesh", "once", felt(20, failed=2)), ["%"]),
        (Steady("active-mesh", "once", felt(20, failed=1)), []),
        (Hit("redis", {"kept": felt(40), "once": felt(40, failed=2)}, []), ["%"]),
        (Hit("own-drain", {"kept": felt(40, failed=9)}, []), []),
    ],
)
def test_what_is_held_against_a_budget(run: Steady | Hit, broken: list[str]) -> None:
    said = list(Budget(p99_ms=30, errors_percent=1).broken([run]))
    assert len(said) == len(broken) and all(word in words for word, words in zip(broken, said, strict=True))
    assert not list(Budget(None, None).broken([run]))


def test_what_a_fault_may_cost_stands_in_readme() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert all(fault.announced in readme for fault in FAULTS.values())
