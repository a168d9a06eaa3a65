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
    "1.15": "pauses are drawn by lot; 1.7 shows that they grow",
    "1.19": "nothing of it is seen from outside, unless it is many",
    "4.3": "numbers in tests/vectors/bodies.json; of HELLO whatever is played",
    "4.4": "tests/vectors/bodies.json",
    "4.MOVE": "8.20",
    "5.MOVE": "8.20; who does not get there may say so after 60 s",
    "5.M_ACK": "section 6",
    "5.M_DATA": "section 6",
    "5.M_RESUME": "section 8",
    "5.M_RESUME_ACK": "section 8",
    "5.M_RST": "section 7",
    "5.once-a-second": "a hub may",
    "5.M_FIN": "section 6",
    "5.M_GAP": "6.5",
    "5.M_DETACH": "8.18, and 5.other-end",
    "5.PING": "9.1",
    "5.PONG": "9.1",
    "6.11": "what was not kept is missing in 8.10 and 8.11",
    "6.14": "limits are judged from the first byte on: 6.12",
    "6.15": "everybody's own business",
    "6.21": "a sender may",
    "6.17": "nothing of it is seen from outside but less speed",
    "7.12": "by each end's own times",
    "8.26": "an agent may do either",
    "8.30": "of hubs of a cluster",
    "8.34": "takes 75 s, and hubs of a cluster",
    "8.35": "8.27; 1002 is free to a hub",
    "8.36": "8.10",
    "8.38": "takes 60 s",
    "8.42": "what a hub does with it shows only while it is upgraded: tests/simulation",
    "8.15": "which of two answers comes first nobody can ask for",
    "9.3": "takes 30 s, and a network that takes bytes and acknowledges none",
    "9.4": "whatever is cut",
    "9.5": "takes 300 s",
    "10.7": "what a relay holds depends on its bounds, and on a peer that does not read",
    "10.8": "as 10.7",
    "10.14": "as 10.7",
    "10.1": "that something is passed on, only a third hub sees",
    "10.2": "of an origin that opens; 10.20 is the owner's side of it",
    "10.17": "of an origin that a registry tells of owners",
    "10.18": "of an origin that a registry tells of owners",
    "10.22": "of an origin that a registry tells of owners",
    "10.24": "of an origin that a registry tells of owners",
    "10.25": "as 10.7",
    "10.26": "10.5: what is sent at one end alone comes out at the other",
    "10.27": "as 10.7",
    "10.29": "of an origin that a registry tells of owners",
    "10.30": "of a registry that tells of replicas",
    "11.AUTH": "11.4, 11.16",
    "11.5": "of a hub that dials, as a registry or its configuration tells it",
    "11.6": "the scripted hub has no certificate",
    "11.7": "takes a hub that dials, and nothing tells the one under test of another",
    "11.12": "whatever is played on a bare stream",
    "11.13": "of the request 1.2 and 1.3 are shown",
    "11.14": "of an origin that opens",
    "11.17": "a hub may",
    "11.18": "the scripted hub has a secret",
    "11.20": "nothing of it is seen from outside",
    "11.24": "takes a hub that says much, and answers no PING",
    "11.25": "as 11.9",
    "11.26": "takes a hub that drains, and a registry by which the other comes back",
    "11.9": "not by what is done to a link, but by what is not",
    "14.1": "a rule for the page",
    "14.2": "a rule for the page",
    "14.3": "a rule for the page",
    "14.5": "a rule for the page",
    "14.6": "a rule for the page",
    "14.7": "shown by releases, not by frames",
}

# Rules of one end alone.
OTHERS = {
    "agents": {
        "4.ANNOUNCE": "an agent's connectors change when it wants",
        "5.ANNOUNCE": "an agent's connectors change when it wants",
        "7.11": "of hubs of a cluster",
        "8.6": "a hub's to do",
        "8.13": "a hub's to do",
        "1.18": "a hub's to do",
        "8.1": "a hub's to do; 8.21 is the agent's side of it",
        "8.22": "a hub's to do",
        "8.28": "a hub's to judge",
        **{f"10.{number}": "of hubs" for number in range(1, 32)},
        **{f"11.{name}": "of hubs" for name in ("HELLO", "HELLO_ACK", *range(1, 27))},
        "1.11": "libraries read what they should refuse, and nothing else shows",
    },
    "hubs": {
        "6.8": "an agent's to do",
        "1.7": "an agent's to do",
        "1.14": "an agent's to do",
        "1.20": "an agent's to do",
        "1.16": "an agent's to do",
        "1.17": "an agent's to do",
        "4.2": "4.HELLO, 4.ANNOUNCE",
        "4.5": "tests/vectors/bodies.json",
        "6.18": "of hubs of a cluster",
        "6.19": "of hubs of a cluster",
        "6.20": "an agent's to do",
        "8.41": "of hubs of a cluster",
        "7.10": "an agent's to do",
        "8.21": "an agent's to do",
        "8.23": "an agent's to do",
        "8.24": "an agent's to do",
        "8.25": "an agent's to do",
        "8.27": "an agent's to do",
        "8.29": "an agent's to do",
        "8.31": "an agent's to do",
        "8.32": "an agent's to do",
        "8.39": "an agent's to do; the hub asks while it is upgraded, which tests/upgrade shows",
        "8.40": "an agent's to do; the hub asks while it is upgraded, which tests/upgrade shows",
        "8.33": "of hubs of a cluster",
        "8.37": "of hubs of a cluster",
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
    """Of the page's rules, as they stand before them; and those of tables of bodies."""
    found, section = set(), ""
    for line in PAGE.read_text().splitlines():
        if head := re.match(r"## (\d+)\. ", line):
            section = head[1]
            found.add(section)
        elif line.startswith("- **"):
            for label in re.findall(r"\*\*(\d+\.[\w-]+)\*\*", line):
                assert label not in found and label.startswith(f"{section}."), label
                found.add(label)
        elif name := re.match(r"\| ([A-Z_]+) \| \| \|", line):
            found.add(f"{section}.{name[1]}")
    return found


def test_rules_that_are_named_are_on_the_page():
    named = set(re.findall(r"^\| `([\w.-]+)` \|", generate.conformance(), re.MULTILINE))
    assert len(named) > 45 and not named - labels()


def test_rules_keep_their_numbers():
    """None is left out within a section, wherever in it a rule stands: one that is gone leaves its number."""
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
