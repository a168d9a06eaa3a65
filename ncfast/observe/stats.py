"""What the process counts: plain integers that the event path adds to and the collector reads at scrape time.

Nothing here locks, formats or allocates per observation (a prometheus-client ``inc`` takes a lock each time).
All of it belongs to the event-loop thread. Counters only grow; what goes up and down, and what links and flows count
themselves, is in ``hub.snapshot()``.
Keys of the dictionaries are names of a fixed set (reasons, frame types) or of the cluster (listeners, peers),
never anything a peer chose; `ncfast.observe.metrics` caps them all the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ncfast.observe.histogram import Histogram

# Seconds. Opens cross one network round trip (sub-millisecond to seconds) and may wait for `hold_sec`.
LATENCY_BUCKETS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
# Seconds. Two hubs are neighbours (a tenth of a millisecond) or regions apart. The objective of docs/slo.md, 20 ms, is
# a bound: what share of the pings keeps it is counted, not guessed.
MESH_RTT_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# Seconds. A command has `redis_timeout_sec` (0.3) and one retry.
REGISTRY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5)
# Seconds. Flows live from one request to days.
DURATION_BUCKETS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 14400.0, 86400.0)
# Seconds. Aims: collector pauses under 5 ms, loop lag p99.9 under 20 ms, a stack dump at 100 ms.
PAUSE_BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)


def _histogram(buckets: tuple[float, ...]) -> Histogram:
    return field(default_factory=lambda: Histogram(buckets))


class Tally(Counter[str]):
    """A Counter for what every flow counts. Counter deletes in Python, and so has each assignment look for a method."""

    __slots__ = ()
    __setitem__ = dict.__setitem__
    __delitem__ = dict.__delitem__  # type: ignore[assignment]  # raises for what is not there


@dataclass(slots=True, eq=False)
class ListenerStats:
    """What is counted of one listener's clients. A flow has its listener's at hand from the beginning to the end."""

    accepted: int = 0
    shed: Counter[str] = field(default_factory=Counter)  # at accept, by reason: fd, acl, caps, memory, rate, ...
    opens_refused: Counter[str] = field(default_factory=Counter)  # by reason
    flows_closed: Counter[str] = field(default_factory=Tally)  # by reason
    bytes_in: int = 0  # read from clients, of flows that have ended
    bytes_out: int = 0  # come for clients, the same
    open_latency: Histogram = _histogram(LATENCY_BUCKETS)  # accept to M_OPEN_ACK

    def closed(self, reason: str, bytes_in: int, bytes_out: int) -> None:
        """A flow has ended, after so many bytes."""
        self.flows_closed[reason] += 1
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out

    def passed(self, acknowledged: int, bytes_out: int) -> None:
        """A flow goes to another process, which counts what it reads itself, and what was read here and is not
        acknowledged. With the signs turned: one has come."""
        self.bytes_in += acknowledged
        self.bytes_out += bytes_out


@dataclass(slots=True, eq=False)
class Stats:
    """Counters since the start. Conservation: flows opened = flows closed over all reasons + active + passed
    to a successor, which counts them as opened."""

    flows_opened: int = 0
    flows_resumed: int = 0  # re-attached to a new link without losing a byte
    flows_passed: int = 0  # to a successor: neither open nor closed here
    flows_retried: int = 0  # opens sent again to another agent before the target saw a byte

    listeners: dict[str, ListenerStats] = field(default_factory=dict)  # by name, those that are gone too
    probes: Counter[str] = field(default_factory=Counter)  # by kind: proxy_local, silent

    tunnels_opened: int = 0
    tunnels_closed: Counter[str] = field(default_factory=Counter)  # by reason
    handshakes_refused: Counter[str] = field(default_factory=Counter)  # by reason
    auth_failed: Counter[str] = field(default_factory=Counter)  # by reason

    epochs_refused: int = 0  # opens and resumes under an epoch that is over
    protocol_errors: Counter[str] = field(default_factory=Counter)  # by reason

    config_reloads: Counter[str] = field(default_factory=Counter)  # ok, refused
    handovers: Counter[str] = field(default_factory=Counter)  # by result: done and cut here, failed at a predecessor
    config_refused: bool = False  # the last one was: what runs is not what the file says

    # The cluster: mesh links, registry, ownership. All stay 0 on a hub without one.
    mesh_reconnects: int = 0  # links that came back after they were lost
    mesh_errors: int = 0  # dials that failed and links that were lost
    mesh_drops: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (peer, reason): frames a relay dropped
    mesh_refused: Counter[str] = field(default_factory=Counter)  # handshakes of peers refused, by reason
    registry_commands: int = 0
    registry_errors: Counter[str] = field(default_factory=Counter)  # by reason
    claims: Counter[str] = field(default_factory=Counter)  # by where the epoch came from: redis, memory
    takeovers: Counter[str] = field(default_factory=Counter)  # by reason (fenced): an agent of ours is another hub's
    flows_by_path: Counter[str] = field(default_factory=Tally)  # opened here, by path: local, mesh
    level_moves: Counter[str] = field(default_factory=Counter)  # agents asked to move: asked, done, refused, expired
    failovers: int = 0  # flows that resumed by way of another hub than before
    relays_opened: int = 0  # flows of other hubs that this hub carries to its agents
    relays_resumed: int = 0
    relays_ended: int = 0
    shadow_decisions: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (decision, agrees: yes or no)
    shadow_clients: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # by (connector, whom active serves them by)

    tunnel_rtt: Histogram = _histogram(LATENCY_BUCKETS)
    mesh_rtt: Histogram = _histogram(MESH_RTT_BUCKETS)
    registry_latency: Histogram = _histogram(REGISTRY_BUCKETS)  # one command, its retry not included
    flow_duration: Histogram = _histogram(DURATION_BUCKETS)
    handover_pause: Histogram = _histogram(PAUSE_BUCKETS)  # of a flow that a predecessor has passed
    loop_lag: Histogram = _histogram(PAUSE_BUCKETS)
    gc_pause: Histogram = _histogram(PAUSE_BUCKETS)

    def listener(self, name: str) -> ListenerStats:
        """The listener's own, made if need be. Whoever counts keeps it: it stays the same one."""
        found = self.listeners.get(name)
        if found is None:
            found = self.listeners[name] = ListenerStats()
        return found

    @property
    def flows_closed(self) -> Counter[str]:
        """By reason, over all listeners."""
        return sum((one.flows_closed for one in self.listeners.values()), Counter())
