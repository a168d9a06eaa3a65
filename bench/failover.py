"""From the owner's SIGKILL to the first byte that moves again on a flow that survives, and to the first new flow.

The surviving flow plays ping-pong through the origin hub. The round trip that was under way when the owner died is by
far the longest; its end is when bytes move again. The new flow connects to the origin hub as soon as the owner is dead
and is done when its first byte has come back. Each round kills the owner that the round before has made, once the
cluster is whole again.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import service
from bench.cluster import LOCAL, MESH, Hub, cluster
from bench.metric import Metric, Sample
from bench.scale import Scale
from bench.served import until_served

CALM = 50  # round trips before the kill, and after the longest
PATIENCE_SEC = 60.0

REFERENCE = LOCAL
METRICS = (
    Metric("kill to first byte", "ms", "lower", limit=1000.0),
    Metric("kill to first new flow", "ms", "lower", limit=1000.0),
    Metric("of it without an owner", "ms", "lower"),
)


def run(names: Sequence[str], scale: Scale, folder: Path) -> Iterator[Sample]:
    with service.echo(folder) as echo, cluster(echo.address, folder) as made:
        for turn in range(scale.rounds):
            owner, _, origin = made.settled()
            takeovers = len(made.takeovers())
            talk = Talk(origin)
            killed = owner.kill()
            new = first_byte(origin)
            moving = talk.longest_ended()
            (outage,) = made.takeovers()[takeovers:]
            owner.start()
            yield (
                turn,
                MESH,
                {
                    "kill to first byte": (moving - killed) / 1e6,
                    "kill to first new flow": (new - killed) / 1e6,
                    "of it without an owner": outage,
                },
            )


def first_byte(hub: Hub) -> int:
    """When the first new flow has brought back a byte; one that is refused is followed by another."""
    until_served(hub.address, PATIENCE_SEC)
    return time.perf_counter_ns()


class Talk:
    """Ping-pong in a thread, over one flow that must not break."""

    def __init__(self, hub: Hub) -> None:
        self._client = socket.create_connection(hub.address, timeout=PATIENCE_SEC)
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._trips: list[tuple[int, int]] = []  # duration, end
        self._failure: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ping-pong")
        self._thread.start()
        self._more(CALM)

    def _run(self) -> None:
        now = time.perf_counter_ns
        try:
            while not self._stop.is_set():
                start = now()
                self._client.sendall(b"p")
                if self._client.recv(1) != b"p":
                    raise ConnectionError("the flow that should survive was closed")
                end = now()
                self._trips.append((end - start, end))
        except OSError as exc:
            self._failure = exc

    def _more(self, count: int) -> None:
        goal = len(self._trips) + count
        while len(self._trips) < goal:
            if self._failure is not None:
                raise RuntimeError("the flow that should survive broke off") from self._failure
            time.sleep(0.0005)

    def longest_ended(self) -> int:
        """When the longest round trip was over, in nanoseconds; ends the conversation."""
        self._more(CALM)
        self._stop.set()
        self._thread.join()
        self._client.close()
        return max(self._trips)[1]
