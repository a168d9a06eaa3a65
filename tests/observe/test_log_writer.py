"""The way out of the log: gathered, in order, nothing lost at the end, and nobody waits for who reads it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from select import PIPE_BUF

import orjson
import pytest
from support.process import child_env
from support.until import PATIENCE, wait_until

from ncfast.observe.log import writer as module
from ncfast.observe.log.writer import MAX_WAITING, LogWriter

LINE = b"x" * 999 + b"\n"


class Writes(io.StringIO):
    """A stream that keeps what each write brought."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_stuck_log_reader_stops_the_log_and_nothing_else(blocking: bool) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, blocking)  # whoever shares the descriptor may have done that
    stream = os.fdopen(write_end, "w")
    writer = LogWriter(stream)
    refused = 0
    for number in range(MAX_WAITING + 2000):  # far more than pipe and queue hold; `put` must not wait
        before = writer.dropped
        writer.put(LINE, at_once=bool(number % 2))
        refused += writer.dropped - before
    assert refused > 0
    received: list[bytes] = []

    def drain() -> None:
        with os.fdopen(read_end, "rb") as reader:
            received.extend(reader)

    reader = threading.Thread(target=drain)
    reader.start()
    assert writer.flush(PATIENCE)
    stream.close()
    reader.join(PATIENCE)
    assert writer.dropped == refused  # and none that had been taken
    assert len(received) + refused == MAX_WAITING + 2000
    assert set(received) == {LINE}


def test_lines_are_gathered_until_one_that_cannot_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER", PATIENCE)
    stream = Writes()
    writer = LogWriter(stream)
    writer.put(b"first\n", at_once=False)
    wait_until(
        lambda: stream.pieces and not writer._rests and not writer._bell.is_set(),
        "the first line, for which the thread was woken, and which now gathers",
    )
    lines = [f"{number:0300}\n" for number in range(1000)]
    for line in lines:
        writer.put(line.encode(), at_once=False)
    assert not writer._bell.is_set()  # nobody was woken
    assert stream.pieces == ["first\n"]
    writer.put(b"last\n")
    assert writer.flush(PATIENCE)
    assert "".join(stream.pieces) == "".join(["first\n", *lines, "last\n"])
    assert len(stream.pieces) < len(lines) / 10
    assert all(len(piece) <= PIPE_BUF and piece.endswith("\n") for piece in stream.pieces)


def test_what_was_gathered_leaves_by_itself() -> None:
    stream = Writes()
    writer = LogWriter(stream)
    lines = [f"{number}\n" for number in range(300)]
    for upto in (100, 200, 300):
        wait_until(lambda: writer._rests, "the thread's rest")
        for line in lines[upto - 100 : upto]:
            writer.put(line.encode(), at_once=False)
        wait_until(lambda upto=upto: "".join(stream.pieces) == "".join(lines[:upto]), "lines for which nobody rings")


PROGRAM = """
import asyncio, signal, sys
import uvloop
from ncfast.observe import log
from ncfast.observe.log import writer
writer.GATHER = 600.0  # nothing leaves but by a line that cannot wait, or at the end
log.setup("info", "json", clock=lambda: 0.0)
log.get("test").info("begin")
log.flush(60)

def lines():
    access = log.access("cid")
    for number in range(1000):
        access.write(str(number))

async def until_sigterm():
    def end():
        lines()
        raise SystemExit(1)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    signal.raise_signal(signal.SIGTERM)
    await asyncio.Event().wait()

"""
ENDS = {
    "the program's end": "lines()",
    "sys.exit": "lines(); sys.exit(3)",
    "an exception": "lines(); raise RuntimeError",
    "a signal in the loop": "uvloop.run(until_sigterm())",
    "ctrl-c": "lines(); signal.raise_signal(signal.SIGINT)",
}


@pytest.mark.parametrize("end", ENDS)
def test_no_line_is_lost_at_the_end(end: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM + ENDS[end]], env=child_env(), stderr=subprocess.PIPE, timeout=PATIENCE
    )
    events = [orjson.loads(line) for line in ran.stderr.splitlines() if line.startswith(b"{")]
    assert [event["event"] for event in events] == ["begin"] + ["flow_closed"] * 1000
    assert [event["cid"] for event in events[1:]] == [str(number) for number in range(1000)]
