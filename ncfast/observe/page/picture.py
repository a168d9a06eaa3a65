"""The cluster as a picture: this hub on the left with its agents, the others on the right with theirs, links between.

A link is as wide as what it carries, says its round trip, and is red and broken when it does not stand. An agent is a
dot at its owner, a standby a ring of dots at the hub where it waits.
"""

from __future__ import annotations

from collections import Counter
from math import log10
from typing import Any, NamedTuple

from ncfast.observe.page.curves import bytes_rate
from ncfast.observe.page.hubs import hubs
from ncfast.observe.page.markup import scroller, text
from ncfast.observe.units import size

BOX, TALL = 168, 52  # a hub
EDGE = 16  # around the drawing, and between what belongs together
LEFT, RIGHT = EDGE, 412  # where the hubs of each side begin
BEND = 72  # along which links part; beyond they lie level, and have words above and below
SPACE = 32  # between two hubs
ACROSS, PITCH, RADIUS = 12, 14, 4.5  # dots in a row, from one to the next
DOTS = 4 * ACROSS  # of one hub at most; where there are more agents, each dot stands for several
WORDS = 18  # the line below the dots
WIDTH = RIGHT + BOX + EDGE + ACROSS * PITCH + EDGE
NARROW, WIDE = 1.5, 10.0  # of a link, for nothing and for 1 GB/s
LONGEST = 19  # characters of a name


class Dots(NamedTuple):
    """Agents at one hub."""

    owned: int
    draining: int
    standby: int


def picture(hub: dict[str, Any], rates: dict[str, float], at: dict[str, Dots]) -> str:
    """`rates` are bytes/s by peer, `at` is of `Census`."""
    cluster = hub["cluster"]
    rows = hubs(cluster) if cluster else [{"name": hub["replica_id"], "self": True, "draining": False, "link": None}]
    mine = next((row for row in rows if row["self"]), None)
    others = [row for row in rows if row is not mine]
    name = mine["name"] if mine else hub["replica_id"]
    each = max([1, *(_each(one) for one in at.values())])
    tall = [max(TALL, _height(at.get(row["name"]), each)) for row in others]
    ours = TALL + EDGE / 2 + _height(at.get(name), each)
    height = 2 * EDGE + max(ours, sum(tall) + SPACE * (len(tall) - 1))
    middle = (height - ours + TALL) / 2
    drawn, told = [], [f"{name}: {_told(at.get(name))}"]
    top = (height - sum(tall) - SPACE * (len(tall) - 1)) / 2
    for row, high in zip(others, tall, strict=True):
        y, dots = top + high / 2, at.get(row["name"])
        drawn.append(_link(row, rates.get(row["name"]), middle, y))
        drawn.append(_box(RIGHT, y, row["name"], *_standing(row)))
        drawn.append(_dots(RIGHT + BOX + EDGE, y - _height(dots, each) / 2, dots, each))
        told.append(f"{row['name']}: {_standing(row)[1]}, {_told(dots)}")
        top += high + SPACE
    status = hub["ready"]["status"]
    kind = "good" if status == "ready" else "bad" if status == "not_serving" else "warn"
    drawn.append(_box(LEFT, middle, name, kind, f"this hub, {status.replace('_', ' ')}"))
    drawn.append(_dots(LEFT, middle + TALL / 2 + EDGE / 2, at.get(name), each))
    lost = sum(one.owned for owner, one in at.items() if owner not in {name, *(row["name"] for row in others)})
    if lost:
        told.append(f"{lost:,} agents at hubs that are not known")
    each_is = f"A dot is {each:,} agents" if each > 1 else "A dot is an agent"
    key = f"{each_is}, a dotted ring a standby. A link is as wide as its traffic; what is broken is red and dashed."
    return scroller(
        "The cluster, drawn",
        f"<svg class=picture viewBox='0 0 {WIDTH} {height:g}' width={WIDTH} height={height:g} role=img "
        f"aria-label='{text('; '.join(told))}'>{''.join(drawn)}</svg>",
    ) + (f"<p class=quiet>{key}{f' {lost:,} agents are at hubs that are not known here.' if lost else ''}</p>")


