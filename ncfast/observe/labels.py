"""What the labels of counters may say: every value that is known, so that a series is there, at 0, before its first
event. A counter that is born with its first event has not increased by it, and no alert tells of that one.

Most of the words are of rooms further on in the arrow, which may not be imported here: `tests/observe/test_labels.py`
holds them against the code that counts. A word that is missing here costs its first event, and nothing else.
"""

from __future__ import annotations

from ncfast._frames import FrameType
from ncfast.core.errors import LINK_REASONS, Reason

FLOWS_CLOSED = tuple(reason.label for reason in Reason if Reason.NONE < reason < Reason.PROTOCOL_ERROR)
OPENS_REFUSED = ("no_agent", "overloaded", "agent_locked", "hold_timeout")
SHED = (
    *("fd", "listener_cap", "acl", "source_cap", "flow_cap", "memory", "rate"),
    *("proxy_header", "proxy_header_timeout", "first_byte_timeout", "draining"),
)
PROBES = ("proxy_local", "silent")
PATHS = ("local", "mesh")
RELOADS = ("ok", "refused")

TUNNELS_CLOSED = tuple(reason.label for reason in LINK_REASONS)
PROTOCOL_ERRORS = ("protocol_error", "message_too_big", "flood", "version")
CERTIFICATES_REFUSED = ("certificate", "forwarded_certificate", "forwarded_proto", "header_duplicate")
HANDSHAKES_REFUSED = (
    *("fd", "rate", "too_many_handshakes", "handshake_timeout", "tls", "websocket", "early_bytes"),
    *("request_line_too_long", "headers_too_large", "too_many_headers", "malformed", "host_header"),
    *("query", "origin", "body", "not_serving", "agent_cap", "agent_rate", "no_token", "agent_locked", "draining"),
    *CERTIFICATES_REFUSED,
)
AUTH_FAILED = (
    *("missing", "too_large", "malformed", "header", "algorithm", "signature", "unknown_key", "keys_unavailable"),
    *("missing_claim", "claim_type", "expired", "not_yet_valid", "lifetime", "subject", "audience", "issuer"),
    *("connectors", "tenant", "denied"),
    *("confirmation", "certificate_missing", "certificate_mismatch", "certificate_name"),
)
FRAMES = tuple(kind.name for kind in FrameType)
DIRECTIONS = ("in", "out")

MESH_DROPS = ("queue", "away")
MESH_REFUSED = (
    *("fd", "rate", "too_many_handshakes", "timeout", "tls", "websocket", "early_bytes"),
    *("request_line_too_long", "headers_too_large", "too_many_headers", "malformed", "host_header"),
    *("path", "origin", "body", "plain", "unproven", "no_certificates", "not_mesh", "proxy_untrusted"),
    *("no_client_certificate", *CERTIFICATES_REFUSED),
    *("version", "cluster", "identity", "replica_id", "misdirected", "secret", "superseded"),
)
REGISTRY_ERRORS = (
    *("timeout", "lost", "unreachable", "refused", "garbled", "internal", "away", "overloaded"),
    *("read_only", "loading", "master_down", "no_master", "cluster_down", "moved", "unauthorized", "out_of_memory"),
    *("command_denied", "key_denied", "channel_denied"),
)
CLAIMS = ("redis", "memory")
TAKEOVERS = ("fenced",)
HANDOVERS = ("done", "cut", "failed")
LEVEL_MOVES = ("asked", "done", "refused", "expired")
DECISIONS = ("local", "mesh", "none")
AGREES = ("yes", "no")
SERVED = ("here", "mesh", "nobody")  # by whom a client would be, in shadow mode
LOOKUPS = ("peer", "redis", "keys")  # what a hub looks names up for
LOOKUP_OUTCOMES = ("answered", "failed", "hung", "kept")
