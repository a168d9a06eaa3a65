"""The whole page, of a hub's document and what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ncfast.observe.history import History
from ncfast.observe.log import Event
from ncfast.observe.page import tables
from ncfast.observe.page.agents import Chosen, agents
from ncfast.observe.page.curves import curves
from ncfast.observe.page.findings import findings
from ncfast.observe.page.layout import frame
from ncfast.observe.page.markup import mark, piece, section, text, words
from ncfast.observe.page.picture import Census, picture
from ncfast.observe.page.view import View
from ncfast.observe.slices import Slices
from ncfast.observe.units import duration

_STATUS = {"ready": "good", "degraded": "warn", "leaving": "warn", "draining": "warn", "not_serving": "bad"}
_GRAVITY = {"bad": "Broken", "warn": "Attention", "idle": "Note"}


class Material(NamedTuple):
    """What the page is made of; `hub` is as `findings` needs it."""

    hub: dict[str, Any]
    agents: Chosen
    cluster_agents: Chosen
    census: Census
    history: History
    recent: Sequence[Event]


def render(made_of: Material, view: View) -> Slices[bytes]:
    """The page, as an answer and as an event; a part in each slice."""
    hub, cluster = made_of.hub, made_of.hub["cluster"]
    parts = [f"<header>{_head(hub, view)}</header><main id=main>"]
    for part in _parts(made_of, view):
        yield
        parts.append(part)
    title = f"{hub['replica_id']}: {hub['ready']['status'].replace('_', ' ')}"
    return frame(f"{title}, {cluster['name']}" if cluster else title, f"{''.join(parts)}</main>", view).encode()


def _parts(made_of: Material, view: View) -> Iterator[str]:
    hub, cluster = made_of.hub, made_of.hub["cluster"]
    yield section("curves", "The last quarter of an hour", curves(made_of.history, cluster is not None))
    at = made_of.census.dots(hub["replica_id"])
    yield section("picture", "Cluster" if cluster else "Hub", picture(hub, made_of.history.links, at))
    yield section("listeners", "Listeners", tables.listeners(hub["listeners"]))
    if cluster:
        yield section("hubs", "Hubs", tables.hub_links(cluster))
        if cluster["shadow"] is not None:
            yield section("shadow", "Shadow", tables.shadowed(hub))
    yield section("flows", "Flows", tables.flows(hub, view))
    yield section("events", "Recent events", tables.events(made_of.recent))
    shown = agents(made_of.agents, view)
    yield f"<section aria-labelledby=agents-title><h2 id=agents-title>Agents</h2>{shown}</section>"
    if cluster:
        yield section("cluster-agents", "Agents of the cluster", tables.cluster_agents(made_of.cluster_agents))


def _head(hub: dict[str, Any], view: View) -> str:
    """What matters stands on top: how the hub is, and what is to be done."""
    status = hub["ready"]["status"]
    found = findings(hub)
    listed = "".join(
        f"<li class={one.kind}><b>{_GRAVITY[one.kind]}</b><span>{text(one.said)}</span></li>" for one in found
    )
    fine = "Nothing needs attention: every listener has an agent, nothing ends soon."
    about = f"ncfast {text(hub['version'])}, {words(hub['state'])} for {duration(hub['uptime_sec'])}"
    refresh = "Stand still" if view.live else "Follow"
    return (
        f"<div class=top><h1>{text(hub['replica_id'])}</h1>"
        f"<div class=state role=status>{piece('state', mark(_STATUS[status], status))}</div>"
        f"<p class=links><span id=live>{'' if view.live else 'stands still'}</span>"
        f"<a href='{text(view.link(live=not view.live))}'>{refresh}</a>"
        "<a href=/status>JSON</a><a href=/metrics>Metrics</a></p></div>"
        + piece("about", f"<p class=about>{about}</p>")
        + piece("findings", f"<ul class=findings>{listed}</ul>" if found else f"<p class='fine good'>{fine}</p>")
    )
