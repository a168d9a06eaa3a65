"""Writes what the pages take from the code: reasons, close codes, state machines, keys, the worked example; and what
README and docs/compare.md take from the benchmarks.

    python -m docs.generate

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; tests/house/test_docs.py sees to it that all
are current.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

from docs import measured, times, transcript
from ncfast._frames import HEADER_SIZE, FrameType, decode
from ncfast.agent import metrics, tunnel
from ncfast.config import hardening, reference
from ncfast.config.hub import HubConfig
from ncfast.conformance.agents.player import ScriptedHub
from ncfast.conformance.hubs.player import ScriptedAgent
from ncfast.conformance.mesh.player import ScriptedPeer
from ncfast.conformance.stage import Stage
from ncfast.core import errors, features
from ncfast.core.errors import RETRYABLE, Reason
from ncfast.core.states import TRANSITIONS, FlowEvent, FlowState
from ncfast.mesh import peer
from ncfast.mesh import states as mesh
from ncfast.registry import breaker

DOCS = Path(__file__).parent
VECTORS = DOCS.parent / "tests" / "vectors" / "frames.json"
RULE_SEEN = re.compile(r'(?:Broken\(\s*|"rule", |leave\(tunnel, |rule, again = \(|AGAIN = |BROKEN = )"([\w.-]+)"')
PLAYERS: dict[str, type[Stage]] = {"agents": ScriptedHub, "hubs": ScriptedAgent, "mesh": ScriptedPeer}
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIELDS = (
    ("type", 0, 1),
    ("flags", 1, 1),
    ("code", 2, 2),
    ("length", 4, 4),
    ("epoch", 8, 8),
    ("cid", 16, 16),
    ("seq", 32, 8),
    ("ack", 40, 8),
    ("limit", 48, 8),
)
EVENTS = {
    FlowEvent.ACCEPTED: "target connected",
    FlowEvent.LOCAL_FIN: "our socket ended",
    FlowEvent.REMOTE_FIN: "peer's end delivered",
    FlowEvent.DONE: "all acknowledged",
    FlowEvent.RESET: "reset",
}
LINK_EVENTS = {
    mesh.LinkEvent.DIAL: "pause over",
    mesh.LinkEvent.CONNECTED: "connected",
    mesh.LinkEvent.WELCOMED: "both ends proved",
    mesh.LinkEvent.GOAWAY: "GOAWAY came",
    mesh.LinkEvent.FAILED: "failed or lost",
    mesh.LinkEvent.SPARED: "another link stands",
    mesh.LinkEvent.NEEDED: "that link is gone",
}
T = tunnel.TunnelState
TUNNEL_EDGES = {
    (T.DIALLED, T.GREETING): "HELLO, standby",
    (T.DIALLED, T.CLAIMING): "HELLO that claims",
    (T.GREETING, T.STANDBY): "HELLO_ACK, epoch 0",
    (T.STANDBY, T.CLAIMING): "second HELLO, which claims",
    (T.CLAIMING, T.OWNER): "HELLO_ACK, an epoch",
}
MASK_KEY = bytes.fromhex("37fa213d")  # the key of RFC 6455, section 5.7
LINKS = 64  # reasons from here on end a link


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def meanings() -> dict[Reason, str]:
    """What the table in ncfast/core/errors.py says beside each reason."""
    found = re.findall(r"^    ([A-Z_]+) = \d+ +# (.+)$", inspect.getsource(Reason), re.MULTILINE)
    return {Reason[name]: text for name, text in found}


def reasons() -> str:
    return _table(
        ("code", "reason", "says", "another agent may be tried"),
        [
            (int(reason), f"`{reason.label}`", text, "yes" if reason in RETRYABLE else "")
            for reason, text in meanings().items()
            if reason < LINKS
        ],
    )


def close_codes() -> str:
    rows = [
        (row.close_code, int(reason), f"`{reason.label}`", meanings()[reason], row.blame.value)
        for reason, row in errors._LINKS.items()
    ]
    return _table(("close code", "code", "reason", "says", "at fault"), sorted(rows))


def _by_number(label: str) -> list[tuple[int, str]]:
    """Labels in the page's order."""
    return [(int(part) if part.isdecimal() else 0, part) for part in label.split(".")]


