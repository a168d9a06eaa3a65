"""A flow's end passes to another process: exported to a record here, restored from it there.

Of one flow's end there is one representation at a time, a `Flow` or its record. Both functions keep the accounts: what
is held moves from one process's bytes read, budget and windows to the other's, and neither counts the flow as closed.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from ncfast._frames cimport Chunk
from ncfast.core.budget cimport Share
from ncfast.core.context cimport FlowContext
from ncfast.core.ends cimport FULL_READ, SEND_FIN, SEND_LATE_RST
from ncfast.core.flow cimport Flow

from ncfast.core.errors import LocalError
from ncfast.core.record import FlowRecord
from ncfast.core.states import FlowEvent, FlowState

cdef int CLOSED = FlowState.CLOSED
cdef int RESET = FlowEvent.RESET


def export(Flow flow not None):
    """The flow as a `FlowRecord`. It has left its path without a word, and is no flow of the context any more: nothing
    is told of it, to nobody. Its socket is to be passed, or let go of, in the same turn (`SocketEnd.detach`). Raises
    LocalError for a flow that is over."""
    cdef FlowContext ctx = flow.ctx
    cdef bytes kept
    cdef Py_ssize_t held
    if flow.state == CLOSED:
        raise LocalError("a flow that is over is not passed on")
    flow.detach()
    kept = _kept(flow)
    record = FlowRecord(
        flow.cid, flow.secret, flow.state, bool(flow.pending & SEND_FIN), flow.fin_sent, flow.fin_acked,
        flow.fin_received, bool(flow.pending & SEND_LATE_RST), flow.rst_code, flow.epoch, flow.snd_nxt, flow.snd_una,
        flow.snd_max, flow.snd_limit, flow.rcv_nxt, flow.rcv_limit, flow.rcv_acked, flow.window, flow.tune_from,
        flow.gap_from, flow.seen, flow.seen_taken, flow.far_rtt, flow.tune_since, flow.gap_at, flow.since,
        flow.taken_since, flow.asked_sink, flow.detached_at, flow.open_body, flow.sought,
        b"" if flow.early is None else b"".join(flow.early), kept,
    )
    flow.move(RESET)                     # what still comes for it here is nobody's
    ctx.leave(flow)
    flow.watched = True                  # of no round any more
    ctx.windows -= flow.window
    flow.share.windows -= flow.window
    ctx.live -= 1
    flow.set_backlog(0)
    held = flow.unsent_bytes             # all, for it has no path
    flow.drop_out()
    ctx.discarded -= held
    ctx.bytes_read -= PyBytes_GET_SIZE(kept)
    ctx.bytes_out += held - PyBytes_GET_SIZE(kept)         # of a chunk that is acknowledged in part
    flow.pending = 0
    flow.early = flow.left = flow.sink = None
    ctx.flows.pop(flow.cid, None)
    return record


cdef bytes _kept(Flow flow):
    """What is not acknowledged, in one piece."""
    cdef Chunk chunk = flow.head
    cdef Py_ssize_t size = flow.snd_nxt - flow.snd_una if flow.snd_nxt > flow.snd_una else 0
    cdef Py_ssize_t at = 0, skip
    cdef bytes kept = PyBytes_FromStringAndSize(NULL, size)
    while chunk is not None and at < size:
        skip = flow.snd_una - chunk.seq if flow.snd_una > chunk.seq else 0
        memcpy(PyBytes_AS_STRING(kept) + at, PyBytes_AS_STRING(chunk.buf) + chunk.off + skip, chunk.size - skip)
        at += chunk.size - skip
        chunk = chunk.next
    return kept


def restore(FlowContext ctx not None, record, info=None, Share share=None):
    """A flow of the context again, charged to `share`, which has no path and is under no socket. Raises LocalError if
    there is one of its cid."""
    cdef Flow flow
    if record.cid in ctx.flows:
        raise LocalError("a flow of that cid is here")
    flow = Flow(ctx, record.cid, record.secret, record.open_body, info, record.snd_limit, share)
    ctx.windows += record.window - flow.window
    flow.share.windows += record.window - flow.window
    flow.window = record.window
    flow.state = record.state
    flow.sought = record.sought
    flow.epoch = record.epoch
    flow.far_rtt = record.far_rtt
    flow.snd_una = record.snd_una
    flow.snd_nxt = record.snd_nxt
    flow.snd_max = record.snd_max
    flow.snd_limit = record.snd_limit
    flow.fin_sent = record.fin_sent
    flow.fin_acked = record.fin_acked
    flow.rcv_nxt = record.rcv_nxt
    flow.rcv_limit = record.rcv_limit
    flow.rcv_acked = record.rcv_acked
    flow.fin_received = record.fin_received
    flow.pending = (SEND_FIN if record.fin_owed else 0) | (SEND_LATE_RST if record.reset_owed else 0)
    flow.rst_code = record.rst_code
    flow.reading = False                 # until it has a socket, and something may be read
    flow.tune_since = record.tune_since
    flow.tune_from = record.tune_from
    flow.gap_at = record.gap_at
    flow.gap_from = record.gap_from
    flow.since = record.since
    flow.seen = record.seen
    flow.seen_una = record.snd_una
    flow.seen_taken = record.seen_taken
    flow.taken_since = record.taken_since
    flow.asked_sink = record.asked_sink
    flow.detached_at = record.detached_at
    _keep(flow, record.kept)
    if record.early:
        flow.early = [record.early]
        flow.set_backlog(len(record.early))
    ctx.flows[flow.cid] = flow
    return flow


cdef int _keep(Flow flow, bytes kept) except -1:
    """As if it had just been read from the socket, in whole reads, but that it has its numbers already."""
    cdef FlowContext ctx = flow.ctx
    cdef Chunk chunk
    cdef Py_ssize_t at = 0, size
    ctx.bytes_read += PyBytes_GET_SIZE(kept)
    while at < PyBytes_GET_SIZE(kept):
        size = min(<Py_ssize_t>FULL_READ, PyBytes_GET_SIZE(kept) - at)
        memcpy(ctx.pool.reserve(), PyBytes_AS_STRING(kept) + at, size)
        chunk = ctx.pool.commit(size)
        flow.share.charge(ctx.pool.cost(chunk))
        chunk.seq = flow.snd_una + at
        if flow.head is None:
            flow.head = flow.unsent = chunk
        else:
            flow.tail.next = chunk
        flow.tail = chunk
        flow.unsent_bytes += size
        at += size
    return 0
