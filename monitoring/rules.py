"""The rules as files for Prometheus and Alertmanager."""

from __future__ import annotations

from typing import Any

import yaml

from monitoring.alerts import GROUPS, INHIBITIONS, OBJECTIVES, Alert
from monitoring.objectives import recording_rules

# Every 15 s, as often as is scraped: an alert that waits 15 s must have been true twice.
EVERY = "15s"

HEAD = """\
# Made by `make dashboards` from monitoring/{source}; do not edit.
#
{text}
"""
ALERTS = """\
# Alerts for hubs, alone or in a cluster; what to do is where `runbook_url` leads. The admin edges are scraped under the
# job name ncfast:
#
#   rule_files: [alerts.yaml, objectives.yaml]
#   scrape_configs:
#     - job_name: ncfast
#       scrape_interval: 15s
#       static_configs: [{ targets: ['10.0.0.11:9400', '10.0.0.12:9400', '10.0.0.13:9400'] }]
#
# The label `cluster` is `ha.cluster` of the hubs. Several clusters in one Prometheus need a name each; a label
# `cluster` that the scrape sets counts before it."""
SLO = """\
# The objectives of docs/slo.md: what they are measured by, and alerts."""
INHIBIT = """\
# For Alertmanager: which alert is not told while another is that names its cause. To be copied into its
# configuration."""


class _Dumper(yaml.SafeDumper):
    """Expressions of several lines as such."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump(document: Any) -> str:
    """As YAML, in the order in which it was made."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def _rule(alert: Alert, docs: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        **({"for": alert.hold} if alert.hold else {}),
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": docs + alert.page,
        },
    }


def alerts(docs: str) -> str:
    """``config/prometheus/alerts.yaml``; `docs` is where docs/ is to be read, with a slash at its end."""
    groups = [
        {"name": f"ncfast-{name}", "interval": EVERY, "rules": [_rule(alert, docs) for alert in group]}
        for name, group in GROUPS.items()
    ]
    return HEAD.format(source="alerts.py", text=ALERTS) + dump({"groups": groups})


def objectives(docs: str) -> str:
    """``config/prometheus/objectives.yaml``."""
    groups: list[dict[str, Any]] = [
        {
            "name": f"ncfast-objectives-{every}",
            "interval": every,
            "rules": [{"record": name, "expr": expr} for name, expr in rules],
        }
        for every, rules in recording_rules().items()
    ]
    rules = [_rule(alert, docs) for alert in OBJECTIVES]
    groups.append({"name": "ncfast-objectives", "interval": "1m", "rules": rules})
    return HEAD.format(source="objectives.py", text=SLO) + dump({"groups": groups})


def inhibitions() -> str:
    """``config/prometheus/inhibit.yaml``."""
    rules = [
        {
            "source_matchers": [f'alertname="{source}"'],
            "target_matchers": [f'alertname=~"{"|".join(targets)}"'],
            "equal": list(equal),
        }
        for source, targets, equal in INHIBITIONS
    ]
    return HEAD.format(source="alerts.py", text=INHIBIT) + dump({"inhibit_rules": rules})
