"""What is shared: by the two directions of a flow, and by all flows of a process."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ncfast._frames cimport MAX_DATA, DedupRing, SegmentPool
from ncfast.core.budget cimport Budget, Share
from ncfast.core.clock cimport Clock
from ncfast.core.ends cimport HELD, Path, Source, Span

from ncfast.core.errors import Reason
from ncfast.core.states import TRANSITIONS as _TRANSITIONS
from ncfast.core.states import FlowEvent, FlowState, advance

cdef enum:
    PROMISES = 1024            # flows of which a quarter of the budget holds what was promised beforehand
    START = 16                 # a window starts with no more than this part of what is left for windows

cdef double ROUND = 0.5        # seconds: how fine resting flows are told apart, about a round of timers

cdef signed char NEXT[7][5]    # the table of transitions; -1 where it has no edge
for _state in FlowState:
    for _event in FlowEvent:
        NEXT[<int>_state][<int>_event] = _TRANSITIONS.get((_state, _event), -1)

cdef int R_INTERNAL = Reason.INTERNAL
cdef int R_OVERLOADED = Reason.OVERLOADED


cdef class FlowBase(Source):
    """What both directions of a flow, and the context, know of it. It has no constructor: only `Flow` is made."""

    cdef int move(self, int event) except -1:
        cdef int state = NEXT[self.state][event]
        if state < 0:
            advance(self.state, FlowEvent(event))      # says what is wrong
        self.state = state
        if not self.watched:
            self.ctx.watch(self)
        self.since = self.ctx.now()
        return 0

    cdef uint64_t holding(self) noexcept:
        """Bytes for its peer that are not acknowledged, and bytes for its socket."""
        return 0

    cdef int set_backlog(self, Py_ssize_t backlog) except -1:
        raise NotImplementedError

    cdef int delivered(self) except -1:
        """The socket was offered what the flow has received."""
        raise NotImplementedError

    cdef int accepted(self) except -1:
        """Hub: the target is connected."""
        raise NotImplementedError

    cdef bint is_done(self) noexcept:
        """Whether both directions have ended, and are acknowledged."""
        return False

    cdef int maybe_done(self) except -1:
        """Ends the flow if it is done."""
        raise NotImplementedError

    cdef int violation(self) except -1:
        """The peer broke the flow's rules: the flow ends, and the link counts it."""
        raise NotImplementedError

    cpdef int cut(self, int code) except -1:
        """Ends the flow at once, and nothing is brought to its end before: what it holds is free when this returns."""
        raise NotImplementedError


