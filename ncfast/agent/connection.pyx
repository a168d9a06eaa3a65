"""Flows' connections to a target, from M_OPEN on: dialled, put under a flow, and over.

Compiled because each flow has one. `ncfast.agent.target` adds what is told of dials that fail, and the target's health.
"""

from ncfast.agent.info cimport AgentInfo
from ncfast.core.packed cimport CLIENT, CONNECTOR, SECRET
from ncfast.net.socket cimport SocketEnd, end_of

from ncfast.core.errors import Reason

cdef int TARGET_RESET = Reason.TARGET_RESET
cdef int TARGET_LOST = Reason.TARGET_LOST
cdef int TARGET_UNREACHABLE = Reason.TARGET_UNREACHABLE
cdef int INTERNAL = Reason.INTERNAL


cdef class Connections:
    """Of one target."""

    def __init__(self, ground not None, config not None, Share share not None):
        self.ground = ground
        self._net = ground.net
        self._context = ground.context
        self.share = share
        self.young = {}
        self._host, self._port = config.target.host, config.target.port
        self._timeout = config.dial_timeout_sec
        self._most = config.max_dials
        self._headed = config.proxy_protocol != "off"
        self._notsent_lowat = ground.config.flow.notsent_lowat

    cpdef open(self, Path link, bytes cid, uint64_t limit, tuple request):
        """A flow that `link` has asked for, with the members of what its M_OPEN says (`Opening`); dials for
        it. At `max_dials` at once it is refused, so that a flood of opens stays a few connects."""
        cdef AgentInfo info = AgentInfo(request[CONNECTOR], self._context.now())
        cdef Flow flow = Flow.__new__(Flow, self._context, cid, request[SECRET], None, info, limit, self.share)
        cdef Connection connection
        self._context.flows[cid] = flow
        flow.put_on(link, True, 0, 0)
        if self.dials >= self._most:
            self._no_room(flow)
            return
        connection = Connection.__new__(Connection)
        connection._target = self
        connection._flow = flow
        try:
            connection._header = self._proxy_header(request[CLIENT]) if self._headed else b""
            connection.dial()
        except:
            flow.reset(INTERNAL)         # a defect must not leave a flow that nobody dials for
            raise

    def _proxy_header(self, client):
        """What the target hears first, where it wants to know who the client is."""
        raise NotImplementedError

    def _no_room(self, flow):
        """None for the flow, of which the target has seen nothing."""
        raise NotImplementedError

    def _failed(self, flow, exc):
        """There is no connection for the flow, and why."""
        raise NotImplementedError


cdef class Connection:
    """One flow's connection to its target, from the dial on."""

    @property
    def since(self):
        """When the flow was opened."""
        return (<AgentInfo>self._flow.info).since

    cdef int dial(self) except -1:
        cdef AgentInfo info = self._flow.info
        cdef Connections target = self._target
        info.connecting = self
        target.dials += 1
        try:
            dial = target._net.start_dial(target._host, target._port, self._dialled, timeout=target._timeout, bare=True)
        except:
            if info.connecting is not None:
                self.over()
            raise
        if info.connecting is not None:  # else it has ended already
            self._dial = dial
        return 0

    def give_up(self):
        """Ends the dial that is under way: the flow is over."""
        dial = self._dial
        self.over()
        dial.cancel()

    cdef int over(self) except -1:
        self._dial = (<AgentInfo>self._flow.info).connecting = None
        self._target.dials -= 1          # before the hub hears of it, and sends the next
        return 0

    def _dialled(self, outcome):
        cdef Connections target = self._target
        self.over()
        if isinstance(outcome, OSError):
            target._failed(self._flow, outcome)
            return
        target.reached = True
        target._net.opened()
        end = end_of(target._context, self, target._net.call_later, TARGET_RESET, TARGET_LOST)
        target._net.adopt_end(outcome, end, target._notsent_lowat)

    def socket_ready(self, SocketEnd end not None):
        self._target.young[self] = end.transport
        if self._flow.closed:            # the client was faster
            end.abort()
            return
        if self._header:
            end.transport.write(self._header)
        end.carry(self._flow)
        self._flow.accept()

    def socket_gone(self, end):
        self._target.young.pop(self, None)
        self._target._net.gone()
        if self._flow.opening:           # there is no transport for it
            self._flow.reset(TARGET_UNREACHABLE)
