"""The answers of an admin edge about an upgrade of its process, whether hub or agent."""

from __future__ import annotations

from ncfast.net.request import Response
from ncfast.net.routes import json_response
from ncfast.observe.upgrading import UpgradeRefused, Upgrades


def begun(upgrades: Upgrades | None) -> Response:
    """POST: one is begun, and `/upgrade/state` tells how it goes, here or at the successor, with the same `id`."""
    if upgrades is None:
        return Response.text(409, "nothing here can be upgraded")
    try:
        return json_response(202, upgrades.begin())
    except UpgradeRefused as exc:
        return Response.text(409, str(exc))


def standing(upgrades: Upgrades | None) -> Response:
    """GET"""
    return json_response(200, upgrades.standing() if upgrades is not None else {})
