"""A dashboard as Grafana takes it (schema 39), from rows of panels."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

WIDTH = 24  # columns of Grafana's grid
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """`series` are (expression, legend). In an expression ``{hub}`` and ``{hub, listener}`` stand for what the
    variables have chosen, more matchers may follow."""

    title: str
    says: str
    unit: str
    series: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    most: float | None = None  # drawn in red from here
    least: float | None = None  # drawn in red below


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


def expand(expression: str) -> str:
    """With the variables in place of ``{hub}`` and its like."""
    names = {"hub": 'instance=~"$hub"', "listener": 'listener=~"$listener"', "cluster": 'cluster=~"$cluster"'}
    return re.sub(
        r"\{(hub|cluster)(, listener)?(?=[,}])",
        lambda found: "{" + names[found[1]] + (", " + names["listener"] if found[2] else ""),
        expression,
    )


def dashboard(rows: tuple[Row, ...]) -> str:
    """``config/grafana/ncfast.json``."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        panels.append(_panel(len(panels) + 1, {"type": "row", "title": row.title, "collapsed": False, "panels": []}))
        panels[-1]["gridPos"] = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        y += 1
        for kind, height, across in (("stat", 4, 6), ("timeseries", 8, 3)):
            mine = [panel for panel in row.panels if panel.kind == kind]
            for start in range(0, len(mine), across):
                line = mine[start : start + across]
                width = WIDTH // len(line)
                for place, panel in enumerate(line):
                    panels.append(_panel(len(panels) + 1, _drawn(panel)))
                    panels[-1]["gridPos"] = {"h": height, "w": width, "x": place * width, "y": y}
                y += height
    document = {
        "title": "ncfast",
        "uid": "ncfast",
        "description": "Hubs of ncfast, alone or in a cluster. Every metric: docs/metrics.md.",
        "tags": ["ncfast"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "timezone": "",
        "templating": {"list": _variables()},
        "annotations": {"list": [_alerts()]},
        "panels": panels,
    }
    return json.dumps(document, indent=1) + "\n"


def _panel(number: int, panel: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, **panel}


def _drawn(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.least is None:
        defaults["min"] = 0
    if panel.most is not None:
        defaults["thresholds"] = _steps("green", "red", panel.most)
    if panel.least is not None:
        defaults["thresholds"] = _steps("red", "green", panel.least)
    if panel.kind == "stat":
        bounded = panel.most is not None or panel.least is not None
        options: dict[str, Any] = {
            "colorMode": "value" if bounded else "none",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"]},
        }
    else:
        defaults["custom"] = {"fillOpacity": 8, "showPoints": "never", "lineWidth": 1}
        if panel.most is not None or panel.least is not None:
            defaults["custom"]["thresholdsStyle"] = {"mode": "line"}
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "expr": expand(expr), "legendFormat": legend, "datasource": SOURCE}
            for n, (expr, legend) in enumerate(panel.series)
        ],
        "options": options,
    }


def _steps(low: str, high: str, bound: float) -> dict[str, Any]:
    return {"mode": "absolute", "steps": [{"color": low, "value": None}, {"color": high, "value": bound}]}


def _variables() -> list[dict[str, Any]]:
    source = {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "Prometheus",
        "current": {},
        "hide": 0,
    }
    return [
        source,
        _choice("cluster", "Cluster", "label_values(nowconnect_cluster_info, cluster)"),
        # All hubs are those of the chosen clusters, by name: so what is chosen there holds in every panel.
        _choice("hub", "Hub", 'label_values(nowconnect_cluster_info{cluster=~"$cluster"}, instance)'),
        _choice("listener", "Listener", 'label_values(nowconnect_listener_accepting{instance=~"$hub"}, listener)'),
    ]


def _choice(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "label": label,
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _alerts() -> dict[str, Any]:
    """When alerts fired, as marks in every panel."""
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Ncfast.*", alertstate="firing", cluster=~"$cluster"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}} {{listener}}",
    }
