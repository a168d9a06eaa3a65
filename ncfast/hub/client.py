"""A client as the rooms of the hub speak of it: its flow, and for what it comes."""

from __future__ import annotations

from typing import Any, TypeAlias

from ncfast.core.flow import Flow
from ncfast.hub.info import ClientInfo, names_of

__all__ = ["EMPTY", "ClientFlow", "ClientInfo", "Key", "names_of"]

Key = tuple[str | None, str]  # tenant, connector
ClientFlow: TypeAlias = "Flow[ClientInfo]"
EMPTY: frozenset[Any] = frozenset()