class Census:
    """Counts agents by the hub where they are, a slice at a time."""

    def __init__(self) -> None:
        self._here = Counter[str]()
        self._owned = Counter[str]()
        self._draining = Counter[str]()

    def add_here(self, rows: list[dict[str, Any]]) -> None:
        """Agents connected to this hub."""
        self._here.update("standby" if row.get("standby") else "draining" if row["draining"] else "up" for row in rows)

    def add_cluster(self, rows: list[dict[str, Any]]) -> None:
        """Agents as the registry has them."""
        self._owned.update(row["owner"] for row in rows)
        self._draining.update(row["owner"] for row in rows if row["draining"])

    def dots(self, here: str) -> dict[str, Dots]:
        """By hub; of those at this hub we know better than the registry."""
        found = {name: Dots(owned, self._draining[name], 0) for name, owned in self._owned.items()}
        count = self._here
        found[here] = Dots(count["up"] + count["draining"], count["draining"], count["standby"])
        return found


def _standing(row: dict[str, Any]) -> tuple[str, str]:
    """Of another hub: its colour, and in words why."""
    link = row["link"]
    if link is None:
        return "bad", "no link"
    if link["state"] != "up":
        return "bad", f"link {link['state']}"
    return ("warn", "draining") if row["draining"] else ("good", "linked")


def _told(dots: Dots | None) -> str:
    if dots is None:
        return "no agents"
    standby = f", {dots.standby:,} standing by" if dots.standby else ""
    return f"{dots.owned:,} agent{'s' * (dots.owned != 1)}{standby}"


def _box(x: float, y: float, name: str, kind: str, said: str) -> str:
    shown = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    return (
        f"<g class='hub {kind}'><rect x={x} y={y - TALL / 2:g} width={BOX} height={TALL} rx=6 />"
        f"<text class=name x={x + 14} y={y - 4:g}>{text(shown)}</text>"
        f"<text class=said x={x + 14} y={y + 14:g}>{text(said)}</text></g>"
    )


def _link(row: dict[str, Any], rate: float | None, y1: float, y2: float) -> str:
    """From this hub to another, and on it what is to be said of it."""
    link = row["link"]
    x1, x2 = LEFT + BOX, RIGHT
    level = x1 + BEND
    way = f"M{x1} {y1:g}C{x1 + BEND / 2:g} {y1:g} {x1 + BEND / 2:g} {y2:g} {level} {y2:g}H{x2}"
    words = level + (x2 - level) / 2
    if link is None or link["state"] != "up":
        said = "no link" if link is None else link["last_error"].replace("_", " ") or link["state"]
        return (
            f"<path class='link bad' d='{way}' stroke-width=2 />"
            f"<text class='label bad' x={words:g} y={y2 - 8:g} text-anchor=middle>{text(said)}</text>"
        )
    width = NARROW + (WIDE - NARROW) * min(1.0, log10(1 + (rate or 0) / 1000) / 6)
    rtt = "" if link["rtt_ms"] is None else f"{link['rtt_ms']:.2f} ms"
    carried = bytes_rate(rate) if rate else f"{size(link['inflight_bytes'])} in flight"
    label = ", ".join(filter(None, (rtt, carried)))
    return (
        f"<path class='link' d='{way}' stroke-width={width:.1f} />"
        f"<text class=label x={words:g} y={y2 - width / 2 - 7:g} text-anchor=middle>{text(label)}</text>"
        f"<text class=label x={words:g} y={y2 + width / 2 + 16:g} text-anchor=middle>{link['flows']:,} flows</text>"
    )


def _dots(x: float, y: float, dots: Dots | None, each: int) -> str:
    """Owners first, those that leave in the colour of it, then standbys; below how many they are."""
    kinds = _kinds(dots, each)
    drawn = "".join(
        f"<circle class='{kind}' cx={x + RADIUS + k % ACROSS * PITCH:g} cy={y + RADIUS + k // ACROSS * PITCH:g}"
        f" r={RADIUS - 1 if kind.endswith('standby') else RADIUS - 0.5:g} />"
        for k, kind in enumerate(kinds)
    )
    return f"{drawn}<text class=label x={x:g} y={y + _height(dots, each) - 5:g}>{text(_told(dots))}</text>"


def _each(dots: Dots) -> int:
    """For how many agents a dot has to stand, so that they find room; both kinds are rounded up."""
    count = dots.owned + dots.standby
    return 1 if count <= DOTS else -(-count // (DOTS - 1))


def _kinds(dots: Dots | None, each: int) -> list[str]:
    if dots is None:
        return []
    owned, standby = -(-dots.owned // each), -(-dots.standby // each)
    draining = min(owned, -(-dots.draining // each))
    return ["agent"] * (owned - draining) + ["agent warn"] * draining + ["agent standby"] * standby


def _height(dots: Dots | None, each: int) -> int:
    """Of the dots and the words below."""
    return -(-len(_kinds(dots, each)) // ACROSS) * PITCH + WORDS
