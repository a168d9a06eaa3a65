"""`python -m tests.alerts`: makes faults, sees every alert fire and end, and reports. Exit code 1 if one did not."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from support.until import wait_until

from monitoring.alerts import ALERTS

from . import mesh, objectives, process, registry, service  # noqa: F401  they list their faults
from .fault import FAULTS, Fault
from .page import Page
from .report import Seen, render
from .stage import Stage

FIRES_SEC = 120.0  # for an alert to fire
SHOWS_SEC = 20.0  # for its page's commands to show the cause
ENDS_SEC = 600.0  # for one to be over: windows of six hours are six minutes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.alerts", description=__doc__)
    parser.add_argument("--only", metavar="FAULT,…", help="only these; a wrong name lists all")
    parser.add_argument("--report", type=Path, metavar="FILE", help="where the page goes (standard output)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="logs and files stay there (thrown away)")
    arguments = parser.parse_args()
    names = [one.name for one in FAULTS]
    wanted = arguments.only.split(",") if arguments.only else names
    if unknown := set(wanted) - set(names):
        sys.exit(f"no fault is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    directory = arguments.keep or Path(tempfile.mkdtemp(prefix="alerts-"))
    directory.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        with Stage(directory) as stage:
            seen = [one for name in wanted for one in _play(stage, FAULTS[names.index(name)])]
            broken = [*stage.prometheus.broken_rules(), *stage.objectives.broken_rules()]
    except pytest.skip.Exception as missing:
        sys.exit(f"cannot fire alerts: {missing}")
    finally:
        if not arguments.keep:
            shutil.rmtree(directory, ignore_errors=True)
    left = {alert.name for alert in ALERTS} - {one.alert for one in seen} if not arguments.only else set()
    text = render(seen, (time.monotonic() - began) / 60)
    if arguments.report:
        arguments.report.write_text(text)
    else:
        print(text)
    for line in (*broken, *(f"{name}: no fault is known" for name in sorted(left))):
        tell(line)
    return 0 if all(one.passed for one in seen) and not broken and not left else 1


def _play(stage: Stage, fault: Fault) -> list[Seen]:
    """One fault, from its beginning until its alerts are over."""
    seen = [Seen(alert, fault.says, signs) for alert, signs in fault.signs.items()]
    tell(f"{fault.name}: {fault.says}")
    try:
        for one in seen:
            wait_until(lambda one=one: not _firing(stage, one.alert), f"{one.alert} quiet before its fault", ENDS_SEC)
        with stage.beside:
            began = time.monotonic()
            with fault.make(stage):
                _see(stage, seen, began)
            ended = time.monotonic()
            for one in seen:
                if one.fired is not None:
                    wait_until(lambda one=one: not _firing(stage, one.alert), f"{one.alert} over", ENDS_SEC)
                    one.cleared = time.monotonic() - ended
    except AssertionError as error:
        for one in seen:
            if one.cleared is None:
                one.failures.append(str(error)[:1000])
    for one in seen:
        tell(f"  {one.alert}: fired {one.fired}, over {one.cleared}, {one.page} {one.failures or ''}")
    return seen


def _see(stage: Stage, seen: list[Seen], began: float) -> None:
    """All fire; then each leads to its page, and the page's first commands at the hub that it names show the cause."""
    for one in seen:
        wait_until(lambda one=one: _firing(stage, one.alert), f"{one.alert} firing", FIRES_SEC)
        one.fired = time.monotonic() - began
    for one in seen:
        page = Page(_firing(stage, one.alert)[0]["annotations"]["runbook_url"])
        one.page = page.name
        if not page.leads(one.alert):
            one.failures.append(f"{page.name} does not say that the alert leads there")
        _follow(stage, one, page)


def _follow(stage: Stage, one: Seen, page: Page) -> None:
    """The page's first commands, at the hubs that the alert names, or at any where it names none."""
    shown = ""

    def missing() -> list[str]:
        nonlocal shown
        named = {alert["labels"].get("instance") for alert in _firing(stage, one.alert)}
        hubs = sorted(filter(None, named)) or sorted(stage.cluster.live)
        shown = "".join(page.shown(stage.cluster, name, stage.directory / "desk") for name in hubs)
        return page.missing(one.signs, shown)

    try:
        wait_until(lambda: not missing(), "", SHOWS_SEC)
    except AssertionError:
        one.failures.append(f"{page.name}: its first commands do not show {page.missing(one.signs, shown)}")
        tell(shown)


def _firing(stage: Stage, alert: str) -> list[dict[str, Any]]:
    return [one for one in stage.watcher(alert).alerts() if one["labels"]["alertname"] == alert]


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
