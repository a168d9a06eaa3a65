"""The agents connected here: a page of them at a time, sorted and filtered by the hub, so that five thousand are as
quick as five and nothing of it needs a script."""

from __future__ import annotations

from typing import Any, NamedTuple

from ncfast.observe.page.findings import token_ends_soon
from ncfast.observe.page.markup import Number, Raw, column, mark, piece, row, scroller, table, text
from ncfast.observe.page.view import ROWS, View, pages, state
from ncfast.observe.units import duration, size

_COLUMNS = (  # title, is a number, word in the query
    ("agent", False, "agent"),
    ("connectors", False, ""),
    ("from", False, "from"),
    ("round trip", True, "rtt"),
    ("flows", True, "flows"),
    ("received", True, "received"),
    ("sent", True, "sent"),
    ("connected", True, "connected"),
    ("token ends in", True, "token"),
    ("state", False, "state"),
)
_KINDS = {"up": "good", "standby": "idle", "draining": "warn"}


class Chosen(NamedTuple):
    """Rows to be shown, how many the filter found, and how many there are."""

    rows: list[dict[str, Any]]
    found: int
    of: int


def agents(chosen: Chosen, view: View) -> str:
    """The form, which stays as it is under the reader's hands, and below it the rows."""
    kept = "".join(
        f"<input type=hidden name={name} value='{text(value)}'>"
        for name, value in (
            ("sort", view.sort if view.sort != "agent" else ""),
            ("order", "back" if view.back else ""),
            ("flows", view.flows if view.flows != "bytes" else ""),
            ("refresh", "" if view.live else "off"),
        )
        if value
    )
    form = (
        "<form action=/ method=get role=search><label for=filter>Agent, connector or state</label>"
        f"<input id=filter name=filter type=search value='{text(view.filter)}' maxlength=64 autocomplete=off>"
        f"{kept}<button>Filter</button></form>"
    )
    return (
        form
        + scroller("Agents connected here", piece("agents", _rows(chosen, view)))
        + piece("pages", _pages(chosen, view))
    )


def _rows(chosen: Chosen, view: View) -> str:
    heads = [
        column(title, number, view.order(by) if by else "", view.link_by(by) if by else "")
        for title, number, by in _COLUMNS
    ]
    empty = "no agent is connected" if not chosen.of else "the filter finds none"
    return table("Agents connected here", heads, map(_agent, chosen.rows), empty)


def _agent(agent: dict[str, Any]) -> str:
    word = state(agent)
    token = duration(max(0, agent["token_expires_sec"]))
    return row(
        (
            agent["agent_id"] if agent["tenant"] is None else f"{agent['tenant']}/{agent['agent_id']}",
            ", ".join(agent["connectors"]),
            agent["remote"],
            Number("" if agent["rtt_ms"] is None else f"{agent['rtt_ms']:.1f} ms"),
            agent["flows"],
            Number(size(agent["bytes_in"])),
            Number(size(agent["bytes_out"])),
            Number(duration(agent["connected_sec"])),
            Raw(f"<span class='mark warn number'>{token}</span>") if token_ends_soon(agent) else Number(token),
            Raw(mark(_KINDS[word], word)),
        )
    )


def _pages(chosen: Chosen, view: View) -> str:
    """Which part is shown, and the ways to the others."""
    last = pages(chosen.found)
    at = min(view.page, last)
    first = (at - 1) * ROWS + 1
    part = f"{first:,} to {first + len(chosen.rows) - 1:,} of {chosen.found:,}" if chosen.rows else "none found"
    found = f", filtered from {chosen.of:,}" if view.filter else ""
    ways = [
        f"<a id=page-{name} href='{text(view.link(page=number))}'>{name}</a>"
        for name, number, there in (
            ("first", 1, at > 2),
            ("previous", at - 1, at > 1),
            ("next", at + 1, at < last),
            ("last", last, at < last - 1),
        )
        if there
    ]
    nav = f"<nav aria-label='Pages of agents'>{' '.join(ways)}</nav>" if ways else ""
    return f"<div class=pages><p class=quiet>{part}{found}</p>{nav}</div>"
