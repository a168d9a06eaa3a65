"""A real Prometheus that scrapes hubs, with the shipped rules: it looks more often, and its alerts wait less."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from support.peer import Address
from support.places import Places
from support.process import Program, require
from support.until import PATIENCE, wait_until

SHIPPED = Path(__file__).parents[2] / "config" / "prometheus"
RULES = ("alerts.yaml", "objectives.yaml")
EVERY = "1s"  # scrapes, and evaluations of rules
HOLD = "2s"  # what an alert waits that waits at all
SCRAPED = 15.0  # seconds: how often the shipped rules want it
LOOKBACK = 300.0  # seconds, Prometheus' default: for how long a series' last sample counts
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
WINDOW = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])")
RECORDED = re.compile(r"(?<=\]\) \* )(\d+)(?= >=)")  # seconds between two samples of a recorded rate that are added up


class Prometheus:
    """`targets` are the admin edges by what their instance is called. `rules` makes of the document that is shipped the
    one that is evaluated; `every` is a duration, between two scrapes and two evaluations."""

    def __init__(
        self,
        directory: Path,
        places: Places,
        targets: Mapping[str, Address],
        *,
        rules: Callable[[Path], dict[str, Any]] | None = None,
        every: str = EVERY,
        lookback: str = "5m",
    ) -> None:
        (program,) = require("prometheus")
        self.address: Address = (places.host("prometheus"), places.port("prometheus"))
        for name in RULES:
            (directory / name).write_text(yaml.safe_dump((rules or _hurried)(SHIPPED / name)))
        scrape = {
            "job_name": "ncfast",
            "static_configs": [
                {"targets": [f"{host}:{port}"], "labels": {"instance": name}} for name, (host, port) in targets.items()
            ],
        }
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": list(RULES),
            "scrape_configs": [scrape],
        }
        path = directory / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        argv = [program, f"--config.file={path}", f"--storage.tsdb.path={directory / 'data'}"]
        argv.append(f"--query.lookback-delta={lookback}")
        argv.append("--web.listen-address={}:{}".format(*self.address))
        self.program = Program("prometheus", argv, directory)
        wait_until(self._answers, lambda: f"Prometheus\n{self.program.tail()}")

    def _answers(self) -> bool:
        try:
            return bool(self.query("vector(1)"))
        except OSError:
            return False

    def _get(self, path: str, **query: str) -> Any:
        host, port = self.address
        url = f"http://{host}:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The samples that it yields now. Raises HTTPError where Prometheus does not take it."""
        found = self._get("query", query=expression)
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]

    def wait(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Until it yields something."""
        return wait_until(lambda: self.query(expression), lambda: f"a sample of {expression}\n{self.program.tail()}")

    def firing(self) -> set[str]:
        """The alerts that fire."""
        return {labels["alertname"] for labels, _ in self.query('ALERTS{alertstate="firing"}')}

    def wait_firing(self, alert: str, **labels: str) -> None:
        """Until it fires with these labels, or with more."""
        wanted = {"alertname": alert, "alertstate": "firing", **labels}
        self.wait("ALERTS{" + ", ".join(f'{name}="{value}"' for name, value in wanted.items()) + "}")

    def wait_quiet(self, alert: str) -> None:
        """Until it fires no more."""
        wait_until(lambda: alert not in self.firing(), f"{alert} over")

    def alerts(self) -> list[dict[str, Any]]:
        """Those that fire, each with `labels` and `annotations` as those on call get them."""
        return [alert for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"]

    def broken_rules(self) -> list[str]:
        """Rules that could not be evaluated, with what Prometheus says of them."""
        return [
            f"{rule['name']}: {rule['lastError']}"
            for group in self._get("rules")["groups"]
            for rule in group["rules"]
            if rule["health"] == "err"
        ]

    def stop(self) -> None:
        self.program.stop()


def _hurried(path: Path) -> dict[str, Any]:
    rules: dict[str, Any] = yaml.safe_load(path.read_text())
    for group in rules["groups"]:
        group["interval"] = EVERY
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = HOLD
    return rules


def scaled(path: Path, by: float) -> dict[str, Any]:
    """The rules with every duration in them divided: windows, what an alert waits, how often is evaluated, and what a
    sum of recorded rates is multiplied by. No other number is touched."""
    rules: dict[str, Any] = yaml.safe_load(path.read_text())
    for group in rules["groups"]:
        group["interval"] = shorter(group["interval"], by)
        for rule in group["rules"]:
            expr = WINDOW.sub(lambda found: shorter(found[0], by), rule["expr"])
            rule["expr"] = RECORDED.sub(lambda found: f"{int(found[0]) / by:g}", expr)
            if "for" in rule:
                rule["for"] = shorter(rule["for"], by)
    return rules


def shorter(duration: str, by: float) -> str:
    """A duration of Prometheus, divided."""
    return milliseconds(int(duration[:-1]) * SECONDS[duration[-1]] / by)


def milliseconds(seconds: float) -> str:
    """As Prometheus writes them."""
    return f"{round(seconds * 1000)}ms"
