"""What a reader asked for: which agents, in which order, live or standing still. Made from a query, and back to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

ROWS = 50  # agents on one page
LONGEST = 64  # characters of a filter

Row = dict[str, Any]


def state(agent: Row) -> str:
    """Of an agent, in one word."""
    return "draining" if agent["draining"] else "standby" if agent.get("standby") else "up"


ORDERS: dict[str, Callable[[Row], Any]] = {  # by the word in the query
    "agent": lambda agent: agent["agent_id"],
    "from": lambda agent: agent["remote"],
    "rtt": lambda agent: agent["rtt_ms"] or 0.0,
    "flows": lambda agent: agent["flows"],
    "received": lambda agent: agent["bytes_in"],
    "sent": lambda agent: agent["bytes_out"],
    "connected": lambda agent: agent["connected_sec"],
    "token": lambda agent: agent["token_expires_sec"],
    "state": state,
}
_TEXTS = ("agent", "from", "state")  # sorted from A to Z at first; numbers from the greatest
FLOWS = ("bytes", "age", "held")


@dataclass(frozen=True, slots=True)
class View:
    """Hashable, so that those who ask for the same share one answer."""

    filter: str = ""  # part of an agent's id, of a connector or of a state
    sort: str = "agent"
    back: bool = False  # the other way round
    page: int = 1
    flows: str = "bytes"  # by what the flows are sorted
    live: bool = True

    @classmethod
    def of(cls, query: str) -> View:
        """What cannot be read is as if it were not there."""
        try:
            asked = dict(parse_qsl(query, max_num_fields=16))
        except ValueError:
            return cls()
        page, sort, flows = asked.get("page", ""), asked.get("sort", ""), asked.get("flows", "")
        return cls(
            filter=asked.get("filter", "").strip()[:LONGEST].encode("utf-8", "replace").decode(),
            sort=sort if sort in ORDERS else "agent",
            back=asked.get("order") == "back",
            page=int(page) if page.isascii() and page.isdigit() and len(page) < 7 and int(page) else 1,
            flows=flows if flows in FLOWS else "bytes",
            live=asked.get("refresh") != "off",
        )

    def query(self, **changes: Any) -> str:
        """Of this view with some things changed; what is as usual is left out."""
        view, usual = replace(self, **changes), View()
        said = {
            "filter": view.filter,
            "sort": view.sort,
            "order": "back" if view.back else "",
            "page": str(view.page),
            "flows": view.flows,
            "refresh": "" if view.live else "off",
        }
        left_out = {"filter": "", "sort": usual.sort, "order": "", "page": "1", "flows": usual.flows, "refresh": ""}
        return urlencode([(key, value) for key, value in said.items() if value != left_out[key]])

    def link(self, **changes: Any) -> str:
        query = self.query(**changes)
        return f"/?{query}" if query else "/"

    def link_by(self, sort: str) -> str:
        """The same agents in another order; asked for again, the other way round."""
        return self.link(sort=sort, back=not self.back if sort == self.sort else False, page=1)

    def order(self, sort: str) -> str:
        """How the rows stand by this: ascending, descending or not at all."""
        if sort != self.sort:
            return ""
        return "ascending" if (sort in _TEXTS) != self.back else "descending"

    def takes(self, agent: Row) -> bool:
        """Whether the filter lets an agent through; one of the cluster's list as well."""
        wanted = self.filter.lower()
        return (
            not wanted
            or wanted in agent["agent_id"].lower()
            or any(wanted in connector.lower() for connector in agent["connectors"])
            or wanted == state(agent)
        )

    def chosen(self, agents: list[Row]) -> list[Row]:
        """The rows of this page, of those that `takes` has let through; of the last page if there are fewer."""
        ordered = sorted(agents, key=ORDERS[self.sort], reverse=self.order(self.sort) == "descending")
        start = (min(self.page, pages(len(agents))) - 1) * ROWS
        return ordered[start : start + ROWS]


def pages(count: int) -> int:
    """How many there are for so many agents, at least one."""
    return max(1, -(-count // ROWS))