def _some(names: list[str], most: int = 3) -> str:
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return "; ".join([*names[:most], *more])


def shown(*sides: str) -> dict[str, str]:
    """Each rule that the scripted ends can find broken on that side (`agents`; `hubs`, `mesh`), and by what."""
    seen: dict[str, list[str]] = {}
    room = DOCS.parent / "ncfast" / "conformance"
    for source in sorted([*room.glob("*.py"), *(path for side in sides for path in (room / side).glob("*.py"))]):
        for found in RULE_SEEN.findall(source.read_text()):
            seen.setdefault(found, [])
    for side in sides:
        for one in PLAYERS[side].scenarios():
            for rule in one.rules:
                seen.setdefault(rule, []).append(one.name)
    return {rule: _some(names) or "whatever is played" for rule, names in seen.items()}


def conformance() -> str:
    """The rules that the scripted ends can find broken."""
    agents, hubs = shown("agents"), shown("hubs", "mesh")
    rows: list[tuple[object, ...]] = [
        (f"`{rule}`", agents.get(rule, ""), hubs.get(rule, "")) for rule in sorted({*agents, *hubs}, key=_by_number)
    ]
    return _table(("rule", "shown of an agent by", "shown of a hub by"), rows)


def states() -> str:
    assert all((state, FlowEvent.RESET) in TRANSITIONS for state in FlowState if state is not FlowState.CLOSED)
    edges = [
        f"    {state.name} --> {after.name}: {EVENTS[event]}"
        for (state, event), after in TRANSITIONS.items()
        if event is not FlowEvent.RESET
    ]
    lines = ["stateDiagram-v2", "    [*] --> OPENING", *edges, "    CLOSED --> [*]"]
    reset = "`reset` leads from every state to CLOSED; whatever is not drawn cannot happen."
    return "```mermaid\n" + "\n".join(lines) + "\n```\n\n" + reset


def _words(kind: type[enum.Enum]) -> list[tuple[object, ...]]:
    """The members of an enumeration of states and what the source says beside each."""
    found = dict(re.findall(r'^    ([A-Z_]+) = "\w+" +# (.+)$', inspect.getsource(kind), re.MULTILINE))
    return [(f"`{state.value}`", found.get(state.name, "")) for state in kind]


def link_states() -> str:
    assert all(
        (state, mesh.LinkEvent.DROPPED) in mesh.TRANSITIONS
        for state in mesh.LinkState
        if state is not mesh.LinkState.LOST
    )
    edges = [
        f"    {state.name} --> {after.name}: {LINK_EVENTS[event]}"
        for (state, event), after in mesh.TRANSITIONS.items()
        if event is not mesh.LinkEvent.DROPPED
    ]
    lines = [
        "stateDiagram-v2",
        "    [*] --> BACKOFF: a URL is listed",
        "    [*] --> HANDSHAKING: a peer has connected",
        *edges,
    ]
    dropped = "From every state a URL that is no longer listed, and an accepted link that has ended, go to LOST."
    return (
        "```mermaid\n"
        + "\n".join(lines)
        + "\n```\n\n"
        + dropped
        + "\n\n"
        + _table(("state", "means"), _words(mesh.LinkState))
    )


def breaker_states() -> str:
    return _table(("state", "means"), _words(breaker.BreakerState))


def tunnel_states() -> str:
    return _table(("state", "means"), _words(tunnel.TunnelState))


def agent_tunnel() -> str:
    """The states of an agent's tunnel, drawn from its table."""
    edges = {(before, after) for before, rest in tunnel.AFTER.items() for after in rest if after is not T.ENDED}
    assert edges == set(TUNNEL_EDGES)
    assert all(T.ENDED in rest for state, rest in tunnel.AFTER.items() if state is not T.ENDED)
    lines = ["stateDiagram-v2", "    [*] --> DIALLED: 101"]
    lines += [f"    {before.name} --> {after.name}: {said}" for (before, after), said in TUNNEL_EDGES.items()]
    return "```mermaid\n" + "\n".join(lines) + "\n```"


