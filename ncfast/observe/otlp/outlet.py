"""From the log to a collector: a bounded queue, and the thread that empties it.

Whoever logs appends the line that it has made anyway: 0.2 us, where the library's records and batch processor would
take 13 (docs/decisions/0021-otlp.md). The thread is not woken: it looks every `interval_sec`. What does not fit is
dropped, what the collector has not taken in `timeout_sec` is given up; both are counted, and nobody waits.
"""

from __future__ import annotations

from collections import deque
from threading import Event, Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from ncfast.observe import log
from ncfast.observe.otlp.wish import Wish

if TYPE_CHECKING:
    from ncfast.observe.otlp.client import Client

RESULTS = ("exported", "dropped", "failed")  # dropped: the queue was full; failed: the collector did not take them

_log = log.get("otlp")


class Outlet:
    """What a process sends. `put` may be called from any thread, `follow` and `close` from one."""

    def __init__(self) -> None:
        self.results = dict.fromkeys(RESULTS, 0)
        self._counting = Lock()
        self._wish: Wish | None = None
        self._events: frozenset[str] = frozenset()  # of the wish
        self._room = 0
        self._waiting: deque[dict[str, Any]] = deque()
        self._bell = Event()
        self._thread: Thread | None = None
        self._ends_at: float | None = None
        # of the thread
        self._used: Wish | None = None
        self._client: Client | None = None
        self._reason = ""  # why the last batch was not taken

    def follow(self, wish: Wish | None) -> None:
        """From now on this is sent, and to there, what waits included. None: nothing more, not even that."""
        self._wish = wish
        self._events = frozenset(wish.config.events) if wish is not None else frozenset()
        self._room = wish.config.queue_max if wish is not None else 0
        if wish is not None and self._thread is None:
            self._thread = Thread(target=self._run, name="ncfast-otlp", daemon=True)
            self._thread.start()
        self._bell.set()

    def put(self, line: dict[str, Any]) -> None:
        """Takes one line of the log, if it is wanted and there is room. Never blocks."""
        if line["event"] not in self._events and "*" not in self._events:
            return
        if len(self._waiting) < self._room:
            self._waiting.append(line)
        else:
            self._count("dropped", 1)

    def close(self) -> None:
        """Sends what waits, for at most `flush_sec`, and ends."""
        if self._thread is None:
            return
        flush_sec = self._wish.config.flush_sec if self._wish is not None else 0.0
        self._ends_at = monotonic() + flush_sec
        self._bell.set()
        self._thread.join(flush_sec)
        if self._thread.is_alive() and self._client is not None:
            self._client.close()
        if self._waiting:
            _log.warning("otlp_unsent", count=len(self._waiting))

    def _run(self) -> None:
        ending = False
        while not ending:
            wish = self._wish
            self._bell.wait(wish.config.interval_sec if wish is not None else None)
            self._bell.clear()
            ending = self._ends_at is not None  # before the look: what came before the end is sent
            try:
                self._empty()
            except Exception:  # a defect: the lines after these may do
                _log.exception("otlp_failed", reason="internal")

    def _empty(self) -> None:
        while self._waiting and (self._ends_at is None or monotonic() < self._ends_at):
            wish = self._wish
            if wish is None:
                self._count("dropped", len(self._waiting))
                self._waiting.clear()
                return
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), wish.config.batch_max))]
            result = "failed"
            try:
                if self._send(self._of(wish), batch):
                    result = "exported"
            finally:
                self._count(result, len(batch))

    def _of(self, wish: Wish) -> Client:
        if self._client is None or wish != self._used:
            from ncfast.observe.otlp.client import Client

            if self._client is not None:
                self._client.close()
            self._client, self._used = Client(wish), wish
        return self._client

    def _send(self, client: Client, batch: list[dict[str, Any]]) -> bool:
        """Whether the collector took it. That it does not is told once, and once that it does again."""
        before, self._reason = self._reason, client.send(batch)
        if self._reason and self._reason != before:
            _log.warning("otlp_failed", reason=self._reason, count=len(batch))
        elif before and not self._reason:
            _log.info("otlp_back")
        return not self._reason

    def _count(self, result: str, lines: int) -> None:
        with self._counting:
            self.results[result] += lines


_outlet = Outlet()


def begin(wish: Wish | None) -> None:
    """As `follow`, before the loop runs: the library is loaded now, when nobody waits."""
    if wish is not None:
        import ncfast.observe.otlp.client  # noqa: F401
    follow(wish)


def follow(wish: Wish | None) -> None:
    """What the process's log sends from now on."""
    _outlet.follow(wish)
    log.also(_outlet.put if wish is not None else None)


def close() -> None:
    """At the end of the process, while its log is still open."""
    log.also(None)
    _outlet.close()


def results() -> dict[str, int]:
    """Lines since the start, by what has become of them."""
    return dict(_outlet.results)
