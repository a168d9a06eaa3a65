"""Watches the process itself: how late the loop runs, where it is stuck, how long the collector pauses it."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time

from ncfast.observe import log
from ncfast.observe.stats import Stats

PERIOD = 0.1  # seconds between samples
STUCK = 0.1  # seconds of lag from which the loop's stack is logged
QUIET = 10.0  # seconds between two stacks in the log
YOUNG = 2_000  # objects that the collector looks at in one go: 0.3 ms; 50,000 were pauses of 7 ms

_log = log.get("watchdog")


class Watchdog:
    """Samples loop lag and collector pauses into `Stats`; logs ``loop_stuck`` with what blocks the loop.

    The stack is taken by a thread of its own, which sees only frames that let go of the interpreter lock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stats: Stats) -> None:
        self._loop = loop
        self._stats = stats
        self._due = 0.0  # when the next sample should run, by time.monotonic()
        self._timer: asyncio.Handle | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ncfast-watchdog", daemon=True)
        self._loop_thread = 0
        self._gc_started = 0.0

    def start(self) -> None:
        """Called on the loop's thread. What the caller does until the loop turns again is the start's, and no lag."""
        self._loop_thread = threading.get_ident()
        self._due = float("inf")
        self._timer = self._loop.call_soon(self._schedule)
        gc.callbacks.append(self._on_gc)
        self._thread.start()

    def stop(self) -> None:
        """Called on the loop's thread, once."""
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        gc.callbacks.remove(self._on_gc)
        self._thread.join()

    def _schedule(self) -> None:
        self._due = time.monotonic() + PERIOD
        self._timer = self._loop.call_later(PERIOD, self._sample)

    def _sample(self) -> None:
        self._stats.loop_lag.observe(max(0.0, time.monotonic() - self._due))
        self._schedule()

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._gc_started = now
        elif self._gc_started:
            self._stats.gc_pause.observe(now - self._gc_started)

    def _watch(self) -> None:
        logged_at = float("-inf")
        while not self._stop.wait(PERIOD):
            now = time.monotonic()
            lag = now - self._due
            if lag > STUCK and now - logged_at > QUIET:
                logged_at = now
                stack = log.trace(sys._current_frames().get(self._loop_thread))
                _log.warning("loop_stuck", lag_ms=round(lag * 1000), trace=stack)


def freeze() -> None:
    """Call once everything long-lived exists: the collector then never walks it again and runs rarely.

    Flows break their own cycles, so what the collector finds is little. It looks at the young ones after `YOUNG` more
    allocations than releases, which is some 65 new flows, and at those that outlived that after a million: a pause is
    as long as what is looked at, 0.14 us an object (gc_pause shows them).
    """
    gc.freeze()  # with what loading left behind in cycles: some hundred objects, not worth a look at all
    gc.set_threshold(YOUNG, 1_000_000 // YOUNG, 50)
    gc.enable()  # it was off while modules were loaded
