"""The mesh: which peers there are, which links stand, who is dialled.

Of two links to one replica the one that the hub with the smaller replica_id has dialled stays, at both ends; so two hubs that dial
each other at once settle on one without a word more. A peer that comes as another process replaces its former link at once.
The hub whose dial would have to yield does not dial while a link stands; the other does so once more when a link that it
accepted comes up, so that in the end the link that stays is the same whoever came first.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from websockets.http11 import Request

from ncfast import log
from ncfast._flow import FlowContext
from ncfast._frames import FrameType
from ncfast._websocket import ReceiveBuffer
from ncfast.carrier import LinkBounds, carry_stream, carry_websocket
from ncfast.config import HubConfig
from ncfast.errors import Blame, Reason, blame
from ncfast.httpd import Response
from ncfast.mesh.accept import Entrance
from ncfast.mesh.certificates import Certificates, WebTls, read_secret, stamp
from ncfast.mesh.peer import Peer
from ncfast.mesh.route import HEAD_START, Route
from ncfast.mesh.states import LinkEvent, LinkState, Way
from ncfast.mesh.trust import Credential, Refused, claims_certificate, forwarded, is_among, is_local
from ncfast.net import Acceptor, Net
from ncfast.readiness import Readiness
from ncfast.stats import Stats
from ncfast.upgrade import accept

_log = log.get("mesh")

HELLO_TIMEOUT = 5.0            # seconds from a connection to its handshake's end
MAX_PENDING = 256              # accepted connections that are not yet a link that stands
FILES_EVERY = 2.0              # seconds between two looks at certificate and secret files
MEMORY = 4096                  # instances of former processes remembered, 64 bytes each
MAX_RECORDS = 256              # replicas about which something is remembered
LOST_SHOWN = 600.0             # seconds that a replica which has no URL and has gone is shown
PASSED_ON = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")


class Replica(Protocol):
    """What the registry says of a hub."""

    replica_id: str
    instance: str
    mesh_url: str


class PeerHost(Protocol):
    """What the hub is to its mesh."""

    config: HubConfig
    net: Net
    context: FlowContext
    receive_buffer: ReceiveBuffer
    replica_id: str
    instance: bytes            # 8 bytes: how its cids begin
    stats: Stats
    readiness: Readiness

    def peer_up(self, peer: Peer) -> None:
        """The link is established."""

    def peer_down(self, peer: Peer, reason: Reason) -> None:
        """The link is over; its flows have detached."""

    def peer_leaving(self, peer: Peer) -> None:
        """The peer drains."""

    def mesh_open(self, peer: Peer, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        """M_OPEN came."""

    def mesh_resume(self, peer: Peer, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> bool:
        """M_RESUME came; False: there is no such flow."""

    def mesh_stale(self, peer: Peer, cid: bytes, epoch: int) -> None:
        """The far end of one of our flows knows of a higher epoch."""


@dataclass(slots=True)
class Record:
    """What is remembered of a replica over its links."""

    came: bool = False         # has been linked
    lost: bool = False         # and is not now
    lost_at: float = 0.0
    reconnects: int = 0
    errors: int = 0
    last_error: str = ""


class Mesh:
    """`await start()`, then `tick` about twice a second, until `await stop()`."""

    def __init__(self, host: PeerHost) -> None:
        self.host = host
        self.net = host.net
        self.stats = host.stats
        self.replica_id = host.replica_id
        self.instance = host.instance
        self.cluster = host.config.ha.cluster
        self.certificates: Certificates | None = None
        self.secret: bytes | None = None
        self.leaving = False
        self.pending: dict[Entrance | Peer, None] = {}           # accepted, oldest first
        self.routes: dict[str, Route] = {}
        self._take(host.config)
        self._handshakes: dict[Peer, asyncio.TimerHandle] = {}
        self._peers: dict[str, Peer] = {}
        self._origins: dict[bytes, Peer] = {}
        self._former: OrderedDict[bytes, None] = OrderedDict()
        self._records: dict[str, Record] = {}
        self._discovered: set[str] = set()
        self._acceptors: list[Acceptor] = []
        self._files_timer: asyncio.TimerHandle | None = None
        self._secret_stamp: tuple[object, ...] = ()
        self._web: WebTls | None = None
        self._unusable: tuple[object, ...] = ()                  # stamps of files that were refused and logged
        self._ended_frames = (Counter[str](), Counter[str]())
        self._ended_drops: Counter[tuple[str, str]] = Counter()
        self._ended_stale = 0
        self._running = False

    # life

    async def start(self) -> None:
        """Listens and begins to dial. Raises OSError, with the remedy, when an address cannot be bound or a file
        cannot be used; nothing stays open then."""
        self._use(*self._load(self.host.config))
        config = self.config
        try:
            if config.listen is not None:
                self._acceptors.append(await self.net.listen(config.listen, self._on_socket, on_shed=self._on_shed))
            if config.listen_unix is not None:
                self._acceptors.append(await self.net.listen_unix(str(config.listen_unix), self._on_unix_socket, on_shed=self._on_shed))
        except OSError:
            self._close_doors()
            raise
        self._running = True
        self._list("config", {url: "" for url in config.peers})
        self._files_timer = self.net.call_later(FILES_EVERY, self._look_at_files)
        _log.info("mesh_ready", bind=self.address, replica=self.replica_id, count=len(config.peers))

    async def stop(self) -> None:
        """Ends everything; peers are told that we go."""
        self._running = False
        self._close_doors()
        if self._files_timer is not None:
            self._files_timer.cancel()
        for route in self.routes.values():
            route.drop()
        self.routes.clear()
        for peer in [*self._handshakes, *self._peers.values()]:
            peer.link.fail(Reason.GOING_AWAY, "this hub stops")
        await asyncio.sleep(0)                         # cancelled dials close their connections

    def _close_doors(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        for one in list(self.pending):
            if isinstance(one, Entrance):
                one.abort()

    @property
    def address(self) -> str:
        """Where we listen, host:port as bound, or the Unix socket's path; "" if nowhere."""
        return self._acceptors[0].address if self._acceptors else ""

    def say_leaving(self) -> None:
        """Tells every peer, also those that come later, that we drain: no new flows."""
        self.leaving = True
        for peer in self._peers.values():
            peer.link.send(FrameType.GOAWAY, code=Reason.DRAINING)

    # configuration

    def configure(self, config: HubConfig) -> None:
        """Takes peers, certificates, secret, proxies, bounds and times from a new configuration. Where we listen stays. Links that stand
        stay. Raises OSError, and then nothing has changed."""
        loaded = self._load(config)
        self._take(config)
        self._use(*loaded)
        for route in self.routes.values():
            route.backoff.maximum = self.config.connect_backoff_max_sec
        if self._running:
            self._list("config", {url: "" for url in self.config.peers})

    def _take(self, config: HubConfig) -> None:
        self.config = config.ha.mesh
        self.stall = config.flow.stall_sec
        self.bounds = LinkBounds.of_mesh(config.ha.mesh, config.tunnel)

    def _load(self, config: HubConfig) -> tuple[Certificates | None, bytes | None, tuple[object, ...]]:
        mesh = config.ha.mesh
        certificates = Certificates(mesh.tls, config.ha.cluster, self.replica_id) if mesh.tls is not None else None
        mark = stamp(self._secret_files(mesh.secret_file))
        return certificates, read_secret(mesh.secret_file) if mesh.secret_file is not None else None, mark

    def _use(self, certificates: Certificates | None, secret: bytes | None, secret_stamp: tuple[object, ...]) -> None:
        self.certificates = certificates
        self.secret = secret
        self._secret_stamp = secret_stamp

    @staticmethod
    def _secret_files(path: Path | None) -> list[Path]:
        return [path] if path is not None else []

    async def web_context(self) -> ssl.SSLContext:
        """TLS towards an ingress."""
        if self.certificates is not None:
            return await self.certificates.web.context(self.net.loop)
        if self._web is None:
            self._web = WebTls()
        return await self._web.context(self.net.loop)

    def _look_at_files(self) -> None:
        """Files may be replaced at any time, one after the other: what does not fit together yet is tried again when it changes."""
        self._files_timer = self.net.call_later(FILES_EVERY, self._look_at_files)
        certificates = self.certificates
        now = (*(stamp(certificates.files) if certificates is not None else ()),
               *stamp(self._secret_files(self.config.secret_file)))
        if now == (*(certificates.stamp if certificates is not None else ()), *self._secret_stamp) or now == self._unusable:
            return
        try:
            self._use(*self._load(self._current()))
        except OSError as exc:
            self._unusable = now
            _log.warning("mesh_files_refused", problems=[str(exc)], detail="the former certificates and secret stay in use")
        else:
            self._unusable = ()
            _log.info("mesh_files_reloaded", replica=self.replica_id)

    def _current(self) -> HubConfig:
        config = self.host.config
        return config.model_copy(update={"ha": config.ha.model_copy(update={"mesh": self.config})})

    # who is dialled

    def discovered(self, replicas: Iterable[Replica]) -> None:
        """The hubs that the registry knows: those with a mesh URL are dialled as well."""
        others = {one.replica_id: one for one in replicas if one.replica_id != self.replica_id}
        self._discovered = set(others)
        if not self._running:
            return
        self._list("registry", {one.mesh_url: one.replica_id for one in others.values() if one.mesh_url})
        for one in others.values():
            route = self.routes.get(one.mesh_url)
            if route is not None and route.instance != one.instance:
                route.instance = one.instance          # it has restarted
                route.hurry()

    def _list(self, source: str, wanted: dict[str, str]) -> None:
        """Follows a list of URLs, each with the replica behind it or ""."""
        for url, replica_id in wanted.items():
            route = self.routes.get(url)
            if route is None:
                route = self.routes[url] = Route(self, url, replica_id)
                if self.may_rest(route):
                    route.rest()
                else:
                    route.begin()
            elif replica_id and route.replica_id != replica_id:
                route.lead_to(replica_id)
            route.listed.add(source)
        for url, route in list(self.routes.items()):
            if url not in wanted and source in route.listed:
                route.listed.discard(source)
                if not route.listed:
                    del self.routes[url]
                    route.drop()

    def _yields(self, replica_id: str) -> bool:
        """Whether of two links to this replica the one that we dialled would have to go."""
        return replica_id < self.replica_id

    def may_rest(self, route: Route) -> bool:
        """Whether the link that stands makes dialling pointless."""
        standing = self._peers.get(route.replica_id)
        return standing is not None and (standing.dialled or self._yields(route.replica_id))

    # who comes in

    def _on_socket(self, sock: Any, where: Any) -> None:
        self._enter(sock, where[0], f"{where[0]}:{where[1]}")

    def _on_unix_socket(self, sock: Any, where: Any) -> None:
        self._enter(sock, None, "unix")

    def _enter(self, sock: Any, host: str | None, remote: str) -> None:
        self._make_room()
        entrance = Entrance(self, sock, host, remote)
        self.pending[entrance] = None
        self.net.opened()
        entrance.open()

    def _make_room(self) -> None:
        """The oldest handshake goes if there are too many."""
        if len(self.pending) >= MAX_PENDING:
            oldest = next(iter(self.pending))
            self.refused("too_many_handshakes", "", "the oldest makes room")
            if isinstance(oldest, Entrance):
                oldest.abort()
            else:
                oldest.link.fail(Reason.HANDSHAKE_TIMEOUT, "too many handshakes")
            self.pending.pop(oldest, None)

    def _on_shed(self, reason: str) -> None:
        self.refused(reason, "", "no descriptors left")

    def left(self, entrance: Entrance) -> None:
        """A connection has become a link, or is gone."""
        self.pending.pop(entrance, None)

    def refused(self, reason: str, remote: str, detail: str) -> None:
        """Somebody was turned away. `detail` is in our own words."""
        self.stats.mesh_refused[reason] += 1
        log.security("mesh_refused", reason=reason, remote=remote, detail=detail)

    def put_stream(self, transport: Any, credential: Credential, remote: str, early: bytes) -> None:
        """Puts a link on an accepted connection that begins with frames, the first of them in `early`."""
        peer = Peer(self, Way(LinkState.HANDSHAKING, self.net.clock), credential, dialled=False, remote=remote, carrier="stream")
        peer.link, carrier = carry_stream(self.host, transport, peer, self.bounds, peer=remote)
        self.greet(peer)
        carrier.feed(early)

    def serve_http(self, request: Request, transport: Any, *, host: str | None, remote: str, names: frozenset[str] | None = None,
                   private: bool = False) -> Response | None:
        """Answers a request for /mesh that came from `host` (None: by a Unix socket). None: it was answered with 101, and the transport is a
        link's from now on; whoever calls lets go of it. Otherwise the caller sends the answer and closes.

        `names` are those of the client certificate that our own TLS for the mesh has verified; `private` says that the request came to
        an address where only peers connect. On the public edge a local address proves nothing: an ingress may stand there.
        """
        try:
            credential = self._of_http(request, host, names, private)
        except Refused as exc:
            self.refused(exc.reason, remote, exc.detail)
            return Response.text(exc.status, exc.detail)
        accepted, answer = accept(request)
        if answer is not None:
            self.refused("websocket", remote, "")
            return answer
        transport.write(accepted)
        self._make_room()
        peer = Peer(self, Way(LinkState.HANDSHAKING, self.net.clock), credential, dialled=False, remote=remote, carrier="websocket")
        peer.link, _ = carry_websocket(self.host, transport, peer, self.bounds, client=False, peer=remote)
        self.greet(peer)
        return None

    def _of_http(self, request: Request, host: str | None, names: frozenset[str] | None, private: bool) -> Credential:
        """What is known of a peer that comes by HTTP. Raises Refused."""
        headers = request.headers
        if request.path != "/mesh":
            raise Refused("path", "Not Found", 404)
        if headers.get_all("Origin"):
            raise Refused("origin", "browsers are not peers")
        if headers.get_all("Content-Length") or headers.get_all("Transfer-Encoding"):
            raise Refused("body", "a handshake has no body", 400)
        shown = claims_certificate(headers)
        if is_among(host, self.config.trusted_proxies):
            if shown or (names is None and (self.config.require_mtls or self.secret is None)):
                return Credential("forwarded", forwarded(headers))
        elif shown:
            raise Refused("proxy_untrusted", "client certificate headers count only from ha.mesh.trusted_proxies")
        if names is not None:
            return Credential("certificate", names)
        if private and host is None:
            return Credential("local")
        if self.config.require_mtls:
            raise Refused("plain", "require_mtls, and no client certificate was shown")
        if self.secret is not None:
            return Credential("secret")
        if private and is_local(host) and not any(headers.get_all(name) for name in PASSED_ON):
            return Credential("local")
        raise Refused("not_loopback", "without mutual TLS or ha.mesh.secret_file only peers of this machine are let in")

    # handshakes

    def greet(self, peer: Peer) -> None:
        """A link is there and its handshake begins."""
        self._handshakes[peer] = self.net.call_later(HELLO_TIMEOUT, self._late, peer)
        if not peer.dialled:
            self.pending[peer] = None

    def _late(self, peer: Peer) -> None:
        peer.refuse("timeout", Reason.HANDSHAKE_TIMEOUT, f"the handshake was not over within {HELLO_TIMEOUT:g} s")

    def verdict(self, peer: Peer) -> Reason | None:
        """Why a link whose far end has proved itself may not stand beside what there is; None: it may, in place of that."""
        if isinstance(peer.way, Route):
            peer.way.replica_id = peer.replica_id
        standing = self._peers.get(peer.replica_id)
        if standing is None:
            return None
        if standing.instance != peer.instance:
            if peer.instance not in self._former:
                return None
            self.refused("superseded", peer.remote, "another process with the same replica_id has come since")
            return Reason.SUPERSEDED
        if standing.dialled == peer.dialled:
            stays = not peer.dialled                   # the far end has given the old one up; we have two URLs for one replica
        else:
            stays = peer.dialled != self._yields(peer.replica_id)
        if stays:
            return None
        standing.link.ping()                           # should the far end know better, and have lost it: then we soon know, too
        return Reason.DUPLICATE

    def welcome(self, peer: Peer) -> None:
        """The link stands; another to the same replica is ended."""
        self._over(peer)
        replica_id = peer.replica_id
        former = self._peers.get(replica_id)
        record = self._record(replica_id)
        self._peers[replica_id] = self._origins[peer.instance] = peer
        self._former.pop(peer.instance, None)
        peer.way.move(LinkEvent.WELCOMED)
        if record.came and record.lost:
            record.reconnects += 1
            self.stats.mesh_reconnects += 1
        record.came, record.lost = True, False
        _log.info("mesh_link_up", replica=replica_id, remote=peer.remote, url=peer.way.url or None, carrier=peer.carrier,
                  direction="out" if peer.dialled else "in", software=peer.software)
        if former is not None:
            self._replace(former, peer)
        peer.announced = True
        self.host.peer_up(peer)
        if self.leaving:
            peer.link.send(FrameType.GOAWAY, code=Reason.DRAINING)
        self._settle(peer)

    def _replace(self, former: Peer, peer: Peer) -> None:
        if former.instance == peer.instance:
            former.link.fail(Reason.DUPLICATE if former.dialled != peer.dialled else Reason.SUPERSEDED, "another link to this replica stays")
            return
        self._origins.pop(former.instance, None)
        self._former[former.instance] = None
        while len(self._former) > MEMORY:
            self._former.popitem(last=False)
        former.link.fail(Reason.SUPERSEDED, "the replica has come back as another process")

    def _settle(self, peer: Peer) -> None:
        """What the new link means for URLs that wait: rest, or try now."""
        for route in list(self.routes.values()):
            if route is peer.way:
                continue
            if not route.replica_id or (route.replica_id == peer.replica_id and not self.may_rest(route)):
                route.hurry()                          # it may well be there
            elif route.replica_id == peer.replica_id:
                route.rest()

    def _over(self, peer: Peer) -> None:
        """No longer in its handshake."""
        self.pending.pop(peer, None)
        timer = self._handshakes.pop(peer, None)
        if timer is not None:
            timer.cancel()

    def ended(self, peer: Peer, reason: Reason, detail: str) -> None:
        """A link is over, its flows have detached."""
        self._over(peer)
        standing = self._peers.get(peer.replica_id)
        current = standing is peer
        # neither strangers that were turned away, nor what was cut short because another link stands
        error = blame(reason) is not Blame.NOBODY and (peer.established or (peer.dialled and standing is None))
        if current:
            del self._peers[peer.replica_id]
            self._origins.pop(peer.instance, None)
        if error:
            self.stats.mesh_errors += 1
            if isinstance(peer.way, Route):
                peer.way.errors += 1
        if peer.established:
            self._account(peer, reason, error, current)
        if isinstance(peer.way, Route):
            peer.way.ended(peer, reason)
        elif peer.way.state is not LinkState.LOST:
            peer.way.move(LinkEvent.DROPPED)
        self._tell(peer, reason, detail, error)
        if peer.announced:
            self.host.peer_down(peer, reason)
        if current:
            # of two hubs that both lost the link, the one whose dial would have to yield waits a little
            pause = HEAD_START if self._yields(peer.replica_id) and not peer.dialled else 0.0
            for route in list(self.routes.values()):
                if route.replica_id == peer.replica_id and self._running:
                    route.wake(pause + self.net.rng.uniform(0, 0.1))

    def _account(self, peer: Peer, reason: Reason, error: bool, current: bool) -> None:
        record = self._record(peer.replica_id)
        if current and reason is not Reason.DUPLICATE:
            record.lost, record.lost_at = True, self.net.clock()
        if error:
            record.errors += 1
            record.last_error = reason.label
        for total, counts in zip(self._ended_frames, peer.link.counters(), strict=True):
            total.update(counts)
        self._ended_drops.update(self._drops(peer))
        self._ended_stale += peer.link.stale_epoch

    def _tell(self, peer: Peer, reason: Reason, detail: str, error: bool) -> None:
        level = _log.warning if error else _log.info if peer.established else _log.debug
        level("mesh_link_down", replica=peer.replica_id if peer.established else None, remote=peer.remote, url=peer.way.url or None,
              reason=reason.label, detail=detail, direction="out" if peer.dialled else "in",
              connected_sec=round(self.net.clock() - peer.since, 3) if peer.established else None)

    def _record(self, replica_id: str) -> Record:
        record = self._records.get(replica_id)
        if record is None:
            while len(self._records) >= MAX_RECORDS:
                del self._records[next(iter(self._records))]
            record = self._records[replica_id] = Record()
        return record

    # what the hub asks

    def peer(self, replica_id: str) -> Peer | None:
        """The established link to a replica."""
        return self._peers.get(replica_id)

    @property
    def peers(self) -> list[Peer]:
        """All established links."""
        return list(self._peers.values())

    def origin(self, cid: bytes) -> Peer | None:
        """The link to the hub where a flow's client is."""
        return self._origins.get(cid[:8])

    def was(self, instance: bytes) -> bool:
        """Whether this was a process of a replica that has since come back as another: its flows are gone."""
        return instance in self._former

    @property
    def healthy(self) -> bool:
        """Whether at least one link stands, or nobody is known to link to."""
        return bool(self._peers) or not (self._discovered or any(not route.own for route in self.routes.values()))

    @property
    def stale_epoch(self) -> int:
        """Frames of an older epoch dropped on mesh links, since the start."""
        return self._ended_stale + sum(peer.link.stale_epoch for peer in self._peers.values())

    def frames(self) -> dict[str, dict[str, int]]:
        """Frames "in" and "out" by type, over all links since the start."""
        total_in, total_out = (Counter(total) for total in self._ended_frames)
        for peer in self._peers.values():
            one_in, one_out = peer.link.counters()
            total_in.update(one_in)
            total_out.update(one_out)
        return {"in": dict(total_in), "out": dict(total_out)}

    def tick(self, now: float) -> None:
        """Keepalive and stall of every link; call about twice a second."""
        config = self.config
        for peer in [*self._handshakes, *self._peers.values()]:
            try:
                peer.link.tick(now, config.ping_interval_sec, config.ping_timeout_sec, self.stall, echo=config.ping_timeout_sec)
            except Exception:
                _log.exception("tick_failed")

    @staticmethod
    def _drops(peer: Peer) -> dict[tuple[str, str], int]:
        drops = {(peer.replica_id, "queue"): peer.link.drops_queue, (peer.replica_id, "away"): peer.link.drops_away}
        return {key: count for key, count in drops.items() if count}

    def snapshot(self) -> list[dict[str, Any]]:
        """One row a peer, for status and metrics; `stats.mesh_drops` is brought up to date on the way."""
        drops = Counter(self._ended_drops)
        rows: dict[str, dict[str, Any]] = {}
        now = self.net.clock()
        for peer in self._peers.values():
            drops.update(self._drops(peer))
            rows[peer.replica_id] = self._row(peer.replica_id, peer.way, now, peer)
        for route in self.routes.values():
            name = route.replica_id or route.url
            if not route.own and name not in rows and route.state is not LinkState.RESTING:
                rows[name] = self._row(name, route, now)
        for replica_id, record in self._records.items():
            if record.lost and replica_id not in rows and now - record.lost_at < LOST_SHOWN:
                rows[replica_id] = self._lost(replica_id, record, now)
        self.stats.mesh_drops = drops
        return [rows[name] for name in sorted(rows)]

    def _row(self, name: str, way: Way, now: float, peer: Peer | None = None) -> dict[str, Any]:
        record = self._records.get(name) or Record()
        route = way if isinstance(way, Route) else None
        link = peer.link if peer is not None else None
        return {
            "peer": name, "state": str(way.state), "url": way.url, "carrier": peer.carrier if peer is not None else None,
            "direction": "out" if peer is None or peer.dialled else "in", "breaker": route.backoff.breaker if route is not None else "closed",
            "rtt_ms": round(link.rtt * 1000, 3) if link is not None else None, "queued_frames": link.queued if link is not None else 0,
            "inflight_bytes": link.inflight if link is not None else 0, "relay_frames": link.relay_frames if link is not None else 0,
            "relay_bytes": link.relay_bytes if link is not None else 0, "flows": link.load if link is not None else 0,
            "since_sec": round(now - (peer.since if peer is not None else way.since), 3), "reconnects": record.reconnects,
            "errors": max(record.errors, route.errors if route is not None else 0),
            "last_error": (route.last_error if route is not None else "") or record.last_error,
        }

    def _lost(self, replica_id: str, record: Record, now: float) -> dict[str, Any]:
        """A replica that dialled us, and that we have no URL for."""
        way = Way(LinkState.LOST, self.net.clock)
        way.since = record.lost_at
        return self._row(replica_id, way, now) | {"direction": "in"}
