"""The flows of a hub one by one, for people: who holds the memory, who moves the bytes, what stands still; and one of
them ended by hand.

A hub has a hundred thousand flows, and whoever asks wants the first few. All are measured once, a slice at a time, and
the first by the measure are kept; what ends meanwhile is in no row. Flows of other hubs' clients, which are only
relayed here, are among them: their bytes wait here, what else there is to know of them is known at their origin.
"""

from __future__ import annotations

import heapq
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeAlias

from ncfast.core.errors import NcfastError, Reason
from ncfast.core.relay import Relay
from ncfast.core.states import FlowState
from ncfast.hub.client import ClientFlow
from ncfast.hub.ground import Ground
from ncfast.hub.relays import Relayed, Relays
from ncfast.observe.log import mask_address
from ncfast.observe.slices import Slices, each

MEASURED = 256  # flows in one slice, about 0.5 ms
SHOWN = 64  # rows made in one slice, the same
FIRST = 20  # rows, if nobody says
MOST = 1000  # rows; some 400 KiB
TALKERS = 5  # of each order, in /status
CID_SIZE = 16  # bytes

Rows = list[dict[str, Any]]
Measured: TypeAlias = "tuple[int, float, int, float, ClientFlow | Relay[Relayed]]"
ORDERS = ("held", "age", "moved", "idle")  # the places of a measure in `Measured`: bytes, seconds, bytes, seconds


class QueryRefused(NcfastError):
    """Not a question that can be answered; the text says why."""


class NoSuchFlow(NcfastError):
    """No flow of that cid is here."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which flows, in which order, how many. None: whoever it is."""

    order: str = "held"
    top: int = FIRST
    listener: str | None = None
    agent: str | None = None  # its id, or tenant/id
    client: str | None = None  # as it is shown: an address with its port or without, or what the masking made of it

    @classmethod
    def read(cls, text: str) -> Query:
        """From a request's query. Raises QueryRefused."""
        asked = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
        if unknown := asked.keys() - {"order", "top", "listener", "agent", "client"}:
            raise QueryRefused(f"{min(unknown)!r} is none of order, top, listener, agent, client")
        order, top = asked.pop("order", "held"), asked.pop("top", str(FIRST))
        if order not in ORDERS:
            raise QueryRefused(f"order is one of {', '.join(ORDERS)}")
        if not (top.isascii() and top.isdigit() and len(top) <= 4 and 1 <= int(top) <= MOST):
            raise QueryRefused(f"top is 1 to {MOST}")
        return cls(order, int(top), **asked)

    def wants(self, flow: ClientFlow | Relay[Relayed]) -> bool:
        info = flow.info
        if isinstance(info, Relayed):
            return self.listener is None and self.client is None and self.agent in (None, *_names(info.session.key))
        if self.listener is not None and info.listener.name != self.listener:
            return False
        if self.agent is not None and self.agent not in _names(info.agent_key):
            return False
        # never by the address itself: who may not see it could find it out by asking
        return self.client is None or self.client in (mask_address(info.client), mask_address(info.ends[0]))


def _names(key: str) -> tuple[str, str]:
    """How an agent may be called: id and, as the table writes it, tenant/id."""
    return key.partition("/")[2], key


