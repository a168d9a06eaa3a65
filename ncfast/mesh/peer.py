"""One link between two hubs: the handshake, then what its frames mean.

A peer is the handler of its link. It decides nothing about other links: it asks the mesh whether it may stand, and
tells it what happened. Frames of flows pass in the core; only M_OPEN, M_RESUME and news of a higher epoch come here,
and go to the hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ncfast._frames import FrameType
from ncfast.core.errors import Reason, RemoteError
from ncfast.core.features import PACKED_OPEN
from ncfast.core.link import Link
from ncfast.core.messages import SOFTWARE, VERSION
from ncfast.mesh.binding import Binding, fits
from ncfast.mesh.handshake import NONCE_SIZE, Auth, Hello, HelloAck, proof, proves
from ncfast.mesh.states import LinkEvent, LinkState, Way
from ncfast.mesh.trust import Credential
from ncfast.observe import log

if TYPE_CHECKING:
    from ncfast.mesh.manager import Mesh

_log = log.get("mesh")

Greeting = TypeVar("Greeting", Hello, HelloAck)
Kind = TypeVar("Kind", Hello, HelloAck, Auth)

FEATURES = [PACKED_OPEN]  # what this hub can beyond version 1


class Peer:
    """Handler of a link to another hub. Until `established` nothing but the handshake is taken."""

    def __init__(
        self,
        mesh: Mesh,
        way: Way,
        credential: Credential,
        binding: Binding,
        *,
        dialled: bool,
        remote: str,
        carrier: str,
        tls: bool,
    ) -> None:
        self.mesh = mesh
        self.way = way
        self.credential = credential
        self.binding = binding
        self.dialled = dialled
        self.remote = remote  # address, for the log
        self.carrier = carrier  # stream or websocket
        self.tls = tls  # below it, as far as this end goes
        self.replica_id = ""
        self.instance = b""
        self.software = ""
        self.features: frozenset[str] = frozenset()
        self.packed_open = False  # reads that form of M_OPEN
        self.established = False
        self.announced = False  # the hub was told that we are up
        self.draining = False  # it has said that it goes
        self.parted = False  # we have said so to it, and are back
        self.since = mesh.net.clock()
        self.failure = ""  # the word for what went wrong, where the link's reason is too coarse
        self.link: Link = None  # type: ignore[assignment]  # set before any frame can come
        self._hello: Hello | None = None
        self._ack: HelloAck | None = None

    def start(self) -> None:
        """The link is there; the dialler speaks first."""
        if self.dialled:
            seen = self.binding
            self._hello = self._say(Hello, url=seen.url, place=seen.place, channel=seen.channel)
            self.link.send(FrameType.HELLO, self._hello.pack())

    def _say(self, kind: type[Greeting], **dialled: str) -> Greeting:
        mesh = self.mesh
        return kind(
            version=VERSION,
            cluster=mesh.cluster,
            replica_id=mesh.replica_id,
            instance=mesh.instance.hex(),
            nonce=mesh.net.entropy(NONCE_SIZE).hex(),
            features=FEATURES,
            software=SOFTWARE,
            **dialled,
        )

    def refuse(self, word: str, reason: Reason, detail: str) -> None:
        """Turns the far end away; counted and logged as a security event."""
        self.failure = word
        self.mesh.refused(word, self.remote, detail)
        self.link.fail(reason, detail)

    # frames of the handshake

    def _on_frame__hello(self, body: bytes) -> None:
        if self.dialled or self._hello is not None:
            self.refuse("malformed", Reason.PROTOCOL_ERROR, "a HELLO where none may come")
            return
        hello = self._read(Hello, body)
        if hello is None or not self._knows(hello) or not self._meant(hello):
            return
        self._hello = hello
        ack = self._say(HelloAck)
        if self.mesh.keys.secret is not None:
            ack = ack.model_copy(update={"proof": proof(self.mesh.keys.secret, "listener", hello, ack)})
        self._ack = ack
        self.link.send(FrameType.HELLO_ACK, ack.pack())

    def _on_frame__hello_ack(self, body: bytes) -> None:
        if not self.dialled or self._hello is None or self.established:
            self.refuse("malformed", Reason.PROTOCOL_ERROR, "a HELLO_ACK where none may come")
            return
        ack = self._read(HelloAck, body)
        if ack is None:
            return
        if ack.replica_id == self.mesh.replica_id and ack.instance == self.mesh.instance.hex():
            self.failure = "ourselves"
            self.link.fail(Reason.DUPLICATE, "the URL leads to this hub itself")
            return
        if not self._knows(ack) or not self._proved("listener", self._hello, ack, ack.proof):
            return
        self._ack = ack
        if not self._may_stand():
            return
        shown = proof(self.mesh.keys.secret, "dialler", self._hello, ack) if self.mesh.keys.secret is not None else None
        self.link.send(FrameType.AUTH, Auth(proof=shown).pack())
        self._welcome()

    def _on_frame__auth(self, code: int, body: bytes) -> None:
        if self.dialled or self._hello is None or self._ack is None or self.established:
            self.refuse("malformed", Reason.PROTOCOL_ERROR, "an AUTH where none may come")
            return
        auth = self._read(Auth, body)
        if auth is None or not self._proved("dialler", self._hello, self._ack, auth.proof):
            return
        if self._may_stand():
            self._welcome()

    def _read(self, kind: type[Kind], body: bytes) -> Kind | None:
        try:
            return kind.unpack(body)
        except RemoteError as exc:
            self.refuse("malformed", exc.reason, exc.detail)
            return None

    def _knows(self, hello: Hello) -> bool:
        """Whether the far end is of our cluster, speaks our version, and is who it says."""
        mesh = self.mesh
        if hello.version != VERSION:
            self.refuse("version", Reason.VERSION, f"speaks version {hello.version}, this hub speaks {VERSION}")
        elif hello.cluster != mesh.cluster:
            self.refuse("cluster", Reason.UNAUTHORIZED, "belongs to another cluster")
        elif not self.credential.admits(mesh.cluster, hello.replica_id):
            self.refuse(
                "identity", Reason.UNAUTHORIZED, "the certificate does not name the replica that HELLO claims to be"
            )
        elif self.way.expects not in ("", hello.replica_id):
            self.refuse(
                "identity", Reason.UNAUTHORIZED, "the URL is another replica's than HELLO_ACK says, by the registry"
            )
        elif hello.replica_id == mesh.replica_id and hello.instance != mesh.instance.hex():
            _log.error(
                "replica_id_in_use",
                replica=mesh.replica_id,
                remote=self.remote,
                detail="another hub has this hub's ha.replica_id; give each its own",
            )
            self.refuse("replica_id", Reason.UNAUTHORIZED, "another hub has this replica_id")
        else:
            self.replica_id = hello.replica_id
            self.instance = bytes.fromhex(hello.instance)
            self.software = hello.software
            self.features = frozenset(hello.features)
            self.packed_open = PACKED_OPEN in self.features
            return True
        return False

    def _meant(self, hello: Hello) -> bool:
        """Whether the dialler wanted us, and is at the other end of this very connection; only a secret proves what
        HELLO says of that."""
        mesh = self.mesh
        ended_here = self.credential.kind != "forwarded"
        if mesh.keys.secret is None or fits(hello, self.binding, ended_here=ended_here, urls=mesh.urls):
            return True
        self.refuse(
            "misdirected",
            Reason.UNAUTHORIZED,
            f"the peer has dialled {hello.url or 'it does not say what'}, and that is not known to lead here: if it"
            " does, add it to ha.mesh.aliases; else somebody is in between",
        )
        return False

    def _proved(self, role: str, hello: Hello, ack: Hello, shown: str | None) -> bool:
        secret = self.mesh.keys.secret
        if self.credential.stands if secret is None else proves(secret, role, hello, ack, shown):
            return True
        self.refuse("secret", Reason.UNAUTHORIZED, "does not prove that it knows ha.mesh.secret_file")
        return False

    def _may_stand(self) -> bool:
        reason = self.mesh.verdict(self)
        if reason is not None:
            self.link.fail(
                reason,
                "another link to this replica stands"
                if reason is Reason.DUPLICATE
                else "a newer process of this replica is connected",
            )
        return reason is None

    def _welcome(self) -> None:
        self.established = True
        self.since = self.mesh.net.clock()
        self.mesh.welcome(self)
        if not self.link.closed:
            self.link.ping()

    # frames of flows

    def _too_early(self) -> bool:
        if not self.established:
            self.refuse("malformed", Reason.PROTOCOL_ERROR, "HELLO comes first")
        return not self.established

    def _on_frame__open(self, cid: bytes, epoch: int, limit: int, body: bytes) -> None:
        if not self._too_early():
            self.mesh.host.mesh_open(self, cid, epoch, limit, body)

    def _on_frame__resume(self, cid: bytes, epoch: int, payload: bytes, ack: int, limit: int) -> bool:
        return self._too_early() or self.mesh.host.mesh_resume(self, cid, epoch, payload, ack, limit)

    def foreign(self, cid: bytes) -> bool:
        """Whether a flow that we do not have is the peer's own: we relay it no longer, and it may find another way. Or
        it is ours, and yet to come."""
        return not cid.startswith(self.mesh.instance) or self.mesh.host.awaits(cid)

    def _on_frame__lost(self, cid: bytes, newest: int) -> None:
        if newest and self.established:
            self.mesh.host.mesh_stale(self, cid, newest)

    def _on_frame__announce(self, body: bytes) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "hubs announce nothing to each other")

    def _on_frame__move(self, body: bytes) -> None:
        self.link.fail(Reason.PROTOCOL_ERROR, "hubs do not move")

    def _on_frame__goaway(self, reason: Reason) -> None:
        if reason >= Reason.PROTOCOL_ERROR:  # the last word of a peer that ends the link: a bare stream has no other
            self.failure = self.failure or f"peer_{reason.label}"
            self.link.fail(reason, "the peer has ended the link")
        elif not self._too_early() and not self.draining:
            self.draining = True
            if self.way.state is LinkState.UP:
                self.way.move(LinkEvent.GOAWAY)
            _log.info("mesh_link_draining", replica=self.replica_id)

    # link

    def link_rtt(self, link: Link, seconds: float) -> None:
        if self.established:
            self.mesh.stats.mesh_rtt.observe(seconds)

    def link_ended(self, link: Link, reason: Reason, detail: str) -> None:
        self.mesh.ended(self, reason, detail)
