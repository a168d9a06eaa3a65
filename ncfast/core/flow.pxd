"""One end of a flow: sequence, acknowledgement, windows, resume. Sans-I/O."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ncfast._frames cimport Chunk, DedupRing, Header, SegmentPool

from ncfast.core.budget cimport Budget, Share
from ncfast.core.clock cimport Clock


cdef enum Pending:
    """Control frames that a flow owes its peer; a bit says `owed`, so that they coalesce."""
    SEND_OPEN = 1
    SEND_OPEN_ACK = 2
    SEND_RESUME = 4
    SEND_RESUME_ACK = 8
    SEND_ACK = 16
    SEND_RST = 32
    SEND_FIN = 64          # not urgent: stays behind the data
    SEND_LATE_RST = 128    # not urgent: stays behind the FIN


cdef enum:
    URGENT = 63            # the bits above that may overtake data


cdef enum:
    # Bytes of a read for a flow alone. With the headers of its frame and of a message around it they fit in one packet
    # of 64 KiB, the largest that Linux builds (65,483 bytes on loopback); 65,536 of them spill into a second one, which
    # costs as much (docs/decisions/0004-copies-and-segments.md)
    FULL_READ = 65024


cdef enum:
    """Where an acknowledgement waits for data to ride on."""
    WAITS_LONG = 1         # of short messages only
    WAITS = 2


cdef enum:
    HELD = 64              # pieces of a link's read that wait for its end


cdef struct Span:
    const uint8_t* p
    Py_ssize_t n


cdef class FlowContext:
    """What all flows of a process share."""
    cdef readonly SegmentPool pool
    cdef readonly DedupRing closed
    cdef readonly object clock
    cdef Clock _clock                # the same, if it is one
    cdef readonly dict flows         # all that live, by cid
    cdef readonly set passed         # cids of flows that another process may have by now: what comes is passed over
    cdef dict _watched               # those that the next round of timers looks at -> None
    cdef dict _resting               # the others, by the round in which they are due -> {flow: None}
    cdef public object owner
    cdef public object stray_reset   # (link, cid, code): M_RST for a flow that is not here, and may be yet to come
    cdef readonly Budget budget
    cdef readonly Share share        # of what is relayed, and of flows that have no other
    cdef public Py_ssize_t window_initial
    cdef public Py_ssize_t window_max
    cdef list corked                 # links whose frames leave behind a batch of clients; None: there is none
    cdef public double reader_pause  # seconds that a socket for which bytes wait may take none; 0: for ever
    cdef readonly Py_ssize_t promise # credit that a flow's far end has before this one knows the flow: HELLO says it
    cdef readonly Py_ssize_t backlog
    cdef readonly Py_ssize_t relayed # bytes of relayed frames that wait for a link
    cdef readonly Py_ssize_t windows # sum of the windows of all flows that live
    cdef readonly Py_ssize_t live    # how many they are
    # data of a link's read: that of a flow goes to its socket in one write when the read has been looked at
    cdef bint in_read                # one is looked at, and its memory stays until `settle`
    cdef Span _spans[HELD]
    cdef void* _span_of[HELD]        # whose each is
    cdef int _span_count
    cdef list _holders
    cdef public uint64_t duplicates
    cdef public uint64_t gaps
    cdef public uint64_t bytes_read  # from sockets; = bytes_out + discarded + what is held for replay
    cdef public uint64_t bytes_in    # written to sockets
    cdef public uint64_t bytes_out   # acknowledged by peers
    cdef public uint64_t discarded

    cdef double now(self) except? -1
    cdef Py_ssize_t first_window(self, Share share) noexcept
    cdef int relay(self, Py_ssize_t size) except -1
    cdef int relieve(self, Flow asking) except -1
    cpdef cork(self)
    cdef int hold(self, Flow flow, const uint8_t* p, Py_ssize_t n) except -1
    cdef int let_go(self, Flow flow) except -1
    cdef int settle(self) except -1
    cdef int watch(self, Flow flow) except -1
    cdef int rest(self, Flow flow, double until) except -1
    cdef int leave(self, Flow flow) except -1


cdef class Sink:
    """The socket above a flow."""
    cdef Py_ssize_t deliver(self, const uint8_t* p, Py_ssize_t n) except -1
    cdef Py_ssize_t deliver_all(self, Span* spans, int count) except -1
    cdef Py_ssize_t waiting(self) except -1
    cdef Py_ssize_t unread(self) except -1
    cdef int finish(self) except -1
    cdef int set_reading(self, bint on) except -1
    cdef int release(self, bint reset) except -1
    cdef int cut(self) except -1


cdef class Path:
    """The link below a flow. `epoch` is that of all its flows, 0 where each has its own (between hubs)."""
    cdef readonly uint64_t epoch
    cdef readonly dict lanes         # relayed flows that come in here: cid -> Lane
    cdef readonly double rtt
    cdef readonly Py_ssize_t inflight
    cdef public Py_ssize_t max_inflight
    cdef public Py_ssize_t peer_window   # credit that the peer gives each new flow

    cdef int adopt(self, Flow flow) except -1
    cdef int submit(self, Flow flow) except -1
    cdef int ack_soon(self, Flow flow) except -1
    cdef int forget(self, Flow flow) except -1
    cdef int withdraw(self, Flow flow) except -1
    cdef int drop(self, Source source) except -1
    cdef int freed(self) except -1
    cdef int uncork(self) except -1
    cdef Py_ssize_t read_size(self) noexcept


cdef class Source:
    """What takes its turns on a link: the bytes of a flow, or of a relayed direction."""
    cdef bint in_data                # queued on the link
    cdef Py_ssize_t deficit          # bytes saved up for a chunk larger than a turn
    cdef readonly Py_ssize_t unsent_bytes


cdef class Flow(Source):
    cdef readonly bytes cid
    cdef readonly bytes secret
    cdef readonly bytes open_body
    cdef readonly int state
    cdef public bytes sought         # between hubs: what M_RESUME says behind the secret
    cdef public object info
    cdef FlowContext ctx
    cdef readonly Share share
    cdef readonly Path path
    cdef Path left                   # the path that has told it to wait (M_DETACH), and may still end it
    cdef readonly uint64_t epoch     # of the frames on this path
    cdef double far_rtt              # seconds that a relay adds to the path's round trip
    cdef readonly Sink sink
    cdef bint resumed                # the exchange of M_RESUME is over: data may be sent on this path
    # outbound
    cdef Chunk head
    cdef Chunk tail
    cdef Chunk unsent
    cdef readonly uint64_t snd_nxt   # next byte's sequence
    cdef readonly uint64_t snd_una   # oldest unacknowledged
    cdef readonly uint64_t snd_max   # end of what was ever sent
    cdef readonly uint64_t snd_limit
    cdef readonly Py_ssize_t inflight
    cdef readonly Py_ssize_t congestion  # bytes that may be in flight after a relay has dropped some; 0: no such bound
    cdef bint fin_sent
    cdef bint fin_acked
    # inbound
    cdef readonly uint64_t rcv_nxt
    cdef readonly uint64_t rcv_limit # granted
    cdef uint64_t rcv_acked          # last told
    cdef readonly Py_ssize_t window
    cdef readonly Py_ssize_t backlog
    cdef bint holds                  # bytes of the read that is being looked at wait for its end
    cdef list early                  # bytes that came before the target was connected
    cdef bint fin_received
    cdef bint asked_again            # a gap was seen and M_RESUME sent
    cdef bint gap_waits              # a gap was seen, and it was too early to ask
    cdef int asks                    # M_RESUMEs on this path without an answer
    cdef double asked_due            # when the next M_RESUME of the peer may come
    cdef uint64_t asked_from         # and its `ack`
    cdef double gap_at               # when ours for lost frames was sent
    cdef uint64_t gap_from           # and its `ack`
    # scheduling, the path's business
    cdef int pending
    cdef bint in_urgent
    cdef int ack_waiting             # 0, or which of the path's queues it waits in
    cdef uint64_t ack_mark           # rcv_acked when the delay began
    cdef bint reading
    cdef int rst_code
    # window tuning
    cdef double tune_since
    cdef uint64_t tune_from
    # time
    cdef bint watched                # the next round of timers looks at it
    cdef int64_t round               # otherwise the one in which it is due
    cdef public double since         # last progress, or last change of state
    cdef uint64_t seen
    cdef uint64_t seen_una
    cdef uint64_t seen_taken         # bytes that the socket had taken at the last check
    cdef double taken_since          # when it last took some, or none waited
    cdef double asked_sink           # when the half-close timer had run out, and a reader was waited for
    cdef double una_since
    cdef readonly double detached_at

    cdef int move(self, int event) except -1
    cdef bint quiet(self, double now) noexcept
    cdef int push(self, Chunk chunk) except -1
    cdef Py_ssize_t room(self) noexcept
    cdef Chunk take(self)
    cdef bint held(self) noexcept
    cdef int fill_header(self, Header* h, int type) except -1
    cdef int update_reading(self) except -1
    cdef int on_data(self, uint64_t seq, const uint8_t* p, Py_ssize_t n) except -1
    cdef int on_ack(self, uint64_t ack, uint64_t limit) except -1
    cdef int on_fin(self, uint64_t seq) except -1
    cdef int accepted(self) except -1
    cdef int on_rst(self, int code) except -1
    cdef int on_open_ack(self, uint64_t ack, uint64_t limit) except -1
    cdef int on_drained(self) except -1
    cdef uint64_t ack_value(self) noexcept
    cdef uint64_t grant(self) except? 0
    cdef bint may_grow(self) noexcept
    cdef int set_backlog(self, Py_ssize_t backlog) except -1
    cdef int delivered(self) except -1
    cdef int consider_ack(self) except -1
    cdef int gap(self, bint told) except -1
    cdef int ask_again(self) except -1
    cdef int drop_out(self) except -1
    cpdef bind(self, Sink sink)
    cpdef direct(self, bytes body, bytes sought=*)
    cdef int put_on(self, Path path, bint resumed, uint64_t epoch, Py_ssize_t credit) except -1
    cpdef detach(self)
    cpdef finish(self)
    cpdef accept(self)
    cpdef int cut(self, int code) except -1
    cdef bint is_done(self) noexcept
    cdef int maybe_done(self) except -1
    cdef bint half_close_waits(self) except -1
    cdef int finish_end(self, int code) except -1
    cdef int deliver_fin(self) except -1
    cdef int rewind(self) except -1
    cdef int send_rst(self, int code) except -1
    cdef int violation(self) except -1
