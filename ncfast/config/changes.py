"""What a reload (SIGHUP) can put into force, and what waits for a restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ncfast.config.hub import HubConfig
from ncfast.config.problems import KeyPath, dotted

# of ha.mesh; certificates and secret are also read again when their files change
RELOADED_MESH = (
    "peers",
    "tls",
    "secret_file",
    "trusted_proxies",
    "send_queue_depth",
    "per_link_max_inflight_bytes",
    "connect_backoff_max_sec",
    "ping_interval_sec",
    "ping_timeout_sec",
)
RELOADED: tuple[tuple[str, ...], ...] = (
    ("listeners",),
    ("logging",),
    ("otlp",),
    ("auth",),
    ("edge", "tls"),
    ("ha", "mode"),
    ("ha", "without_redis"),
    ("ha", "level"),
    *(("ha", "mesh", name) for name in RELOADED_MESH),
)


def reloaded(running: HubConfig, loaded: HubConfig) -> HubConfig:
    """The configuration in force after a reload: `running`, with what a reload can change taken from `loaded`."""
    result = running
    for path in RELOADED:
        result = _taken(result, loaded, path)
    return result


def _taken(one: Any, other: Any, path: tuple[str, ...]) -> Any:
    name, *rest = path
    value = _taken(getattr(one, name), getattr(other, name), tuple(rest)) if rest else getattr(other, name)
    return one.model_copy(update={name: value})


def waits_for_restart(running: HubConfig, loaded: HubConfig) -> list[str]:
    """The keys that differ between the two and that a reload does not change: ``["limits.max_flows"]``."""
    changed = _changed(running.model_dump(by_alias=True), loaded.model_dump(by_alias=True), ())
    return [dotted(path) for path in changed if not any(path[: len(kept)] == kept for kept in RELOADED)]


def _changed(one: Any, other: Any, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() & other.keys():
            yield from _changed(one[key], other[key], (*path, key))
    elif one != other:
        yield path
