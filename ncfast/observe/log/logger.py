"""Structured logs: one event, one line, with nothing in it that a peer could forge or a person would mind.

``log = ncfast.observe.log.get("hub")`` then ``log.info("agent_connected", agent_id=..., remote=...)``. Callers cannot
get it wrong: only the fields of `FIELDS` pass, values are cut to 256 characters and escaped, client addresses
and identities are masked by the configured rule, exceptions show their type and place but never their text (a
parser's text quotes its input), and an event that floods is thinned, with ``suppressed=n`` on its next line.
No call here blocks or raises. The byte path does not log.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from errno import errorcode
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from traceback import walk_stack, walk_tb
from types import FrameType, TracebackType
from typing import Any, TextIO
from urllib.parse import urlsplit

import orjson

from ncfast.observe.log.limiter import BUSY_EVENTS, EventLimiter
from ncfast.observe.log.masking import Mask
from ncfast.observe.log.writer import LogWriter

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FORMATS = ("auto", "json", "console")
MAX_TEXT = 256  # characters of a value
MAX_ITEMS = 256  # entries of a list or mapping, such as the listeners of `hub_ready`

ADDRESS_FIELDS = frozenset({"client", "remote", "peer", "source"})
IDENTITY_FIELDS = frozenset({"agent", "agent_id", "sub"})
URL_FIELDS = frozenset({"hub", "url", "proxy"})  # shown without user, password, query
FIELDS = (
    ADDRESS_FIELDS
    | IDENTITY_FIELDS
    | URL_FIELDS
    | frozenset(
        # process and configuration
        "version python pid state mode role replica_id transport signal timeout_sec uptime_sec "
        "file line key keys changed refused ok status ready reasons "
        # edges and listeners
        "edge admin changes tls listeners listener bind method http_status size limit used backlog held active "
        "count total "
        # tunnels
        "epoch session previous_epoch connectors connector tenant link code rtt_ms features draining "
        "attempt delay_sec host share to kept_sec connected_sec expires_in_sec target healthy lost detached "
        "queued_frames inflight_bytes owner software added withdrawn refresh standing until replica agents outage_ms "
        # the mesh
        "carrier direction newest relayed "
        # flows
        "cid path bytes_in bytes_out duration duration_sec open_ms held_ms resumes retries flows reason "
        "flows_opened flows_closed "
        # faults; detail, problems, expected and got are our own words for people, not the text of a parser's exception,
        # nor what a target said
        "detail problems expected got error trace task library text lag_ms frame_type security".split()
    )
)

_TOKEN = re.compile(r"eyJ[\w-]{5,}\.[\w-]*(\.[\w-]*)?")  # a JWT starts with the base64 of '{"'


class Logger:
    """Levels as methods; ``bind(**fields)`` gives a logger with fields already set."""

    __slots__ = ("_bound", "_name")

    def __init__(self, name: str, bound: Mapping[str, Any] | None = None) -> None:
        self._name = name
        self._bound = bound or {}

    def bind(self, **fields: Any) -> Logger:
        return Logger(self._name, {**self._bound, **fields})

    def debug(self, event: str, /, **fields: Any) -> None:
        self._emit("debug", event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        self._emit("info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        self._emit("warning", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        self._emit("error", event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """As `error`, with type and place of the exception being handled; its text stays out."""
        exc = sys.exception()
        if exc is not None:
            fields.update(error=exc, trace=trace(exc.__traceback__))
        self._emit("error", event, fields)

    def _emit(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if LEVELS[level] < _state.threshold and not fields.get("security"):
            return
        try:
            held_back = _state.limiter.admit(event)
            if held_back is None:
                return
            line = _line(level, event, self._name, {**self._bound, **fields} if self._bound else fields)
            if held_back:
                line["suppressed"] = held_back
            _state.writer.put(_state.render(line), at_once=event not in BUSY_EVENTS)
        except Exception:  # the wall: whatever a value's __str__ does, the caller's work goes on
            _state.failed += 1


class _Libraries(logging.Handler):
    """Records of libraries (asyncio's "Task exception was never retrieved") as events of ours.

    Only the first line of the template passes: arguments, and asyncio's ``future: <Task ... exception=...>``,
    quote whatever the failing code was holding.
    """

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        fields: dict[str, Any] = {"library": record.name, "text": str(record.msg).partition("\n")[0]}
        if record.exc_info and isinstance(record.exc_info[1], BaseException):
            fields.update(error=record.exc_info[1], trace=trace(record.exc_info[1].__traceback__))
        getattr(_libraries, level)("library_message", **fields)


class _State:
    """What `setup` may replace while the process runs."""

    def __init__(self) -> None:
        self.threshold = LEVELS["info"]
        self.secret = os.urandom(32)
        self.mask = Mask("none", self.secret)
        self.mask_agents = self.mask
        self.limiter = EventLimiter(time.monotonic)
        self.writer = LogWriter(sys.stderr)
        self.render: Callable[[dict[str, Any]], bytes] = _render_json
        self.failed = 0


def setup(
    level: str = "info",
    format: str = "auto",
    mask: str = "none",
    stream: TextIO | None = None,
    secret: bytes | None = None,
    clock: Callable[[], float] = time.monotonic,
    mask_agents: str = "none",
) -> None:
    """Takes level, format and masking rules into use at once, also for loggers handed out before.

    ``auto`` follows the environment's ``NC_LOG_FORMAT``, otherwise it is ``console`` on a terminal and
    ``json`` elsewhere. ``secret`` keys the ``hash`` rule, so that several hubs show one client alike; by
    default each process draws its own. ``clock`` gives the seconds by which floods are thinned. What
    libraries say through the standard ``logging`` comes out here too.
    Raises ValueError for a value that is none of these.
    """
    if _bridge not in logging.getLogger().handlers:
        logging.getLogger().addHandler(_bridge)
    stream = stream or sys.stderr
    terminal = stream.isatty()
    if format == "auto":
        format = os.environ.get("NC_LOG_FORMAT", "auto")
    if format not in FORMATS:
        raise ValueError(f"logging.format (or NC_LOG_FORMAT) must be one of {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise ValueError(f"logging.level must be one of {', '.join(LEVELS)}")
    _state.mask = Mask(mask, secret or _state.secret)
    _state.mask_agents = Mask(mask_agents, secret or _state.secret)
    _state.threshold = LEVELS[level]
    _state.limiter.clock = clock
    _state.writer.stream = stream
    if format == "console" or (format == "auto" and terminal):
        _state.render = _console(stream, colors=terminal and "NO_COLOR" not in os.environ)
    else:
        _state.render = _render_json


def get(name: str) -> Logger:
    """The logger of one part of the program; its lines carry ``logger: name``."""
    return Logger(name)


def security(event: str, /, **fields: Any) -> None:
    """A security event (``auth_failed``, ``scope_denied``, ...): ``security: true``, shown at every level."""
    _security.warning(event, **fields, security=True)


def access(**fields: Any) -> None:
    """The one access-log line of a flow, at its close."""
    _access.info("flow_closed", **fields)


def mask_address(text: str) -> str:
    """A client address as the configured rule shows it."""
    return _state.mask.address(text)


def flush(timeout: float = 1.0) -> bool:
    """Waits, at most ``timeout`` seconds, until every line so far is written; done by itself at exit."""
    return _state.writer.flush(timeout)


def suppressed() -> int:
    """Lines that the limit per event has held back since the start."""
    return _state.limiter.suppressed


def dropped() -> int:
    """Lines lost since the start, because the log's reader stood still or a line could not be made."""
    return _state.writer.dropped + _state.failed


def trace(start: TracebackType | FrameType | None) -> list[str]:
    """Places of a traceback or a running frame, innermost last: ``file:line function``, without values."""
    if isinstance(start, FrameType):
        places = list(walk_stack(start))[::-1]
    else:
        places = list(walk_tb(start))
    return [
        f"{os.path.basename(frame.f_code.co_filename)}:{line} {frame.f_code.co_name}" for frame, line in places[-16:]
    ]


def _line(level: str, event: str, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {"ts": _timestamp(time.time()), "level": level, "event": _text(event), "logger": name}
    for key, value in fields.items():
        if key in _SHOWN:
            line[key] = _SHOWN[key](value)
    unlisted = len(fields) + 4 - len(line)
    if unlisted:  # their number only: nobody has thought yet about what they may hold
        line["unlisted"] = unlisted
    return line


def _timestamp(now: float) -> str:
    return f"{_second(int(now))}.{int(now % 1 * 1000):03d}Z"


@lru_cache(2)
def _second(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat()[:19]  # without "+00:00"


def _render_json(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _console(stream: TextIO, colors: bool) -> Callable[[dict[str, Any]], bytes]:
    from structlog.dev import ConsoleRenderer  # takes 30 ms and 5 MiB, and services write JSON

    encoding = stream.encoding or "utf-8"
    renderer = ConsoleRenderer(colors=colors, sort_keys=False, timestamp_key="ts", pad_event_to=24)
    return lambda line: f"{renderer(None, line['level'], line)}\n".encode(encoding, "backslashreplace")


def _address(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, tuple) and len(value) >= 2:  # as `getpeername` gives it
        host, port = str(value[0]), value[1]
        value = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return _text(_state.mask.address(str(value)))


def _identity(value: Any) -> str | None:
    return None if value is None else _text(_state.mask_agents.identity(str(value)))


def _url(value: Any) -> Any:
    return _text(_bare_url(value)) if isinstance(value, str) else _plain(value)


def _plain(value: Any, depth: int = 2) -> Any:
    """A value that JSON can hold, within bounds; of an unknown type only the type's name."""
    kind = type(value)  # most are of these two
    if kind is str:
        return _text(value)
    if kind is int and -(2**63) <= value < 2**64:
        return value
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, Enum):
        value = value.value if isinstance(value, str) else value.name.lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else "<int>"
    if isinstance(value, OSError):
        name, code = type(value).__name__, errorcode.get(value.errno or 0)
        return f"{name}({code})" if code else name
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, (PurePath, IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
        return _text(str(value))
    if depth and isinstance(value, Mapping):
        return {_text(str(k)): _plain(v, depth - 1) for k, v in list(value.items())[:MAX_ITEMS]}
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth - 1) for item in list(value)[:MAX_ITEMS]]
    return f"<{type(value).__name__}>"


def _text(text: str) -> str:
    """One line of at most 256 characters, without control characters and without tokens."""
    if len(text) <= MAX_TEXT and text.isprintable() and "eyJ" not in text:
        return text  # nearly all
    if len(text) > 4 * MAX_TEXT:
        text = text[: 4 * MAX_TEXT]  # bounds the work, too
    if "eyJ" in text:
        text = _TOKEN.sub("<token>", text)
    if not text.isprintable():  # C0, C1, U+2028/9, directions, lone surrogates, ...
        text = "".join(char if char.isprintable() else _escape(ord(char)) for char in text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _bare_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<url>"
    if not parts.netloc:
        return url if "@" not in url and "?" not in url else "<url>"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


_SHOWN: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(FIELDS, _plain),
    **dict.fromkeys(ADDRESS_FIELDS, _address),
    **dict.fromkeys(IDENTITY_FIELDS, _identity),
    **dict.fromkeys(URL_FIELDS, _url),
}
_state = _State()
_security = get("security")
_access = get("access")
_libraries = get("library")
_bridge = _Libraries(logging.WARNING)
