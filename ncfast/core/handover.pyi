"""A flow's end passes to another process: exported to a record here, restored from it there."""

from typing import Any, TypeVar

from ncfast.core.budget import Share
from ncfast.core.context import FlowContext
from ncfast.core.flow import Flow
from ncfast.core.record import FlowRecord

_InfoT = TypeVar("_InfoT")

def export(flow: Flow[Any]) -> FlowRecord:
    """The flow has left its path without a word, and is no flow of the context any more; its socket is to be passed in
    the same turn. Raises LocalError for a flow that is over."""

def restore(ctx: FlowContext, record: FlowRecord, info: _InfoT, share: Share | None = None) -> Flow[_InfoT]:
    """A flow of the context again, which has no path and is under no socket. Raises LocalError if there is one of its
    cid."""
