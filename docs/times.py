"""The table of times and sizes on the protocol's page, each from where the code has it: a configuration's default, a
constant of a module, or one of a Cython source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ncfast.agent import agent, tunnels
from ncfast.config.agent import Connector, Reconnect
from ncfast.config.hub import Edge, Jwt
from ncfast.config.sections import Drain, FlowConfig, Section, Tunnel
from ncfast.hub import level, session

CORE = Path(__file__).parents[1] / "ncfast" / "core"


def _default(section: type[Section], name: str) -> tuple[Any, str]:
    """A key's default, and what it is called in a file."""
    field = section.model_fields[name]
    return field.default, f"`{field.alias or name}`"


def _constant(source: str, name: str) -> float:
    """Of a Cython source, seconds."""
    found = re.search(rf"^cdef double {name} = ([\d.]+)", (CORE / source).read_text(), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def _seconds(value: float) -> str:
    return f"{value:g} s" if value >= 0.1 else f"{value * 1000:g} ms"


def _bytes(value: int) -> str:
    return f"{value >> 20} MiB" if value >= 1 << 20 else f"{value >> 10} KiB"


def rows() -> list[tuple[object, ...]]:
    """What, whose it is, the default, its key if it has one, and what it has to fit."""
    listed: list[tuple[str, str, Any, str]] = [
        ("a PING is sent each", "both", _default(Tunnel, "ping_interval_sec"), "below the other's silence"),
        ("silence that ends a tunnel", "both", _default(Tunnel, "ping_timeout_sec"), "above the other's PINGs"),
        ("bytes unacknowledged, or a tunnel that takes none", "both", _default(FlowConfig, "stall_sec"), ""),
        ("grace of a flow without a way", "both", _default(FlowConfig, "grace_sec"), "the shorter one counts"),
        ("an open without an answer", "hub", _default(FlowConfig, "open_timeout_sec"), "above the agent's dial"),
        ("a dial of the target", "agent", _default(Connector, "dial_timeout_sec"), "below the hub's open"),
        ("silence of who was told the other's end", "both", _default(FlowConfig, "half_close_sec"), ""),
        ("the handshake, and HELLO behind it, each", "hub", _default(Edge, "handshake_timeout_sec"), ""),
        ("the handshake; HELLO_ACK after HELLO", "agent", _default(Reconnect, "connect_timeout_sec"), ""),
        ("HELLO_ACK after a claim over a standby", "agent", tunnels.CLAIM_TIMEOUT, ""),
        ("bound of the pauses between dials, at first", "agent", _default(Reconnect, "min_sec"), ""),
        ("the same, at most", "agent", _default(Reconnect, "max_sec"), ""),
        ("an owner stands so long until the bound is the first again", "agent", tunnels.STOOD, ""),
        ("pause after `superseded`", "agent", tunnels.CONFLICT_DELAY, ""),
        ("between claims that `stale_epoch` makes", "agent", tunnels.RENEWAL, ""),
        ("until M_RESUME of a flow, from HELLO or the last M_RESUME on", "hub", session.RESUME_TIME, ""),
        ("between two M_RESUMEs for the same byte", "both", _constant("receiving.pyx", "ASK_EVERY"), ""),
        ("a reset waits for credit", "both", _constant("flow.pyx", "LATE_RST"), ""),
        ("an acknowledgement waits", "both", _constant("queues.pyx", "ACK_DELAY"), "`6.10`"),
        ("the same, of no more than 4 KiB", "both", _constant("queues.pyx", "SHORT_ACK_DELAY"), "`6.10`"),
        ("a round trip that is believed of a relay", "both", _constant("link.pyx", "MAX_FAR_RTT"), ""),
        ("a move that does not succeed", "agent", tunnels.MOVE_TIME, "below the hub's patience"),
        ("silence after MOVE that is no refusal", "hub", level.PATIENCE, "above the agent's"),
        ("a token counts on beyond `exp`", "hub", _default(Jwt, "leeway_sec"), ""),
        ("a tunnel stands on without a fresh token", "hub", _default(Jwt, "expiry_grace_sec"), ""),
        ("until a refused token is shown again", "agent", agent.TOKEN_RETRY, ""),
        ("flows may end after GOAWAY", "both", _default(Drain, "timeout_sec"), ""),
        ("a new flow's window", "both", _default(FlowConfig, "window_initial"), "said: `limit`, `window`"),
        ("a window, at most", "both", _default(FlowConfig, "window_max"), ""),
        ("unacknowledged bytes of a tunnel", "both", _default(Tunnel, "per_link_max_inflight_bytes"), ""),
        ("a WebSocket message", "both", _default(Tunnel, "max_message_bytes"), "above what the other sends"),
    ]
    return [(what, whose, *_told(value), fits) for what, whose, value, fits in listed]


def _told(value: Any) -> tuple[str, str]:
    number, key = value if isinstance(value, tuple) else (value, "")
    return (_bytes(number) if "bytes" in key or "window" in key else _seconds(number)), key
