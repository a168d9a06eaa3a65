"""Listeners, hubs, flows, agents of the cluster, events: rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ncfast.observe import shadow
from ncfast.observe.log import Event
from ncfast.observe.page.agents import Chosen
from ncfast.observe.page.hubs import hubs
from ncfast.observe.page.markup import Number, Raw, column, mark, row, scroller, table, text, words
from ncfast.observe.page.view import FLOWS, View
from ncfast.observe.units import duration, size

_LINK_KINDS = {"up": "good", "draining": "warn", "dialling": "warn", "handshaking": "warn", "resting": "idle"}
_LEVEL_KINDS = {"error": "bad", "warning": "warn"}
_FLOWS_BY = {"bytes": "bytes", "age": "age", "held": "memory held"}


def listeners(rows: list[dict[str, Any]]) -> str:
    """Where clients come in."""
    return _wide(
        "Listeners",
        ("listener", "address", "connector", "agents", "open", "accepted", "waiting", "memory", "state"),
        (3, 4, 5, 6, 7),
        (
            (
                one["name"],
                one["bind"],
                one["connector"] if one["tenant"] is None else f"{one['tenant']}/{one['connector']}",
                one["agents"],
                one["active"],
                one["accepted"],
                one["held"],
                Number(size(one["held_bytes"])),
                Raw(_listener_state(one)),
            )
            for one in rows
        ),
    )


def _listener_state(one: dict[str, Any]) -> str:
    if not one["accepting"]:
        return mark("warn", "not accepting")
    return mark("good", "accepting") if one["agents"] else mark("bad", "no agent")


def hub_links(cluster: dict[str, Any]) -> str:
    """The hubs of the cluster, with the links to them; before it how the registry is."""
    registry = cluster["registry"]
    healthy = mark("good", "healthy") if registry["healthy"] else mark("bad", "unhealthy")
    fresh = "" if registry["fresh"] else f", {mark('warn', 'its view is stale')}"
    return (
        f"<p>Cluster {text(cluster['name'])}, {words(cluster['mode'])}. Registry in {text(registry['kind'])}: "
        f"{healthy}{fresh}, breaker {words(registry['breaker'])}.</p>"
    ) + _wide(
        "Hubs",
        "hub,link,round trip,by,flows,queued,in flight,for,reconnects,errors,last error".split(","),
        (2, 4, 5, 6, 7, 8, 9),
        map(_hub, hubs(cluster)),
    )


def _hub(one: dict[str, Any]) -> tuple[Any, ...]:
    name = one["name"] + (" (draining)" if one["draining"] else "")
    link = one["link"]
    if link is None:
        return (name, "this hub" if one["self"] else Raw(mark("bad", "none")), *[""] * 9)
    return (
        name,
        Raw(mark(_LINK_KINDS.get(link["state"], "bad"), link["state"])),
        Number("" if link["rtt_ms"] is None else f"{link['rtt_ms']:.2f} ms"),
        " ".join(filter(None, (link["carrier"], link["direction"]))),
        link["flows"],
        link["queued_frames"],
        Number(size(link["inflight_bytes"])),
        Number(duration(link["since_sec"])),
        link["reconnects"],
        link["errors"],
        (link["last_error"] or "").replace("_", " "),
    )


def shadowed(hub: dict[str, Any]) -> str:
    """What the mode `shadow` has found out."""
    why = shadow.hindrances(hub)
    verdict = f"{mark('bad', 'Not ready for active')}: {text('; '.join(why))}." if why else "Ready for active."
    rows = map(shadow.cells, hub["cluster"]["shadow"])
    return f"<p>{verdict}</p>" + _wide("What active would have done", shadow.COLUMNS, (1, 2, 3, 4, 5), rows)


def flows(hub: dict[str, Any], view: View) -> str:
    """How many there are, why they ended, and which are the greatest, if the hub tells."""
    counts, both = hub["flows"], hub["bytes"]
    told = (
        f"<p>{counts['active']:,} open, {counts['opening']:,} opening, {counts['detached']:,} without a link, "
        f"{counts['held']:,} waiting for an agent. {counts['opened']:,} opened so far, {counts['resumed']:,} times "
        f"resumed. {counts['by_path']['local']:,} to agents here, {counts['by_path']['mesh']:,} across the mesh, "
        f"{counts['relayed']:,} relayed for other hubs. {size(both['client_in'])} from clients, "
        f"{size(both['client_out'])} to them.</p>"
    )
    closed = sorted(counts["closed"].items(), key=lambda item: (-item[1], item[0]))
    ended = _wide("Ended, by reason", ("reason", "flows"), (1,), ((name.replace("_", " "), n) for name, n in closed))
    greatest = talkers(hub["talkers"], view) if hub["talkers"] else ""
    return f"{told}{greatest}<h3>Ended, by reason</h3><div class=narrow>{ended}</div>"


def talkers(rows: list[dict[str, Any]], view: View) -> str:
    """The greatest flows, by bytes, age or the memory that they hold. Of relayed ones their origin knows more."""
    keys: dict[str, Callable[[dict[str, Any]], float]] = {
        "bytes": lambda one: (one["bytes_in"] or 0) + (one["bytes_out"] or 0),
        "age": lambda one: one["age_sec"],
        "held": lambda one: one["held_bytes"],
    }
    ways = " ".join(
        f"<a id=flows-by-{by} href='{text(view.link(flows=by))}'{' aria-current=true' if by == view.flows else ''}>"
        f"{_FLOWS_BY[by]}</a>"
        for by in FLOWS
    )
    shown = sorted(rows, key=keys[view.flows], reverse=True)
    return f"<nav class=by aria-label='Greatest flows by'>Greatest by {ways}</nav>" + _wide(
        "Greatest flows",
        ("flow", "client", "listener", "agent", "age", "from client", "to client", "memory held"),
        (4, 5, 6, 7),
        (
            (
                Raw(f"<code>{text(one['cid'])}</code>"),
                one["client"] or "",
                one["listener"] or one["path"],
                one["agent_id"] or "",
                Number(duration(one["age_sec"])),
                Number("" if one["bytes_in"] is None else size(one["bytes_in"])),
                Number("" if one["bytes_out"] is None else size(one["bytes_out"])),
                Number(size(one["held_bytes"])),
            )
            for one in shown
        ),
    )


def cluster_agents(chosen: Chosen) -> str:
    """The agents of all hubs that the filter lets through, the first of them."""
    more = chosen.found - len(chosen.rows)
    told = f"{len(chosen.rows):,} of {chosen.found:,}; the filter of the agents above finds others."
    return (f"<p class=quiet>{told}</p>" if more else "") + _wide(
        "Agents of the cluster",
        ("agent", "owner", "epoch", "connectors", "state"),
        (),
        (
            (
                one["agent_id"] if one["tenant"] is None else f"{one['tenant']}/{one['agent_id']}",
                one["owner"],
                str(one["epoch"]),  # as logs and `ncfast status` write it
                ", ".join(one["connectors"]),
                Raw(mark("warn", "draining") if one["draining"] else mark("good", "up")),
            )
            for one in chosen.rows
        ),
    )


def events(recent: Sequence[Event]) -> str:
    """The last ones that matter, newest first. Times are UTC, as in the log."""
    return _wide(
        "Recent events, times in UTC",
        ("time", "event", "level", "what"),
        (),
        (
            (
                Raw(f"<time datetime='{text(one.at)}'>{text(one.at[:19].replace('T', ' '))}</time>"),
                Raw(f"<code>{text(one.name)}</code>"),
                Raw(mark(_LEVEL_KINDS.get(one.level, "idle"), one.level)),
                Raw(f"<span class=text>{text(one.text)}</span>"),
            )
            for one in recent
        ),
    )


def _wide(label: str, columns: Sequence[str], numbers: Sequence[int], rows: Iterable[tuple[Any, ...]]) -> str:
    """A table that scrolls by itself."""
    heads = [column(title, k in numbers) for k, title in enumerate(columns)]
    return scroller(label, table(label, heads, map(row, rows)))
