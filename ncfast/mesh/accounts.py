"""What is counted and remembered of links, and shown of them: totals over all links, a record for each replica, rows
for status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ncfast.core.errors import Reason
from ncfast.mesh.peer import Peer
from ncfast.mesh.route import Route
from ncfast.mesh.states import LinkState, Way
from ncfast.observe.totals import LinkTotals

MAX_RECORDS = 256  # replicas about which something is remembered
LOST_SHOWN = 600.0  # seconds that a replica which has no URL and has gone is shown


@dataclass(slots=True)
class Record:
    """What is remembered of a replica over its links."""

    instance: bytes = b""  # of the process that was linked last
    lost: bool = False  # has been linked, and is not now
    lost_at: float = 0.0
    reconnects: int = 0
    errors: int = 0
    last_error: str = ""
    last_error_at: float = 0.0


class Accounts:
    """Of one mesh, since its start."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._totals = LinkTotals()  # of links that have ended, as the next
        self._drops: Counter[tuple[str, str]] = Counter()

    def record(self, replica_id: str) -> Record:
        """The replica's record, made if need be."""
        record = self._records.get(replica_id)
        if record is None:
            while len(self._records) >= MAX_RECORDS:
                del self._records[next(iter(self._records))]
            record = self._records[replica_id] = Record()
        return record

    def came(self, replica_id: str) -> bool:
        """A link stands; whether it is one that came back."""
        record = self.record(replica_id)
        back = record.lost
        record.reconnects += back
        record.lost = False
        return back

    def went(self, peer: Peer, reason: Reason, *, error: bool, alone: bool) -> None:
        """A link that stood has ended; `alone`: none has taken its place."""
        record = self.record(peer.replica_id)
        if alone and reason is not Reason.DUPLICATE:
            record.lost, record.lost_at = True, self._clock()
        if error:
            record.errors += 1
            record.last_error, record.last_error_at = reason.label, self._clock()
        self._totals.add(peer.link)
        self._drops.update(_drops(peer))

    # totals, with the links that stand

    def totals(self, peers: Iterable[Peer]) -> LinkTotals:
        """What they and those before them have counted."""
        return self._totals.plus(peer.link for peer in peers)

    def drops(self, peers: Iterable[Peer]) -> Counter[tuple[str, str]]:
        """Frames that relays have dropped, by replica and reason."""
        total = Counter(self._drops)
        for peer in peers:
            total.update(_drops(peer))
        return total

    # rows

    def rows(self, peers: Iterable[Peer], routes: Iterable[Route]) -> list[dict[str, Any]]:
        """One for each peer, by name: replicas that are linked, URLs that wait, replicas that dialled us and are
        gone."""
        rows: dict[str, dict[str, Any]] = {}
        now = self._clock()
        for peer in peers:
            rows[peer.replica_id] = self._row(peer.replica_id, peer.way, now, peer)
        for route in routes:
            name = route.replica_id or route.url
            if not route.own and name not in rows and route.state is not LinkState.RESTING:
                rows[name] = self._row(name, route, now)
        for replica_id, record in self._records.items():
            if record.lost and replica_id not in rows and now - record.lost_at < LOST_SHOWN:
                way = Way(LinkState.LOST, self._clock)
                way.since = record.lost_at
                rows[replica_id] = self._row(replica_id, way, now) | {"direction": "in"}
        return [rows[name] for name in sorted(rows)]

    def _row(self, name: str, way: Way, now: float, peer: Peer | None = None) -> dict[str, Any]:
        record = self._records.get(name) or Record()
        route = way if isinstance(way, Route) else None
        link = peer.link if peer is not None else None
        last = route if route is not None and route.last_error else record
        return {
            "peer": name,
            "state": str(way.state),
            "url": way.url,
            "carrier": peer.carrier if peer is not None else None,
            "tls": peer.tls if peer is not None else None,
            "direction": "out" if peer is None or peer.dialled else "in",
            "breaker": route.breaker.state if route is not None else "closed",
            "rtt_ms": round(link.rtt * 1000, 3) if link is not None else None,
            "queued_frames": link.queued if link is not None else 0,
            "inflight_bytes": link.inflight if link is not None else 0,
            "relay_frames": link.relay_frames if link is not None else 0,
            "relay_bytes": link.relay_bytes if link is not None else 0,
            "answer_bytes": link.answer_bytes if link is not None else 0,
            "flows": link.load if link is not None else 0,
            "since_sec": round(now - (peer.since if peer is not None else way.since), 3),
            "reconnects": record.reconnects,
            "errors": max(record.errors, route.errors if route is not None else 0),
            "last_error": last.last_error,
            "last_error_sec": round(now - last.last_error_at, 3) if last.last_error else None,
        }


def _drops(peer: Peer) -> dict[tuple[str, str], int]:
    drops = {(peer.replica_id, "queue"): peer.link.drops_queue, (peer.replica_id, "away"): peer.link.drops_away}
    return {key: count for key, count in drops.items() if count}
