"""What was seen of every alert, as a page."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from support.report import NO, prose, table, wrapped

from .stage import BY, OBJECTIVES_BY, SOONEST


@dataclass
class Seen:
    """Of one alert: seconds from the fault until it fired, and until its page had shown the cause; and from the fault's
    end until it was over."""

    alert: str
    fault: str
    signs: tuple[str, ...]
    fired: float | None = None
    led: float | None = None
    cleared: float | None = None
    page: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.fired is not None and self.cleared is not None and not self.failures


HEAD = f"""\
Every alert of `monitoring/`, fired by a fault that was made on real processes: three hubs with mutual TLS, agents,
Redis, and Prometheus with the rules of `config/prometheus/`. `make alerts` does it anew and writes this page
(`ALERTS="--only redis_frozen"` for some; a wrong name lists all).

The rules are evaluated with every duration in them (windows, `for`, intervals) divided by {BY}, those of the objectives
by {OBJECTIVES_BY}; scrapes come every {SOONEST:g} s, and thresholds are what they are. So seconds below are of those
short windows: `fired` from the fault's beginning, `led` until its page had shown the cause (of several alerts of a
fault one after the other), `over` from the fault's end. The page is what `runbook_url` of the firing
alert names; its first commands were then run at the hub that the alert's `instance` names, with that hub's paths and
addresses, and had to show the words of the last column, which the page itself uses. Rows may be of several runs.
"""


def render(seen: Iterable[Seen], before: str = "") -> str:
    """The whole page; of a page as it was `before` the rows of alerts that were not seen now."""
    every = list(seen)
    titles = ("alert", "fault", "fired, s", "led, s", "over, s", "page", "its commands show")
    head, rule, *rows = table(titles, _rows(every))
    now = {_alert(row): row for row in filter(None, rows)}
    now = {_alert(row): row for row in before.splitlines() if row.startswith("| `")} | now
    good = sum(NO not in row for row in now.values())
    failures = [f"- `{one.alert}`: {failure}" for one in every for failure in one.failures]
    lines = [
        "# Alerts",
        "",
        *prose(HEAD),
        f"**{good} of {len(now)}** fired, led to a page that names the cause, and were over after the fault. "
        f"Python {platform.python_version()}.",
        "",
        *(head, rule, *(row for _, row in sorted(now.items()))),
        "",
        *(["## Failures", "", *failures, ""] if failures else []),
    ]
    return "\n".join(part for line in lines for part in wrapped(line)).rstrip() + "\n"


def _alert(row: str) -> str:
    return row.split("`")[1]


def _rows(every: list[Seen]) -> Iterator[tuple[str, ...]]:
    for one in every:
        page = one.page.removeprefix("docs/")
        yield (
            f"`{one.alert}`",
            one.fault,
            _seconds(one.fired),
            _seconds(one.led),
            _seconds(one.cleared),
            f"[{page.removeprefix('runbooks/')}](../{page})" if page else "",
            NO if one.failures or not one.page else ", ".join(f"`{sign}`" for sign in one.signs),
        )


def _seconds(value: float | None) -> str:
    return NO if value is None else f"{value:.0f}"