def features_table() -> str:
    """What the source says beside each feature."""
    found = re.findall(r'^[A-Z_]+ = "([a-z0-9_-]+)" +# (.+)$', inspect.getsource(features), re.MULTILINE)
    assert {name for name, _ in found} >= set(peer.FEATURES)
    said = [(f"`{name}`", "agents, hubs" if name in peer.FEATURES else "agents", text) for name, text in found]
    return _table(("feature", "said by", "who says it"), said)


def ha_keys() -> str:
    return "\n".join(reference.section_text(HubConfig, "ha")).replace("### ", "#### ").strip()


def _hex(data: bytes) -> str:
    return " ".join(f"{byte:02x}" for byte in data)


def _dump(case: dict[str, str]) -> str:
    """One vector: a line for each field, the payload in lines of 16."""
    wire = bytes.fromhex(case["hex"])
    decoded = decode(wire)
    values = {
        "type": FrameType(decoded[0]).name,
        "code": decoded[2],
        "length": len(decoded[8]),
        "epoch": decoded[3],
        "seq": decoded[5],
        "ack": decoded[6],
        "limit": decoded[7],
    }
    lines = [
        f"{at:3}  {_hex(wire[at : at + size]):<47}  {name} {values.get(name, '')}".rstrip() for name, at, size in FIELDS
    ]
    for at in range(HEADER_SIZE, len(wire), 16):
        part = wire[at : at + 16]
        lines.append(f"{at:3}  {_hex(part):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in part)}")
    return "\n".join(lines)


def example() -> str:
    cases = json.loads(VECTORS.read_text())["frames"]
    parts = []
    for start in (
        "HELLO:",
        "HELLO_ACK:",
        "M_OPEN:",
        "M_OPEN packed:",
        "M_DATA: the first",
        "M_OPEN_ACK: what came early",
        "M_FIN: this direction",
    ):
        case = next(case for case in cases if case["name"].startswith(start))
        parts.append(f"{case['name']}\n\n```text\n{_dump(case)}\n```")
    frame = bytes.fromhex(next(case for case in cases if case["name"].startswith("M_OPEN_ACK: what"))["hex"])
    masked = bytes(byte ^ MASK_KEY[i % 4] for i, byte in enumerate(frame))
    head = bytes((0x82, 0x80 | len(frame)))
    parts.append(
        "The M_OPEN_ACK above as the agent sends it, alone in a WebSocket message, masked with the "
        "key 37 fa 21 3d: final "
        f"binary frame, masked, {len(frame)} bytes, the key, then the frame.\n\n"
        f"```text\n{_hex(head)}   {_hex(MASK_KEY)}   {_hex(masked[:16])} ...\n```"
    )
    return "\n\n".join(parts)


def hardening_of(lines: tuple[hardening.Advice, ...]) -> str:
    return _table(("key", "warned of"), [(f"`{one.key}`", one.says) for one in lines])


def agent_metrics() -> str:
    """Table of the metric families of an agent."""
    rows = ["| name | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in metrics.METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(rows)


PARTS: dict[str, Callable[[], str]] = {
    "reasons": reasons,
    "close-codes": close_codes,
    "states": states,
    "conformance": conformance,
    "times": lambda: _table(("what", "whose", "default", "key", "fits"), times.rows()),
    "example": example,
    "agent-tunnel": agent_tunnel,
    "features": features_table,
    "transcript": transcript.text,
    "link-states": link_states,
    "breaker-states": breaker_states,
    "tunnel-states": tunnel_states,
    "ha-keys": ha_keys,
    "measured": lambda: measured.of_all(measured.SOURCE.read_text()),
    "measured-front": lambda: measured.of_front(measured.SOURCE.read_text()),
    "hardening-hub": lambda: hardening_of(hardening.HUB),
    "hardening-agent": lambda: hardening_of(hardening.AGENT),
    "agent-metrics": agent_metrics,
}
PAGES = [
    DOCS / "protocol.md",
    DOCS / "high-availability.md",
    DOCS / "hardening.md",
    DOCS / "operations.md",
    DOCS / "compare.md",
    DOCS.parent / "README.md",
]


def fill(text: str) -> str:
    """The document with its generated parts as they should be."""
    return PART.sub(lambda match: f"{match[1]}\n{PARTS[match[2]]()}\n\n{match[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(fill(page.read_text()))
