"""What a process tells of itself for a ticket, beside status and metrics: what it is made of, how it is configured,
what it is doing at this moment, and what it has logged last. Nothing secret is in any of it: the configuration as
`ncfast.config.shown` has it, lines as the log has masked them, and of stacks the places alone, without values.
"""

from __future__ import annotations

import asyncio
import os
import platform
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from ncfast import __version__
from ncfast.config.shown import shown
from ncfast.observe import log
from ncfast.observe.slices import Slices, each

PARTS = {  # of GET /diag/…, and what each is
    "process": "application/json",
    "config": "application/json",
    "stacks": "application/json",
    "log": "text/plain; charset=utf-8",
}
TASKS = 64  # looked at in one slice, about 1 ms
LIBRARIES = ("uvloop", "aiofastnet", "websockets", "hiredis", "redis", "pydantic", "orjson", "cryptography")
# What the kernel says of the process, its container and the machine; each where it is.
PROC = (
    *("/proc/self/limits", "/proc/self/status", "/proc/self/sched", "/proc/self/oom_score"),
    *("/proc/loadavg", "/proc/meminfo", "/proc/net/sockstat", "/proc/net/sockstat6"),
    *("/proc/pressure/cpu", "/proc/pressure/memory"),
    *(
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory.current",
        "/sys/fs/cgroup/cpu.max",
        "/sys/fs/cgroup/cpu.stat",
    ),
)
MOST = 16384  # bytes of one of these


def part(name: str, config: Callable[[], BaseModel]) -> Slices[bytes | list[bytes]]:
    """One of `PARTS`."""
    if name == "log":
        return log.recent()
    if name == "stacks":
        document = yield from stacks()
    else:
        document = shown(config()) if name == "config" else process()
    yield
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def process() -> dict[str, Any]:
    """Versions of what is loaded, not of what is installed by now; limits; what the kernel says."""
    loaded = {name: sys.modules[name] for name in LIBRARIES if name in sys.modules}
    return {
        "version": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl": ssl.OPENSSL_VERSION,
        "libraries": {name: str(getattr(module, "__version__", "?")) for name, module in loaded.items()},
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "pid": os.getpid(),
        "cpus": len(os.sched_getaffinity(0)),
        "log": {"suppressed": log.suppressed(), "dropped": log.dropped()},
        "proc": {path: text for path in PROC if (text := _read(path)) is not None},
    }


def _read(path: str) -> str | None:
    try:
        with Path(path).open("rb") as file:
            return file.read(MOST).decode(errors="replace")
    except OSError:  # not on this kernel, or not for us
        return None


def stacks() -> Slices[dict[str, Any]]:
    """Where every thread and every task is, innermost last; tasks that are at one place together."""
    frames = sys._current_frames()
    threads = [{"thread": one.name, "stack": log.trace(frames.get(one.ident or 0))} for one in threading.enumerate()]
    del frames  # they keep what their variables hold
    yield
    tasks: Counter[tuple[str, ...]] = Counter()
    yield from each(list(asyncio.all_tasks()), TASKS, lambda some: tasks.update(map(_place, some)))
    return {
        "threads": threads,
        "tasks": [{"task": name, "count": count, "stack": stack} for (name, *stack), count in tasks.most_common()],
    }


def _place(task: asyncio.Task[Any]) -> tuple[str, ...]:
    """A task's name, and the coroutines that it is in, one inside the other."""
    places: list[str] = []
    inner: Any = task.get_coro()
    while (frame := getattr(inner, "cr_frame", None)) is not None:
        places.append(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}")
        inner = inner.cr_await
    return task.get_name(), *places
