"""N with N - 1 by the words of N - 1: a transcript that its hub and its agent have said (commit d7b4d7a), before there
were `features` and before HELLO_ACK told of times. An end of now says the same, but for what only it knows."""

from __future__ import annotations

from pathlib import Path

from agent.hubs import HELLO, HELLO_ACK, Frame
from conformance.transcripts import our_agent_says, our_hub_says, read

LINES = read(Path(__file__).with_name("transcript.json"))
DROPPED = {"moves", "packed_open"}  # said as features now
OWN = {"instance", "software"}


def says_as_much(frame: Frame, expected: Frame) -> bool:
    """The same frame; a HELLO or HELLO_ACK may have more members, and lacks none that somebody needs."""
    if frame.type not in (HELLO, HELLO_ACK):
        return frame == expected
    said = expected.body
    kept = {name: frame.body.get(name) for name in said.keys() - DROPPED - OWN}
    return kept == {name: said[name] for name in kept} and frame._replace(payload=b"") == expected._replace(payload=b"")


def test_a_hub_of_now_serves_an_agent_of_before():
    """M_OPEN comes packed, as that agent wants it, although it does not say so among features."""
    our_hub_says(LINES, says_as_much)


def test_an_agent_of_now_works_with_a_hub_of_before(tmp_path):
    our_agent_says(LINES, tmp_path, says_as_much)
