"""What the registry knows: agents and replicas, and how they are written down.

A record is text: fields that scripts compare, one a line, then a JSON object that they only pass on. Whoever can write
to Redis could write anything, so a record that is not as we write it reads as None and never raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from ncfast.core.epochs import LARGEST

EMPTY: frozenset[str] = frozenset()
DEFAULT_WEIGHT = 100  # of `ha.level.weight`


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """An agent that some hub holds a tunnel of."""

    key: str  # "tenant/agent_id", as Identity.key; the tenant is empty if there is none
    owner: str  # replica_id
    epoch: int
    instance: str = ""  # the agent's process, hex
    connectors: frozenset[str] = EMPTY
    window: int = 0  # bytes that the agent lets a new flow send at once
    draining: bool = False
    owner_instance: str = ""  # the owner's process: an entry of a process that is gone is worth nothing

    @property
    def tenant(self) -> str | None:
        return self.key.partition("/")[0] or None

    @property
    def agent_id(self) -> str:
        return self.key.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Replica:
    """A hub that takes part in the cluster."""

    replica_id: str
    instance: str  # 16 hex digits, new with each process: the first half of its flows' cids
    mesh_url: str = ""  # where the others reach it; empty if nowhere
    draining: bool = False
    weight: int = DEFAULT_WEIGHT  # of its share of the agents; hubs that say none have the default


def body_of(entry: AgentEntry) -> bytes:
    """The part of an agent's record that scripts do not look into; equal entries give equal bytes."""
    return orjson.dumps(
        {
            "instance": entry.instance,
            "connectors": sorted(entry.connectors),
            "window": entry.window,
            "draining": entry.draining,
        }
    )


def read_agent(key: str, record: bytes) -> AgentEntry | None:
    """``epoch, owner, owner's process, JSON``, one a line."""
    try:
        epoch, owner, owner_instance, body = record.split(b"\n", 3)
        fields = orjson.loads(body)
        entry = AgentEntry(
            key,
            owner.decode(),
            _number(int(epoch)),
            _text(fields["instance"]),
            _names(fields["connectors"]),
            _number(fields["window"]),
            fields["draining"] is True,
            owner_instance.decode(),
        )
    except (ValueError, KeyError, TypeError):
        return None
    return entry if "/" in key else None


def replica_body(replica: Replica) -> bytes:
    """The part of a replica's record that scripts do not look into."""
    return orjson.dumps({"mesh_url": replica.mesh_url, "draining": replica.draining, "weight": replica.weight})


def read_replica(replica_id: str, record: bytes) -> Replica | None:
    """``process, when it began (ms), JSON``, one a line."""
    try:
        instance, _, body = record.split(b"\n", 2)
        fields = orjson.loads(body)
        return Replica(
            replica_id,
            instance.decode(),
            _text(fields["mesh_url"]),
            fields["draining"] is True,
            _number(fields.get("weight", DEFAULT_WEIGHT)),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError("not a number")
    return value


def _names(value: Any) -> frozenset[str]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return frozenset(map(_text, value))
