"""The ``ha`` section: several hubs as one cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ncfast.config.sections import GIB, KIB, MIB, Section, key, section
from ncfast.config.values import (
    CIDR,
    Address,
    Bytes,
    Count,
    FilePath,
    MeshPlace,
    MeshUrl,
    Name,
    Rate,
    RedisUrl,
    Seconds,
    Switch,
    fault,
)


class MeshTls(Section):
    """Certificates of the mesh: a CA of its own, and this replica's certificate."""

    ca_bundle: FilePath = key(why="CA that signed every replica's certificate, PEM.")
    cert_file: FilePath = key(why="This replica's certificate chain, PEM.")
    key_file: FilePath = key(why="Private key of cert_file, PEM, without a passphrase.")


class Mesh(Section):
    """Links between the hubs of a cluster."""

    listen: Address | None = key(
        None, why="Where the other replicas connect: TLS with require_mtls, HTTP (/mesh) from trusted_proxies."
    )
    listen_unix: FilePath | None = key(
        None, why="The same on a Unix socket, for replicas of one machine; its file permissions are the guard."
    )
    advertise: MeshUrl | None = key(
        None,
        why=(
            "The URL under which the other replicas reach this one, put into the registry; without it what"
            " listen says, unless that is a wildcard."
        ),
    )
    peers: list[MeshUrl] = key(
        [],
        why=(
            "The other replicas: tls://host:port (raw, mutual TLS), tcp://host:port or unix:///path (raw), or"
            " wss://host/mesh (through an HTTP ingress). Replicas that the registry knows are dialled as well."
        ),
    )
    require_mtls: Switch = key(True, why="Both ends show a certificate of the mesh's CA. Turn it off only in a test.")
    tls: MeshTls | None = key(None, why="Certificates of the mesh.")
    secret_file: FilePath | None = key(
        None,
        why=(
            "A secret that all replicas share and prove to each other; without mutual TLS only it lets peers"
            " of other machines in."
        ),
    )
    trusted_proxies: list[CIDR] = key(
        [], why="Ingresses that end the peers' mutual TLS: their client certificate headers count on /mesh."
    )
    aliases: list[MeshUrl] = key(
        [],
        why=(
            "Other URLs than advertise under which the replicas reach this one through a balancer, a proxy or NAT: with"
            " a secret, a peer that has dialled what is not known to lead here is turned away."
        ),
    )
    allow: list[MeshPlace] = key(
        [],
        why=(
            "Where URLs may lead that only the registry knows: networks, host names, domains as '.example.net'. Empty:"
            " anywhere but to link-local addresses, and to loopback only if the mesh listens there."
        ),
    )
    send_queue_depth: Count = key(
        1000,
        ge=16,
        le=1_000_000,
        unit="frames",
        why="Frames that may wait for one link's socket; then sources pause, and a relay drops and counts.",
    )
    per_link_max_inflight_bytes: Bytes = key(
        8 * MIB, ge=64 * KIB, le=4 * GIB, unit="bytes", why="Bytes on one link that are not yet acknowledged."
    )
    connect_backoff_max_sec: Seconds = key(
        30,
        gt=0,
        le=3600,
        unit="s",
        why="The longest pause between two attempts to reach a peer (full jitter below it).",
    )
    ping_interval_sec: Seconds = key(1, ge=0.1, le=60, unit="s", why="Between two keepalive pings of a link.")
    ping_timeout_sec: Seconds = key(
        3, ge=0.3, le=300, unit="s", why="A link on which nothing is heard, or no ping answered, for so long is lost."
    )

    @property
    def used(self) -> bool:
        """Whether this hub takes part in a mesh that its file names; peers may also come from the registry."""
        return self.listen is not None or self.listen_unix is not None or bool(self.peers)

    @model_validator(mode="after")
    def _mtls_has_certificates(self) -> Mesh:
        remote = [peer for peer in self.peers if not peer.startswith("unix://")]
        if self.require_mtls and (self.listen is not None or remote) and self.tls is None:
            raise fault("require_mtls needs certificates", "add the tls section", "require_mtls", "tls")
        if self.tls is None and any(peer.startswith("tls://") for peer in self.peers):
            raise fault("a peer is reached by tls://", "add the tls section", "peers", "tls")
        if self.require_mtls and any(peer.startswith("ws://") for peer in self.peers):
            raise fault("require_mtls, but a peer is reached by ws://", "write wss://", "peers", "require_mtls")
        if self.require_mtls and any(peer.startswith("tcp://") for peer in self.peers):
            raise fault("require_mtls, but a peer is reached by tcp://", "write tls://", "peers", "require_mtls")
        bare = self.listen is not None or any(peer.startswith(("tcp://", "ws://")) for peer in self.peers)
        if not self.require_mtls and bare and self.tls is None and self.secret_file is None:
            raise fault(
                "nothing would prove who a peer is, on loopback either",
                "add secret_file (openssl rand -hex 32), or tls and require_mtls: true",
                "require_mtls",
                "secret_file",
            )
        if self.ping_timeout_sec <= self.ping_interval_sec:
            raise fault(
                "must be longer than ping_interval_sec",
                "three times as long is usual",
                "ping_timeout_sec",
                "ping_interval_sec",
            )
        return self


