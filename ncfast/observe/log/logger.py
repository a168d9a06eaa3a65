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
import sys
import time
from collections.abc import Callable, Mapping
from traceback import walk_stack, walk_tb
from types import FrameType, TracebackType
from typing import Any, TextIO

import orjson

from ncfast.observe.log.access import AccessLog
from ncfast.observe.log.limiter import EventLimiter
from ncfast.observe.log.line import shown, written
from ncfast.observe.log.masking import Mask
from ncfast.observe.log.notable import Event, Notable, matters
from ncfast.observe.log.recent import Recent
from ncfast.observe.log.writer import LogWriter

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FORMATS = ("auto", "json", "console")


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
            bound = {**self._bound, **fields} if self._bound else fields
            text = None
            if _state.render is _render_json and _state.also is None and not matters(level, event):
                text = written(level, event, self._name, bound, _state.mask, _state.mask_agents, held_back)
            if text is None:
                text = self._told(level, event, bound, held_back)
            _state.recent.put(text)
            _state.writer.put(text)
        except Exception:  # the wall: whatever a value's __str__ does, the caller's work goes on
            _state.failed += 1

    def _told(self, level: str, event: str, fields: dict[str, Any], held_back: int) -> bytes:
        """The line, of which others have been told who want it in its parts."""
        line = shown(level, event, self._name, fields, _state.mask, _state.mask_agents)
        if held_back:
            line["suppressed"] = held_back
        _state.notable.note(line)
        if _state.also is not None:
            _state.also(line)
        return _state.render(line)


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
        self.recent = Recent()
        self.notable = Notable()
        self.render: Callable[[dict[str, Any]], bytes] = _render_json
        self.also: Callable[[dict[str, Any]], None] | None = None
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


def access(*names: str) -> AccessLog:
    """For the one access-log line of a flow, at its close, which has these fields."""
    return AccessLog(_state, _access._told, _render_json, "access", *names)


def also(take: Callable[[dict[str, Any]], None] | None) -> None:
    """Gives every line from now on to `take`, too, as it is written: masked and thinned. None: to nobody. It may
    neither block nor change the line, and is called from any thread."""
    _state.also = take


def mask_address(text: str) -> str:
    """A client address as the configured rule shows it."""
    return _state.mask.address(text)


def mask_identity(text: str) -> str:
    """An agent's id as the configured rule shows it."""
    return _state.mask_agents.identity(text)


def notable() -> list[Event]:
    """The last events that matter, newest first, as they stand in the log."""
    return _state.notable.events()


def flush(timeout: float = 1.0) -> bool:
    """Waits, at most ``timeout`` seconds, until every line so far is written; done by itself at exit."""
    return _state.writer.flush(timeout)


def recent() -> list[bytes]:
    """The last lines, oldest first, as they were written: masked by the rule that was in force then."""
    return _state.recent.lines()


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


def _render_json(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _console(stream: TextIO, colors: bool) -> Callable[[dict[str, Any]], bytes]:
    from structlog.dev import ConsoleRenderer  # takes 30 ms and 5 MiB, and services write JSON

    encoding = stream.encoding or "utf-8"
    renderer = ConsoleRenderer(colors=colors, sort_keys=False, timestamp_key="ts", pad_event_to=24)
    return lambda line: f"{renderer(None, line['level'], line)}\n".encode(encoding, "backslashreplace")


_state = _State()
_security = get("security")
_access = get("access")
_libraries = get("library")
_bridge = _Libraries(logging.WARNING)
