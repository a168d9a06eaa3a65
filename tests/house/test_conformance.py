"""Rules of docs/protocol.md have labels that stay, and none that an outsider can break is without a scenario."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import generate

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
SHOWN = {"agents": generate.shown("agents"), "hubs": generate.shown("hubs", "mesh")}

# Sections with rules that the scripted ends do not play, and those without rules.
ELSEWHERE = {
    "12": "tables of reasons",
    "16": "an example",
    "17": "reasons of rules",
    "18": "this",
}

# Rules that neither scripted end shows, and why.
NEITHER = {
    "1.14": "the scripted ends speak neither TLS nor with proxies",
    "4.MOVE": "8.20",
    "5.MOVE": "8.20; who does not get there may say so after 60 s",
    "5.M_ACK": "section 6",
    "5.M_DATA": "section 6",
    "5.M_FIN": "section 6",
    "5.M_GAP": "6.5",
    "5.M_DETACH": "8.18, and 5.other-end",
    "5.PING": "9.1",
    "5.PONG": "9.1",
    "6.11": "what was not kept is missing in 8.10 and 8.11",
    "6.14": "limits are judged from the first byte on: 6.12",
    "6.15": "everybody's own business",
    "6.17": "nothing of it is seen from outside but less speed",
    "8.15": "which of two answers comes first nobody can ask for",
    "9.3": "takes 30 s, and a network that takes bytes and acknowledges none",
    "9.4": "whatever is cut",
    "9.5": "takes 300 s",
    "10.7": "what a relay holds depends on its bounds, and on a peer that does not read",
    "10.8": "as 10.7",
    "10.14": "as 10.7",
    "10.17": "of an origin that a registry tells of owners",
    "10.18": "of an origin that a registry tells of owners",
    "11.AUTH": "11.3, 11.4",
    "11.1": "the scripted hub speaks on a bare stream alone",
    "11.5": "of a hub that dials, as a registry or its configuration tells it",
    "11.6": "the scripted hub has no certificate",
    "11.9": "not by what is done to a link, but by what is not",
    "14.1": "a rule for the page",
    "14.2": "a rule for the page",
    "14.3": "a rule for the page",
    "14.5": "a rule for the page",
    "14.6": "a rule for the page",
    "14.7": "shown by releases, not by frames",
}

LATER = "shown with the next scenarios of agents"

# Rules of one end alone.
OTHERS = {
    "agents": {
        "4.ANNOUNCE": "an agent's connectors change when it wants",
        "5.ANNOUNCE": "an agent's connectors change when it wants",
        "8.6": "a hub's to do",
        "8.13": "a hub's to do",
        **{f"10.{number}": "of hubs" for number in range(1, 19)},
        **{f"11.{name}": "of hubs" for name in ("HELLO", "HELLO_ACK", *range(1, 11))},
        "1.7": LATER,
        "1.11": "libraries read what they should refuse, and nothing else shows",
        "1.13": LATER,
        "5.GOAWAY": LATER,
        "5.HELLO_ACK": LATER,
        "6.9": LATER,
        "6.16": LATER,
        "7.3": LATER,
        "9.2": LATER,
    },
    "hubs": {
        "6.8": "an agent's to do",
        "7.6": "a hub may",
        "7.7": "7.1, judged whatever is played",
        "8.5": "an agent's to do",
        "8.11": "8.10 is the hub's side of it",
        "8.18": "of hubs of a cluster",
        "8.19": "of hubs of a cluster",
        "14.4": "nothing of it is seen from outside",
    },
}


def labels() -> set[str]:
    """Of the page's rules: section and number, the frame's name where frames have paragraphs or tables, words that
    are said."""
    found, section = set(), ""
    for line in PAGE.read_text().splitlines():
        if head := re.match(r"## (\d+)\. ", line):
            section = head[1]
            found.add(section)
        elif rule := re.match(r"(\d+)\. ", line):
            assert f"{section}.{rule[1]}" not in found, f"{section}.{rule[1]} is there twice"
            found.add(f"{section}.{rule[1]}")
        elif names := re.match(r"\*\*([A-Z_, ]+)\*\*|\| ([A-Z_]+) \| \| \|", line):
            found |= {f"{section}.{name}" for name in (names[1] or names[2]).split(", ")}
        elif said := re.match(r"\*\*.*?\*\* \(`([\w.-]+)`\)", line):
            found.add(said[1])
    return found


def test_rules_that_are_named_are_on_the_page():
    named = set(re.findall(r"^\| `([\w.-]+)` \|", generate.conformance(), re.MULTILINE))
    assert len(named) > 45 and not named - labels()


def test_rules_keep_their_numbers():
    """None is left out within a section: a rule that is gone leaves its number."""
    numbered = [label.split(".") for label in labels() if re.fullmatch(r"\d+\.\d+", label)]
    for section in {one for one, _ in numbered}:
        numbers = sorted(int(number) for one, number in numbered if one == section)
        assert numbers == list(range(1, len(numbers) + 1)), section


@pytest.mark.parametrize("side", SHOWN)
def test_no_rule_that_an_outsider_can_break_is_without_a_scenario(side):
    rules = {label for label in labels() if "." in label and label.split(".")[0] not in ELSEWHERE}
    assert not rules - set(SHOWN[side]) - set(NEITHER) - set(OTHERS[side])


def test_what_is_shown_needs_no_excuse():
    assert not set(NEITHER) & (set(SHOWN["agents"]) | set(SHOWN["hubs"]))
