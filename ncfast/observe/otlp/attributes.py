"""A line of the log by the names of OpenTelemetry: semantic conventions where there are any for a field, otherwise
`ncfast.` and the field's own name. config/otel/collector.yaml makes the same of lines that a collector reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

PREFIX = "ncfast."
PLACES = {  # addresses, with a port where the mask has left one: the attributes `….address` and `….port`
    "client": "client",
    "remote": "network.peer",
    "target": "server",
}
NAMES = {"error": "error.type", "url": "url.full"}
HEAD = frozenset({"ts", "level", "event", "logger"})  # of the record itself
SEVERITIES = {"debug": 5, "info": 9, "warning": 13, "error": 17}  # SeverityNumber: DEBUG, INFO, WARN, ERROR
MOST_INT = 2**63 - 1  # of OTLP; a line may have twice as much


def attributes(line: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    found: dict[str, Any] = {}
    for field, value in line.items():
        if field in HEAD or value is None:
            continue
        if field in PLACES and isinstance(value, str):
            host, port = _place(value)
            found[f"{PLACES[field]}.address"] = host
            if port is not None:
                found[f"{PLACES[field]}.port"] = port
        else:
            found[NAMES.get(field, PREFIX + field)] = _fitting(value)
    return found


def nanoseconds(ts: str) -> int:
    """A line's time since the epoch; it is written in milliseconds."""
    return round(datetime.fromisoformat(ts).timestamp() * 1000) * 1_000_000


def _fitting(value: Any) -> Any:
    if isinstance(value, list):
        return [_fitting(one) for one in value]
    if isinstance(value, dict):
        return {key: _fitting(one) for key, one in value.items()}
    return str(value) if isinstance(value, int) and value > MOST_INT else value


def _place(text: str) -> tuple[str, int | None]:
    """`1.2.3.4:5` and `[::1]:5` by their parts; a network, a hash, a name as they are."""
    host, _, port = text.rpartition(":")
    if port.isdecimal() and (":" not in host or host.startswith("[")):
        return host.strip("[]"), int(port)
    return text, None
