"""Hubs of a cluster with the links to them, as people want to see them: one list."""

from __future__ import annotations

from typing import Any


def hubs(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The snapshot's replicas and mesh links as one list: this hub first, then its peers with their link or None.

    A link to a peer that the registry does not know (any longer) stands last, under its name or URL.
    """
    links = {link["peer"]: link for link in cluster["mesh"]}
    known = sorted(cluster["replicas"], key=lambda replica: (not replica["self"], replica["replica_id"]))
    rows = [
        {
            "name": replica["replica_id"],
            "self": replica["self"],
            "draining": replica["draining"],
            "link": links.pop(replica["replica_id"], None),
        }
        for replica in known
    ]
    return rows + [
        {"name": name, "self": False, "draining": False, "link": link} for name, link in sorted(links.items())
    ]
