"""The mesh: which peers there are, which links stand, who is dialled.

Of two links to one replica the one that the hub with the smaller replica_id has dialled stays, at both ends; so two
hubs that dial each other at once settle on one without a word more. A peer that comes as another process replaces its
former link at once. The hub whose dial would have to yield does not dial while a link stands; the other does so once
more when a link that it accepted comes up, so that in the end the link that stays is the same whoever came first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from websockets.http11 import Request

from ncfast._frames import FrameType
from ncfast.config.hub import HubConfig
from ncfast.core.errors import Blame, Reason, blame
from ncfast.mesh.accounts import Accounts
from ncfast.mesh.door import Door
from ncfast.mesh.host import MeshGround, PeerHost, Replica
from ncfast.mesh.keyring import Keyring
from ncfast.mesh.learnt import MAX_DIALS, Learnt
from ncfast.mesh.peer import Peer
from ncfast.mesh.policy import Policy
from ncfast.mesh.route import HEAD_START, Route
from ncfast.mesh.states import LinkEvent, LinkState
from ncfast.net.links import LinkBounds
from ncfast.net.request import Response
from ncfast.observe import log
from ncfast.observe.totals import LinkTotals

_log = log.get("mesh")

HELLO_TIMEOUT = 5.0  # seconds from a link's first byte to its handshake's end
MEMORY = 4096  # instances of former processes remembered, 64 bytes each


class Mesh:
    """`await start()`, then `tick` about twice a second, until `await stop()`."""

    def __init__(self, ground: MeshGround, host: PeerHost) -> None:
        self.ground = ground
        self.host = host
        self.net = ground.net
        self.stats = ground.stats
        self.replica_id = ground.replica_id
        self.instance = ground.instance
        self.cluster = ground.config.ha.cluster
        self.leaving = False
        self.keys = Keyring(ground.net, self.cluster, ground.replica_id)
        self.door = Door(self)
        self.accounts = Accounts(ground.net.clock)
        self.routes: dict[str, Route] = {}
        self._take(ground.config)
        self._handshakes: dict[Peer, asyncio.TimerHandle] = {}
        self._peers: dict[str, Peer] = {}
        self._origins: dict[bytes, Peer] = {}
        self._former: OrderedDict[bytes, None] = OrderedDict()
        self._discovered: set[str] = set()
        self._running = False
        self.dials = asyncio.Semaphore(MAX_DIALS)  # to URLs that only the registry knows
        self.retiring = False  # no new links; those that carry flows stand until these have ended

    # life

    async def start(self) -> None:
        """Listens and begins to dial. Raises OSError, with the remedy, when an address cannot be bound or a file cannot
        be used; nothing stays open then."""
        try:
            self.keys.use(self.config, self.keys.load(self.config))
            await self.door.open()
        except OSError:
            self.keys.close()
            raise
        self._begin()

    def _begin(self) -> None:
        self._running = True
        self._list("config", dict.fromkeys(self.config.peers, ""))
        _log.info("mesh_ready", bind=self.address, replica=self.replica_id, count=len(self.config.peers))

    async def stop(self) -> None:
        """Ends everything; peers are told that we go."""
        self._running = False
        self.door.close()
        self.keys.close()
        self._unlist()
        for peer in [*self._handshakes, *self._peers.values()]:
            peer.link.fail(Reason.GOING_AWAY, "this hub stops")
        await asyncio.sleep(0)  # cancelled dials close their connections

    def part(self) -> None:
        """Ends all links without a word of leaving, and takes none: a successor of our name has our place. Where we
        listen stays bound."""
        self._running = False
        self.door.hold()
        self._unlist()
        for peer in [*self._handshakes, *self._peers.values()]:
            peer.link.fail(Reason.GOING_AWAY, "another process of this hub goes on")

    def go_on(self) -> None:
        """After `part`: there is no successor after all. One that retires stays without links."""
        if not self.retiring:
            self.door.go_on()
            self._begin()

    def _unlist(self) -> None:
        for route in self.routes.values():
            route.drop()
        self.routes.clear()

    def retire(self) -> None:
        """No new links, and no new flows on those that stand; each ends when it carries nothing any more."""
        self._running = False
        self.retiring = True
        self.door.close()
        self._unlist()
        for peer in list(self._handshakes):
            peer.link.fail(Reason.GOING_AWAY, "this hub leaves the mesh")
        self.say_leaving()
        self._let_go()

    async def rejoin(self, config: HubConfig) -> None:
        """Takes part again, after `retire`. On links that stand we have said that we go, which cannot be taken back:
        each carries its flows until another takes its place, however long that is. Raises OSError, and retires on
        then."""
        self.configure(config)
        door = Door(self)
        await door.open()
        self.door = door
        self.retiring = self.leaving = False
        for peer in self.peers:
            peer.parted = True
        self._begin()

    def _let_go(self) -> None:
        for peer in self.peers:
            if not peer.link.load:
                peer.link.fail(Reason.GOING_AWAY, "this hub has left the mesh, and no flow needs the link")

    @property
    def running(self) -> bool:
        """Whether there may be new links."""
        return self._running

    @property
    def retired(self) -> bool:
        """Whether the last link is gone."""
        return self.retiring and not self._peers

    @property
    def address(self) -> str:
        """Where we listen, host:port as bound, or the Unix socket's path; "" if nowhere."""
        return self.door.address

    def say_leaving(self) -> None:
        """Tells every peer, also those that come later, that we drain, or leave the mesh: no new flows."""
        self.leaving = True
        for peer in self._peers.values():
            peer.link.send(FrameType.GOAWAY, code=Reason.DRAINING)

    # configuration

    def configure(self, config: HubConfig) -> None:
        """Takes peers, certificates, secret, proxies, bounds and times from a new configuration. Where we listen stays,
        and so do links that stand. Raises OSError, and then nothing has changed."""
        keys = self.keys.load(config.ha.mesh)
        self._take(config)
        self.keys.use(self.config, keys)
        for route in self.routes.values():
            route.breaker.bound(self.config.connect_backoff_max_sec)
        if self._running:
            self._list("config", dict.fromkeys(self.config.peers, ""))

    def _take(self, config: HubConfig) -> None:
        self.config = config.ha.mesh
        self.stall = config.flow.stall_sec
        self.learnt = Learnt(self.config)
        self.bounds = LinkBounds.of_mesh(config.ha.mesh, config.tunnel)

    @property
    def policy(self) -> Policy:
        """Which ways in are open."""
        return Policy(self.config.require_mtls, self.keys.secret is not None, self.config.trusted_proxies)

    @property
    def urls(self) -> list[str]:
        """Under which the others may have dialled us."""
        return [*([self.config.advertise] if self.config.advertise else ()), *self.config.aliases]

    # who is dialled

    def discovered(self, replicas: Iterable[Replica]) -> None:
        """The hubs that the registry knows: those with a mesh URL are dialled as well."""
        others = {one.replica_id: one for one in replicas if one.replica_id != self.replica_id}
        self._discovered = set(others)
        if not self._running:
            return
        self._list("registry", self.learnt.choose(others.values(), self.routes))
        for one in others.values():
            route = self.routes.get(one.mesh_url)
            if route is not None and route.instance != one.instance:
                route.instance = one.instance  # it has restarted
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
        return standing is not None and not standing.parted and (standing.dialled or self._yields(route.replica_id))

    # who comes in

    def refused(self, reason: str, remote: str, detail: str) -> None:
        """Somebody was turned away. `detail` is in our own words."""
        self.stats.mesh_refused[reason] += 1
        log.security("mesh_refused", reason=reason, remote=remote, detail=detail)

    def serve_http(self, request: Request, transport: Any, *, host: str | None, remote: str) -> Response | None:
        """Answers a request for /mesh that came to the public edge from the address `host` (`remote`: with the port,
        for the log). None: it was answered with 101, and the transport is a link's from now on; whoever calls lets go
        of it. Otherwise the caller sends the answer and closes."""
        return self.door.serve_http(request, transport, host=host, remote=remote, names=None, machine=False)

    # handshakes

    def greet(self, peer: Peer) -> None:
        """A link is there and its handshake begins."""
        self._handshakes[peer] = self.net.call_later(HELLO_TIMEOUT, self._late, peer)

    def _late(self, peer: Peer) -> None:
        peer.refuse("timeout", Reason.HANDSHAKE_TIMEOUT, f"the handshake was not over within {HELLO_TIMEOUT:g} s")

    def verdict(self, peer: Peer) -> Reason | None:
        """Why a link whose far end has proved itself may not stand beside what there is; None: it may, in place of
        that."""
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
        if standing.parted or standing.draining:
            return None  # one of us had said that it goes, and has come back
        if standing.dialled == peer.dialled:
            stays = not peer.dialled  # the far end has given the old one up; we have two URLs for one replica
        else:
            stays = peer.dialled != self._yields(peer.replica_id)
        if stays:
            return None
        standing.link.ping()  # should the far end know better, and have lost it: then we soon know, too
        return Reason.DUPLICATE

    def welcome(self, peer: Peer) -> None:
        """The link stands; another to the same replica is ended."""
        self._over(peer)
        replica_id = peer.replica_id
        former = self._peers.get(replica_id)
        self._peers[replica_id] = self._origins[peer.instance] = peer
        self._former.pop(peer.instance, None)
        record = self.accounts.record(replica_id)
        if record.instance not in (b"", peer.instance):  # its link may be long gone
            self._former[record.instance] = None
            while len(self._former) > MEMORY:
                self._former.popitem(last=False)
        record.instance = peer.instance
        peer.way.move(LinkEvent.WELCOMED)
        self.stats.mesh_reconnects += self.accounts.came(replica_id)
        _log.info(
            "mesh_link_up",
            replica=replica_id,
            remote=peer.remote,
            url=peer.way.url or None,
            carrier=peer.carrier,
            tls=peer.tls,
            direction="out" if peer.dialled else "in",
            software=peer.software,
        )
        if former is not None:
            self._replace(former, peer)
        peer.announced = True
        self.host.peer_up(peer)
        if self.leaving:
            peer.link.send(FrameType.GOAWAY, code=Reason.DRAINING)
        self._settle(peer)

    def _replace(self, former: Peer, peer: Peer) -> None:
        if former.instance == peer.instance:
            reason = Reason.DUPLICATE if former.dialled != peer.dialled else Reason.SUPERSEDED
            former.link.fail(reason, "another link to this replica stays")
            return
        self._origins.pop(former.instance, None)
        former.link.fail(Reason.SUPERSEDED, "the replica has come back as another process")

    def _settle(self, peer: Peer) -> None:
        """What the new link means for URLs that wait: rest, or try now."""
        for route in list(self.routes.values()):
            if route is peer.way:
                continue
            if not route.replica_id or (route.replica_id == peer.replica_id and not self.may_rest(route)):
                route.hurry()  # it may well be there
            elif route.replica_id == peer.replica_id:
                route.rest()

    def _over(self, peer: Peer) -> None:
        """No longer in its handshake."""
        self.door.left(peer)
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
            self.accounts.went(peer, reason, error=error, alone=current)
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

    def _tell(self, peer: Peer, reason: Reason, detail: str, error: bool) -> None:
        level = _log.warning if error else _log.info if peer.established else _log.debug
        level(
            "mesh_link_down",
            replica=peer.replica_id if peer.established else None,
            remote=peer.remote,
            url=peer.way.url or None,
            reason=reason.label,
            detail=detail,
            direction="out" if peer.dialled else "in",
            connected_sec=round(self.net.clock() - peer.since, 3) if peer.established else None,
        )

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

    def tick(self, now: float) -> None:
        """Keepalive and stall of every link; call about twice a second."""
        config = self.config
        if self.retiring:
            self._let_go()
        for peer in [*self._handshakes, *self._peers.values()]:
            try:
                peer.link.tick(
                    now, config.ping_interval_sec, config.ping_timeout_sec, self.stall, echo=config.ping_timeout_sec
                )
            except Exception:
                _log.exception("tick_failed")

    # what is seen of it

    def totals(self) -> LinkTotals:
        """What all links have counted since the start."""
        return self.accounts.totals(self._peers.values())

    def snapshot(self) -> list[dict[str, Any]]:
        """One row a peer, for status and metrics; `stats.mesh_drops` is brought up to date on the way."""
        self.stats.mesh_drops = self.accounts.drops(self._peers.values())
        return self.accounts.rows(self._peers.values(), self.routes.values())