class Flows:
    """Those of one hub."""

    def __init__(self, ground: Ground, relays: Relays) -> None:
        self._ground = ground
        self._relays = relays

    def select(self, query: Query) -> Slices[dict[str, Any]]:
        """The document of /flows."""
        matching = held = 0
        kept: list[Measured] = []
        order = itemgetter(ORDERS.index(query.order))
        for some in self._slices():
            measured = [self._measure(flow) for flow in some if query.wants(flow)]
            matching += len(measured)
            held += sum(one[0] for one in measured)
            kept = heapq.nlargest(query.top, [*kept, *measured], order)
            yield
        rows: Rows = []
        yield from each(kept, SHOWN, lambda some: rows.extend(map(self._row, some)))
        context = self._ground.context
        return {
            "replica_id": self._ground.replica_id,
            "order": query.order,
            "active": len(self._ground.flows),
            "relayed": len(self._relays.by_cid),
            "matching": matching,
            "matching_held_bytes": held,
            "memory": {
                "budget_bytes": context.budget.size,
                "held_bytes": context.held,
                "relayed_bytes": context.relayed,
            },
            "flows": rows,
        }

    def talkers(self) -> Slices[Rows]:
        """The first few in each order but `idle`, each flow once."""
        first: dict[str, list[Measured]] = {order: [] for order in ORDERS if order != "idle"}
        for some in self._slices():
            measured = list(map(self._measure, some))
            for order, kept in first.items():
                first[order] = heapq.nlargest(TALKERS, [*kept, *measured], itemgetter(ORDERS.index(order)))
            yield
        chosen = {one[-1].cid: one for kept in first.values() for one in kept}
        return [self._row(one) for one in chosen.values()]

    def kill(self, cid: str) -> dict[str, Any]:
        """Ends a flow now, at both ends, as `killed`; says which it was. Raises NoSuchFlow."""
        try:
            key = bytes.fromhex(cid)
        except ValueError:
            key = b""
        flow = self._ground.flows.get(key) if len(key) == CID_SIZE else None
        if flow is not None:
            row = self._row(self._measure(flow))
            flow.cut(Reason.KILLED)
            return row
        relay = self._relays.by_cid.get(key)
        if relay is None:
            raise NoSuchFlow("no such flow: it is over, or another hub's; `ncfast flows` lists those that are here")
        row = self._row(self._measure(relay))
        self._relays.kill(relay)
        return row

    def _slices(self) -> Iterator[Iterable[ClientFlow | Relay[Relayed]]]:
        ours: list[ClientFlow] = list(self._ground.flows.values())
        for start in range(0, len(ours), MEASURED):
            yield (flow for flow in ours[start : start + MEASURED] if not flow.closed)
        relays = list(self._relays.by_cid.values())
        for start in range(0, len(relays), MEASURED):
            yield (one for one in relays[start : start + MEASURED] if self._relays.by_cid.get(one.cid) is one)

    def _measure(self, flow: ClientFlow | Relay[Relayed]) -> Measured:
        now = self._ground.clock()
        if isinstance(flow, Relay):
            return flow.up.unsent_bytes + flow.down.unsent_bytes, now - flow.info.since, 0, 0.0, flow
        held = flow.backlog + max(0, flow.snd_nxt - flow.snd_una)
        return held, now - flow.info.accepted_at, flow.snd_nxt + flow.rcv_nxt, max(0.0, now - flow.since), flow

    def _row(self, one: Measured) -> dict[str, Any]:
        held, age, _, idle, flow = one
        if isinstance(flow, Relay):
            return self._relayed(flow, held, age)
        info = flow.info
        return {
            "cid": flow.cid.hex(),
            "path": info.path,
            "state": FlowState(flow.state).name.lower(),
            "listener": info.listener.name,
            "connector": info.connector,
            "tenant": info.listener.tenant,
            "agent_id": info.agent_key.partition("/")[2] or None,
            "hub": info.owner if info.remote else None,
            "client": mask_address(info.client),
            "age_sec": round(age, 3),
            "idle_sec": round(idle, 3),
            "bytes_in": flow.snd_nxt,
            "bytes_out": flow.rcv_nxt,
            "held_bytes": held,
            "to_client_bytes": flow.backlog,
            "detached": flow.detached_at >= 0,
            "resumes": info.resumes,
        }

    def _relayed(self, relay: Relay[Relayed], held: int, age: float) -> dict[str, Any]:
        session = relay.info.session
        return {
            "cid": relay.cid.hex(),
            "path": "relayed",
            "state": None,
            "listener": None,
            "connector": None,
            "tenant": session.identity.tenant,
            "agent_id": session.agent_id,
            "hub": self._relays.origin(relay),
            "client": None,
            "age_sec": round(age, 3),
            "idle_sec": None,
            "bytes_in": None,
            "bytes_out": None,
            "held_bytes": held,
            "to_client_bytes": relay.up.unsent_bytes,
            "detached": relay.mesh is None,
            "resumes": None,
        }