cdef class FlowContext:
    """Shared by all flows of a process.

    `clock()` gives seconds; `budget` bounds, in bytes, what is held for replay, for slow sockets and for links;
    `owner` is told `flow_closed(flow, reason)` once for each flow and `flow_resumed(flow)` each time that it goes on,
    and asked `flow_refused(flow, reason) -> bool` whether an open that the target never saw goes to another agent.
    """

    def __cinit__(self, clock, *, Py_ssize_t budget=1 << 30, Py_ssize_t window_initial=262144,
                  Py_ssize_t window_max=16777216, int ring=16384, uint64_t seed=0):
        self.pool = SegmentPool()
        self.closed = DedupRing(ring, seed)
        self.flows = {}
        self.passed = set()
        self._watched = {}
        self._resting = {}
        self._holders = []
        self.clock = clock
        self._clock = clock if isinstance(clock, Clock) else None
        self.budget = Budget(budget)
        self.share = self.budget.share()
        self.window_initial = window_initial
        self.window_max = window_max
        self.promise = min(window_initial, max(<Py_ssize_t>MAX_DATA, budget // (4 * PROMISES)))

    cdef double now(self) except? -1:
        return self.clock() if self._clock is None else self._clock.now()

    cdef Py_ssize_t first_window(self, Share share) noexcept:
        """The window that a flow starts with. All together stay within half of the budget, or of what is their share's
        own, but for the least of windows."""
        cdef Py_ssize_t left = max(self.budget.size // 2 - self.windows, share.own // 2 - share.windows)
        return max(<Py_ssize_t>PRESSED_WINDOW, min(self.window_initial, left // START))

    cdef int relay(self, Py_ssize_t size) except -1:
        """So many relayed bytes more, or less, wait for links."""
        self.relayed += size
        self.share.charge(size)
        return 0

    cdef int relieve(self, FlowBase asking) except -1:
        """The budget is spent by what came for `asking`: the heaviest share pays, with the flow that holds most. Rare,
        for it frees what that flow held."""
        cdef Share heaviest = self.budget.heaviest()
        cdef FlowBase flow, payer = asking
        cdef uint64_t size, most = 0
        for flow in self.flows.values():
            if flow.share is heaviest:
                size = flow.holding()
                if size > most:
                    most = size
                    payer = flow
        return payer.cut(R_OVERLOADED)

    cdef int hold(self, FlowBase flow, const uint8_t* p, Py_ssize_t n) except -1:
        """Bytes for the flow's socket, which stay where they are until the read is over."""
        if not flow.holds:
            flow.holds = True
            self._holders.append(flow)
        self._spans[self._span_count].p = p
        self._spans[self._span_count].n = n
        self._span_of[self._span_count] = <void*>flow
        self._span_count += 1
        if self._span_count == HELD:     # behind these bytes: it may end the flow, or fail
            self.settle()
            self.in_read = True
        return 0

    cdef int let_go(self, FlowBase flow) except -1:
        """What is held for the flow goes to its socket now, since something else is to follow there."""
        cdef Span spans[HELD]
        cdef int i, count = 0
        flow.holds = False
        for i in range(self._span_count):
            if self._span_of[i] == <void*>flow:
                self._span_of[i] = NULL
                spans[count] = self._spans[i]
                count += 1
        return flow.set_backlog(flow.sink.deliver_all(spans, count))

    cdef int settle(self) except -1:
        """The read is over, and its memory will be used again. A defect costs the flow whose bytes are lost by it."""
        cdef FlowBase flow
        defect = None
        self.in_read = False
        if self._holders:
            holders, self._holders = self._holders, []
            for flow in holders:
                if flow.holds:
                    try:
                        self.let_go(flow)
                        flow.delivered()
                    except Exception as exc:
                        defect = exc
                        try:
                            flow.cut(R_INTERNAL)
                        except Exception:
                            pass         # one is told, and what is held for others must not outlive the read
        self._span_count = 0
        if defect is not None:
            raise defect
        return 0

    def due(self, double now):
        """The flows that a round of timers at `now` has to look at, in a list: call `check` of each. A flow of which
        nothing is under way rests until a timer of its own is due, so that thousands of idle ones cost nothing."""
        cdef FlowBase flow
        cdef int64_t latest = <int64_t>(now / ROUND)
        for at in [at for at in self._resting if at <= latest]:
            for flow in self._resting.pop(at):
                flow.watched = True
                self._watched[flow] = None
        return list(self._watched)

    cpdef cork(self):
        """A batch of clients comes in: what their flows have to say at once leaves with `uncork`, in one write."""
        if self.corked is None:
            self.corked = []

    def uncork(self):
        """After `cork`. Raises what a link has raised, when all have written."""
        cdef Path path
        failure = None
        corked, self.corked = self.corked, None
        if corked is not None:
            for path in corked:
                try:
                    path.uncork()
                except Exception as exc:     # the others would wait until something comes in on them
                    failure = exc
        if failure is not None:
            raise failure

    cdef int watch(self, FlowBase flow) except -1:
        """Something happens to a flow that rested."""
        self.leave(flow)
        self._watched[flow] = None
        flow.watched = True
        flow.una_since = flow.taken_since = self.now()       # as if it had been looked at all the time
        return 0

    cdef int rest(self, FlowBase flow, double until) except -1:
        self.leave(flow)
        flow.watched = False
        flow.round = <int64_t>(until / ROUND)
        resting = self._resting.get(flow.round)
        if resting is None:
            resting = self._resting[flow.round] = {}
        resting[flow] = None
        return 0

    cdef int leave(self, FlowBase flow) except -1:
        if flow.watched:
            self._watched.pop(flow, None)
        else:
            resting = self._resting.get(flow.round)
            if resting is not None:
                resting.pop(flow, None)
        return 0

    @property
    def held(self):
        """Bytes of memory held for replay, for slow sockets and for relays."""
        return self.pool.held + self.backlog + self.relayed
