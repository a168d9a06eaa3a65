"""The published transcript, a flow that outlives a cut: both our ends say their parts."""

from __future__ import annotations

from pathlib import Path

from agent.hubs import HELLO, Frame

from conformance.transcripts import our_agent_says, our_hub_says, read

LINES = read(Path(__file__).parents[1] / "vectors" / "transcript.json")
OWN = {"instance": "", "software": ""}  # what an agent draws for itself, and what tells its version


def same(frame: Frame, expected: Frame) -> bool:
    return frame == expected


def same_but_for_names(frame: Frame, expected: Frame) -> bool:
    if frame.type != HELLO:
        return frame == expected
    return frame.body | OWN == expected.body | OWN and frame._replace(payload=b"") == expected._replace(payload=b"")


def test_our_hub_says_its_part():
    our_hub_says(LINES, same)


def test_our_agent_says_its_part(tmp_path):
    our_agent_says(LINES, tmp_path, same_but_for_names)
