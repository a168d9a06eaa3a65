"""Opens of our clients' flows: which flow is which agent's, and what M_OPEN says on its way there.

Compiled because each client's flow comes through here. `ncfast.hub.steering` adds what becomes of flows whose way is
lost.
"""

from ncfast.core.ends cimport Path
from ncfast.core.flow cimport Flow
from ncfast.core.packed cimport packed
from ncfast.hub.info cimport ClientInfo
from ncfast.hub.pending cimport PendingOpens

from ncfast.core.messages import Sought
from ncfast.core.opening import Opening
from ncfast.hub.session import AgentSession

UNDIRECTED = b""               # what M_OPEN says of a flow that is on no way yet

cdef enum:
    KNOWN = 1024               # agents and connectors for which what M_RESUME says is kept

cdef dict sought = {}


cdef bytes sought_of(str agent, str tenant, str connector):
    one = agent, tenant, connector
    found = sought.get(one)
    if found is None:
        if len(sought) >= KNOWN:
            sought.clear()
        found = sought[one] = Sought(agent=agent, tenant=tenant or None, connector=connector).pack()
    return found


cdef class Opens:
    """The flows of our clients by agent, each on its way."""

    def __init__(self, ground not None, PendingOpens pending not None):
        self._ground = ground
        self._pending = pending
        self._flows_of = {}
        self._waiting = {}

    def flows_of(self, str agent not None):
        """Our clients' flows to this agent."""
        return self._flows_of.get(agent, ())

    cpdef open(self, Flow flow, str agent, str instance, way, epoch, Py_ssize_t credit=0):
        """The flow is the agent's, and its process's, from now on; M_OPEN leaves."""
        cdef ClientInfo info = flow.info
        info.agent_key = agent
        info.instance = instance
        flows = self._flows_of.get(agent)
        if flows is None:
            flows = self._flows_of[agent] = {}
        flows[flow] = None
        self.send_open(flow, way, epoch, credit)

    cpdef send_open(self, Flow flow, way, epoch, Py_ssize_t credit=0):
        """M_OPEN by a tunnel, or by the link to the owner; `credit` is what the agent gives then."""
        cdef ClientInfo info = flow.info
        cdef Path link = <Path?>way.link
        info.sends += 1
        if self._waiting:
            self._waits_no_more(flow)
        self.use(flow, way, epoch)
        if not info.counted:
            info.counted = True
            self._pending.begin(info.agent_key, info.key[1])
        flow.put_on(link, True, epoch, credit)

    cpdef use(self, Flow flow, way, epoch):
        """Notes by which way the flow goes from now on, and lets its M_OPEN and M_RESUME say what they must there."""
        cdef ClientInfo info = flow.info
        cdef bint here = isinstance(way, AgentSession)
        cdef str owner = self._ground.replica_id if here else way.replica_id
        if info.owner and info.owner != owner:
            self._ground.stats.failovers += 1
        info.owner = owner
        info.remote = not here
        if epoch > info.epoch:
            info.epoch = epoch
        if here:
            info.session, info.peer = way, None
            flow.direct(self.said(flow, info, way, "", "") if flow.opening else UNDIRECTED)
        else:
            info.session, info.peer = None, way
            tenant, _, agent = info.agent_key.partition("/")
            flow.direct(self.said(flow, info, way, agent, tenant), sought_of(agent, tenant, info.key[1]))

    cdef bytes said(self, Flow flow, ClientInfo info, way, str agent, str tenant):
        """What M_OPEN says on this way, in the form that is read there."""
        cdef str origin = self._ground.replica_id
        if way.packed_open:
            return packed(info.key[1], info.name, flow.secret, origin, info.ends, agent, tenant)
        return Opening(info.key[1], info.name, flow.secret, origin, info.ends, agent, tenant).json()

    cpdef answered(self, Flow flow):
        """The open is no longer in progress."""
        cdef ClientInfo info = flow.info
        if info.counted:
            info.counted = False
            self._pending.end(info.agent_key, info.key[1])

    cpdef closed(self, Flow flow):
        """The flow is over; what is known of its way stays for the log."""
        cdef ClientInfo info = flow.info
        cdef bint gives_room = info.counted
        self.answered(flow)
        self._leave(flow)
        if gives_room:
            self.give_turns(info.agent_key, info.key[1], 1)

    cpdef _leave(self, Flow flow):
        cdef ClientInfo info = flow.info
        flows = self._flows_of.get(info.agent_key)
        if flows is not None:
            (<dict>flows).pop(flow, None)
            if not flows:
                del self._flows_of[info.agent_key]
        if self._waiting:
            self._waits_no_more(flow)

    # flows that wait to be opened again

    def _waits_no_more(self, flow):
        raise NotImplementedError

    def give_turns(self, agent, connector, most):
        """Opens those of the connector again that have waited for longest, as far as the agent may have more; how many,
        at most `most`."""
        raise NotImplementedError