class Level(Section):
    """Agents are asked to move from hubs that have more than their share to those that have less; no byte is lost."""

    enabled: Switch = key(True, why="Ask agents to move, if this hub has more than its share.")
    weight: Count = key(
        100,
        ge=0,
        le=1000,
        unit="parts",
        why=(
            "This hub's share of all agents, against the other hubs' weights: half the weight, half as many agents."
            " 0: none, those that are here are asked to move."
        ),
    )
    moves_per_sec: Rate = key(
        2, gt=0, le=1000, unit="1/s", why="How many agents this hub asks to move, at most: slow is kind to the others."
    )
    rest_sec: Seconds = key(
        60,
        ge=0.1,
        le=86400,
        unit="s",
        why="An agent that has come here is left alone for so long; one that did not move, for five times as long.",
    )


class Ha(Section):
    """Several hubs as one cluster."""

    enabled: Switch = key(False, why="Take part in a cluster.")
    mode: Literal["off", "shadow", "active"] = key(
        "off",
        why=(
            "off: serve local agents only. shadow: the same, and compute, count and compare what active would"
            " have decided. active: serve agents of the other hubs too."
        ),
    )
    replica_id: Name | None = key(None, why="This hub's name in the cluster; unique and stable over restarts.")
    cluster: Name = key(
        "ncfast", why="The cluster's name: prefix of its keys in Redis, part of the replicas' certificate URIs."
    )
    redis_url: RedisUrl | None = key(
        None,
        why=(
            "The shared registry: redis://, rediss:// (TLS), unix:// or redis+sentinel://host:port,host:port/service;"
            " without it the registry is in memory. Password by redis_password_file, or by ${NAME}."
        ),
    )
    redis_password_file: FilePath | None = key(
        None, why="The password for Redis, one line, in place of one in redis_url. Read again for the next connection."
    )
    redis_ca_file: FilePath | None = key(None, why="CA bundle to trust for rediss:// instead of the system's, PEM.")
    redis_cert_file: FilePath | None = key(
        None, why="Certificate chain to show to Redis (rediss://, tls-auth-clients), PEM. Read again when it changes."
    )
    redis_key_file: FilePath | None = key(
        None, why="Private key of redis_cert_file, PEM, without a passphrase. Read again when it changes."
    )
    redis_timeout_sec: Seconds = key(
        0.3, ge=0.02, le=10, unit="s", why="How long one command may take; it is tried twice."
    )
    lease_sec: Seconds = key(
        5, ge=1, le=300, unit="s", why="A hub that has not renewed its presence for so long counts as gone."
    )
    without_redis: Literal["local_only", "last_view"] = key(
        "last_view",
        why=(
            "While Redis is away; /readyz says degraded in either case. last_view: new clients go to the agents of"
            " other hubs as Redis last had them, and each owner checks that it still is. local_only: agents of other"
            " hubs take no new clients."
        ),
    )
    mesh: Mesh = section(why="Links to the other hubs.")
    level: Level = section(why="Agents spread evenly over the hubs.")

    @model_validator(mode="after")
    def _redis_files_fit(self) -> Ha:
        cert, key_file, url = self.redis_cert_file, self.redis_key_file, self.redis_url or ""
        if (cert is None) != (key_file is None):
            given, lacking = ("redis_cert_file", "redis_key_file")[:: 1 if cert else -1]
            raise fault(f"{given} without {lacking}", "a certificate and its key belong together", given, lacking)
        if cert is not None and not url.startswith("rediss"):
            raise fault("redis_cert_file, and Redis is not reached by TLS", "write rediss://", "redis_cert_file")
        if self.redis_password_file is not None:
            user = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
            if not url:
                raise fault("redis_password_file without redis_url", "add redis_url", "redis_password_file")
            if ":" in user and user.partition(":")[2]:
                raise fault(
                    "redis_password_file beside a password in redis_url", "keep one of them", "redis_password_file"
                )
        return self

    @model_validator(mode="after")
    def _replica_is_named(self) -> Ha:
        if self.enabled and self.replica_id is None:
            raise fault("ha is enabled and the replica has no name", "add replica_id: hub-a", "", "replica_id")
        return self
