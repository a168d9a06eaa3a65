"""The front page keeps what it promises: figures are the benchmarks' own, the recorded demo lost nothing."""

from __future__ import annotations

import asyncio
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from support.until import PATIENCE

from bench import cut
from bench.peers import PEERS
from docs import measured
from docs.recording import REST, TARGET, Screen, draw, lines, record
from ncfast.demo.service import Service

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
PAGE = """\
<!-- generated: bench -->
2 CPUs, medians of 3 rounds.

| bench | figure | unit | direct | haproxy | before | ncfast | chisel | one round | floor |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |
| churn | 1 at a time | 1/s | 2.81 | 5,780 | 0.26 | 0.53 | 0.38 | 0.52 to 0.59 | ≥ 0.7 **missed** |
| pingpong | rtt p50 | us | 0.58 | 99.8 | 1.04 | 1.01 |  | 0.95 to 1.04 | ≤ 1 |
| mixed | beside | us | 0.01 | 9,160 | 0.35 | 0.23 | 1.52 | 0.09 to 0.35 | ≤ 1 |
| start | of us alone | ms |  |  |  | 12.0 |  |  |  |

Encrypted between the two processes; ratios are to HAProxy with TLS.

| bench | figure | unit | direct | haproxy | ncfast | one round | floor |
| --- | --- | --- | ---: | ---: | ---: | --- | --- |
| tls | stream | MB/s | 2.81 | 578 | 0.53 | 0.52 to 0.59 |  |
<!-- end -->
"""


# figures


def test_a_loss_is_told_as_such():
    assert [(row.bench, row.verdict) for row in measured.rows(PAGE)] == [
        ("churn", "worse"),
        ("pingpong", "level"),
        ("mixed", "better"),
        ("tls", "worse"),
    ]


def test_the_table_has_each_way_and_no_other_column():
    head, _, first, second, *_ = measured.of_all(PAGE).split("\n\n", 1)[1].splitlines()
    assert head == "|  | HAProxy, two chained | **ncfast** | chisel | ncfast is |"
    assert first == "| churn: 1 at a time | 5,780 1/s | **0.53** | 0.38 | worse |"
    assert second == "| pingpong: rtt p50 | 99.8 us | **1.01** |  | level |"


def test_a_page_without_figures_is_refused():
    with pytest.raises(ValueError, match="make benchmarks"):
        measured.rows("<!-- generated: bench -->\nTo be measured.\n<!-- end -->")


def test_the_readme_has_no_figure_of_speed_but_those():
    text = re.sub(r"<!-- generated.*?<!-- end -->", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert not re.findall(r"\b[\d,.]+ ?(?:[MG]B/s|1/s|us\b)|\b\d+(?:\.\d+)? times (?:as|faster)", text)


# a tunnel that is cut


@pytest.mark.parametrize("name", ["ncfast", *(name for name, peer in PEERS.items() if peer.here)])
def test_what_becomes_of_a_download(tmp_path, monkeypatch, name):
    """Of ours it must go on; of another what is said is a fact, whichever."""
    monkeypatch.setattr(cut, "PATIENCE_SEC", PATIENCE)

    async def scenario():
        async with Service() as service:
            if name == "ncfast":
                way = cut.of_ncfast(service.address, tmp_path)
            else:
                way = cut.of_peer(PEERS[name], service.address, tmp_path)
            async with way as (address, proxy):
                return await cut.download(address, proxy)

    said = asyncio.run(scenario())
    assert said.startswith("went on" if name == "ncfast" else ("went on", "broke", "ended early", "stood still"))


# the recording


def test_the_recording_ends_with_nothing_lost():
    said = shown(TARGET.read_text(), at=None)
    assert said[0] == "$ ncfast demo" and said[-1] == "Nothing was lost, repeated or reordered."
    assert sum("intact" in line for line in said) == 2


def shown(picture: str, at: float | None) -> list[str]:
    """The lines of the picture, so many seconds after it has begun; None: where it is not animated."""
    found = []
    for text in ET.fromstring(picture).iter(f"{SVG}text"):
        animation = text.find(f"{SVG}set")
        seen = text.get("visibility") != "hidden"
        if at is not None and animation is not None:
            start = float(animation.get("begin").removeprefix("loop.begin").removeprefix("+").removesuffix("s") or 0)
            if start <= at < start + float(animation.get("dur").removesuffix("s")):
                seen = animation.get("to") == "visible"
        if seen:
            found.append((float(text.get("y")), text.text))
    return [line for _, line in sorted(found)]


def test_a_block_that_is_drawn_anew_is_shown_in_its_time():
    pieces = [
        (0.5, "begun\r\n"),
        (1.0, "bar 10%\x1b[K\r\nbusy\x1b[K\r\n"),
        (2.0, "\x1b[2F\x1b[Jcut\r\nbar 50% & more\x1b[K\r\n"),
        (3.0, "\x1b[1F\x1b[J\r\nintact\r\n"),
    ]
    picture = draw("x", lines(pieces))
    assert shown(picture, 0.6) == ["$ x", "begun"]
    assert shown(picture, 1.5) == ["$ x", "begun", "bar 10%", "busy"]
    assert shown(picture, 2.5) == ["$ x", "begun", "cut", "bar 50% & more"]
    assert shown(picture, 3.5) == shown(picture, None) == ["$ x", "begun", "cut", "intact"]
    assert f'dur="{3.0 + REST:.1f}s"' in picture


def test_a_sequence_that_the_screen_does_not_know_is_refused():
    with pytest.raises(ValueError, match="ESC"):
        Screen().feed("\x1b[31mred")


def test_a_demo_that_failed_is_not_recorded():
    with pytest.raises(RuntimeError, match="ended with 3"):
        record([sys.executable, "-c", "print('a…'); raise SystemExit(3)"])
