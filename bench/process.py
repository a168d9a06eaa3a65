"""Child processes of a benchmark: started, waited for by what they log, always reaped."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import orjson

T = TypeVar("T")

START_SEC = 240.0  # under valgrind on a busy machine a start takes two minutes
STOP_SEC = 10.0


class Process:
    """A running program whose standard output and error go to one log file."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
        path: Path | None = None,
    ):
        """``path`` is one more folder for its Python modules."""
        self.argv = list(argv)
        self.log = log
        self._options: dict[str, Any] = {
            "pass_fds": pass_fds,
            "cwd": cwd,
            "env": {
                **os.environ,
                "NC_CORE_DUMPS": "1",  # else smaps_rollup and perf are for root alone
                **({"PYTHONPATH": str(path)} if path else {}),
            },
        }
        self.start()

    def start(self) -> None:
        """Runs it, the first time or once it has ended, with a log that begins anew."""
        with self.log.open("wb") as out:
            self._popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **self._options
            )
        self.pid = self._popen.pid

    def wait_for(self, match: Callable[[str], T | None], timeout: float = START_SEC) -> T:
        """What ``match`` returns for the first complete log line it accepts; otherwise as `wait_until`."""

        def first(log: str) -> T | None:
            lines = log[: log.rfind("\n") + 1].splitlines()
            return next((found for line in lines if (found := match(line)) is not None), None)

        return self.wait_until(first, timeout)

    def wait_until(self, match: Callable[[str], T | None], timeout: float = START_SEC) -> T:
        """What ``match`` returns for the whole log, once that is not None.

        Raises RuntimeError with the log's end if the program exits first or ``timeout`` seconds pass.
        """
        deadline = time.monotonic() + timeout
        while True:
            exited = self._popen.poll()
            if (found := match(self.log.read_text(errors="replace"))) is not None:
                return found
            if exited is not None or time.monotonic() > deadline:
                why = "is not ready in time" if exited is None else f"exited with {exited}"
                raise RuntimeError(f"{' '.join(self.argv)} {why}:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.002)

    def wait_for_event(self, event: str) -> dict:
        """The first JSON log line whose ``event`` is this one."""

        def match(line: str) -> dict | None:
            if not line.startswith("{"):
                return None
            fields = orjson.loads(line)
            return fields if fields.get("event") == event else None

        return self.wait_for(match)

    def wait_for_text(self, text: str) -> None:
        self.wait_for(lambda line: text in line or None)

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self._popen.wait(STOP_SEC)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after ``STOP_SEC``."""
        self._popen.terminate()
        try:
            self._popen.wait(STOP_SEC)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


@contextmanager
def running(argv: Sequence[str], log: Path, **options) -> Iterator[Process]:
    process = Process(argv, log, **options)
    try:
        yield process
    finally:
        process.stop()


def cpu_sec(pid: int) -> float:
    """Time that all threads of ``pid``, ended ones too, have spent on a CPU.

    The clock's number is what clock_getcpuclockid(3) makes of a pid; Python does not offer that function.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Exact resident set, from smaps_rollup: the counters in ``status`` lag behind by some pages a thread."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Rss in /proc/{pid}/smaps_rollup")


@contextmanager
def on_one_cpu(pids: Sequence[int]) -> Iterator[None]:
    """Holds every thread of ``pids`` and the calling thread on one CPU, then gives back what each had. A thread or
    process that has ended is let be."""
    before: dict[int, set[int]] = {}
    cpu = max(os.sched_getaffinity(0))
    try:
        for thread in [0, *(thread for pid in pids for thread in _threads(pid))]:
            with suppress(ProcessLookupError):
                before[thread] = os.sched_getaffinity(thread)
                os.sched_setaffinity(thread, {cpu})
        yield
    finally:
        for thread, cpus in before.items():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, cpus)


def _threads(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    return []
