"""`python -m tests.alerts`: makes faults, sees every alert fire and end, and reports. Exit code 1 if one did not."""

from __future__ import annotations

import itertools
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.longrun import Report, cases_parser, folder, tell
from support.until import wait_until

from monitoring.alerts import ALERTS

from . import mesh, objectives, process, registry, service  # noqa: F401  they list their faults
from .fault import FAULTS, Fault
from .page import Page
from .report import Seen, render
from .stage import Stage

FIRES_SEC = 120.0  # for an alert to fire
SHOWS_SEC = 40.0  # for its page's commands to show the cause
ENDS_SEC = 600.0  # for one to be over: windows of six hours are six minutes


def main() -> int:
    arguments = cases_parser("python -m tests.alerts", __doc__, "FAULT").parse_args()
    names = [one.name for one in FAULTS]
    wanted = arguments.only.split(",") if arguments.only else names
    if unknown := set(wanted) - set(names):
        sys.exit(f"no fault is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    report: Report[Seen] = Report(arguments, render)
    broken: list[str] = []
    try:
        with folder(arguments.keep, "alerts-") as directory:
            for some in _played(directory, [FAULTS[names.index(name)] for name in wanted], broken):
                report.add(*some)
    except pytest.skip.Exception as missing:
        sys.exit(f"cannot fire alerts: {missing}")
    left = {alert.name for alert in ALERTS} - {one.alert for one in report.seen} if not arguments.only else set()
    report.show()
    for line in (*broken, *(f"{name}: no fault is known" for name in sorted(left))):
        tell(line)
    return 0 if all(one.passed for one in report.seen) and not broken and not left else 1


def _played(directory: Path, faults: list[Fault], broken: list[str]) -> Iterator[list[Seen]]:
    """All of them, on a new stage after one that did not end as it should; rules that could not be evaluated go to
    `broken`."""
    left = deque(faults)
    for number in itertools.count():
        whole = True
        place = directory / str(number)
        place.mkdir()
        with Stage(place) as stage:
            while left and whole:
                seen, whole = _play(stage, left.popleft())
                yield seen
            if whole:
                broken += (*stage.prometheus.broken_rules(), *stage.objectives.broken_rules())
        if not left:
            return


def _play(stage: Stage, fault: Fault) -> tuple[list[Seen], bool]:
    """One fault, from its beginning until its alerts are over; and whether it could be made and ended."""
    seen = [Seen(alert, fault.says, signs) for alert, signs in fault.signs.items()]
    tell(f"{fault.name}: {fault.says}")
    whole = False
    try:
        for one in seen:
            wait_until(lambda one=one: not _firing(stage, one.alert), f"{one.alert} quiet before its fault", ENDS_SEC)
        with stage.beside:
            began = time.monotonic()
            with fault.make(stage):
                _see(stage, seen, began)
            whole = True
            ended = time.monotonic()
            for one in seen:
                if one.fired is not None:
                    wait_until(lambda one=one: not _firing(stage, one.alert), f"{one.alert} over", ENDS_SEC)
                    one.cleared = time.monotonic() - ended
    except (AssertionError, OSError) as error:
        for one in seen:
            if one.cleared is None:
                one.failures.append(repr(error)[:500])
    for one in seen:
        tell(f"  {one.alert}: fired {one.fired}, led {one.led}, over {one.cleared}, {one.page} {one.failures or ''}")
    return seen, whole


def _see(stage: Stage, seen: list[Seen], began: float) -> None:
    """All fire; then each leads to its page, and the page's first commands at the hub that it names show the cause."""
    for one in seen:
        try:
            wait_until(lambda one=one: _firing(stage, one.alert), f"{one.alert} firing", FIRES_SEC)
            one.fired = time.monotonic() - began
        except AssertionError as error:
            one.failures.append(str(error))
    for one in seen:
        if not one.failures:
            try:
                _follow(stage, one)
                one.led = time.monotonic() - began
            except AssertionError as error:
                one.failures.append(str(error))


def _follow(stage: Stage, one: Seen) -> None:
    """To the page, whose first commands have to show the cause at one of the hubs that the alert names, or at any if it
    names none."""
    (alert, *_) = wait_until(lambda: _firing(stage, one.alert), f"{one.alert} still firing", SHOWS_SEC)
    page = Page(alert["annotations"]["runbook_url"])
    one.page = page.name
    assert page.leads(one.alert), f"{page.name} does not say that the alert leads there"
    missing: dict[str, list[str]] = {}

    def named() -> bool:
        instances = {alert["labels"].get("instance") for alert in _firing(stage, one.alert)}
        for name in sorted(filter(None, instances)) or sorted(stage.cluster.live):
            shown = page.shown(stage.cluster, name, stage.directory / "desk")
            missing[name] = [sign for sign in one.signs if sign not in shown]
            if not missing[name]:
                return True
            (stage.directory / f"{one.alert}-{name}.txt").write_text(shown)
        return False

    wait_until(named, lambda: f"{page.name}: its first commands do not show {missing}", SHOWS_SEC)


def _firing(stage: Stage, alert: str) -> list[dict[str, Any]]:
    return [one for one in stage.watcher(alert).alerts() if one["labels"]["alertname"] == alert]


if __name__ == "__main__":
    sys.exit(main())
