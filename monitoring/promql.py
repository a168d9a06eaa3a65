"""Pieces of PromQL that rules and dashboards share."""

from __future__ import annotations

JOB = "ncfast"  # the scrape job, as the examples of the documentation call it
CLUSTER = "on (job, instance) group_left (cluster) nowconnect_cluster_info"


def of_cluster(expression: str) -> str:
    """The same with a label `cluster`; the expression has `job` and `instance`, and its value stays."""
    return f"({expression})\n* {CLUSTER}"


def of_hub_or_agent(expression: str) -> str:
    """The same of what agents export, too; those are of no cluster."""
    return f"{of_cluster(expression)}\nor on (job, instance) {expression}"


def among(words: tuple[str, ...]) -> str:
    """A matcher's pattern: one of the words."""
    return "|".join(words)
