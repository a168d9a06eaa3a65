"""The ``ha`` section: several hubs as one cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ncfast.config.sections import GIB, KIB, MIB, Section, key
from ncfast.config.values import (
    Address,
    Bytes,
    Count,
    FilePath,
    MeshUrl,
    Name,
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

    listen: Address | None = key(None, why="Where the other replicas connect.")
    peers: list[MeshUrl] = key([], why="The other replicas, as wss://host/mesh.")
    require_mtls: Switch = key(
        True, why="Both ends show a certificate of the mesh's CA. Turn it off only in a test."
    )
    tls: MeshTls | None = key(None, why="Certificates of the mesh.")
    send_queue_depth: Count = key(
        1000,
        ge=16,
        le=1_000_000,
        unit="frames",
        why="Frames that may wait for one link's socket; then sources pause.",
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

    @model_validator(mode="after")
    def _mtls_has_certificates(self) -> Mesh:
        used = self.listen is not None or bool(self.peers)
        if self.require_mtls and used and self.tls is None:
            raise fault("require_mtls needs certificates", "add the tls section", "require_mtls", "tls")
        if self.require_mtls and any(peer.startswith("ws://") for peer in self.peers):
            raise fault(
                "require_mtls, but a peer is reached by ws://", "write wss://", "peers", "require_mtls"
            )
        return self


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
    replica_id: Name | None = key(
        None, why="This hub's name in the cluster; unique and stable over restarts."
    )
    redis_url: RedisUrl | None = key(
        None, why="The shared registry; without it the registry is in memory. Password by ${NAME} only."
    )
    mesh: Mesh = key(default_factory=Mesh, why="Links to the other hubs.")

    @model_validator(mode="after")
    def _replica_is_named(self) -> Ha:
        if self.enabled and self.replica_id is None:
            raise fault(
                "ha is enabled and the replica has no name", "add replica_id: hub-a", "", "replica_id"
            )
        return self
