"""M_OPEN as it comes on a tunnel: whether the flow is here, or was, and which target it is for.

Compiled because each flow comes by here. `ncfast.agent.tunnel` adds what else a hub says.
"""

from libc.stdint cimport uint64_t

from ncfast.agent.connection cimport Connections
from ncfast.core.context cimport FlowContext
from ncfast.core.packed cimport CONNECTOR, unpacked

from ncfast.core.errors import Reason, RemoteError
from ncfast.core.opening import PACKED as _PACKED, Opening

cdef bytes PACKED = _PACKED


cdef class Opens:
    """At the agent's end of a tunnel."""

    def __init__(self, ground, services):
        self._ground = ground
        self._services = services

    def _on_frame__open(self, bytes cid not None, epoch, uint64_t limit, bytes body not None):
        cdef Link link = self.link
        cdef FlowContext context = link.ctx
        cdef Connections target
        cdef tuple request
        if not self._may():
            return
        if (known := self._flow(cid)) is not None:
            if (<Flow?>known).path is not link and not self._left_behind(known):
                self.carry(known)        # it had lost its way to the client's hub, and this is the new one
            return                       # otherwise sent again after a cut, or before the flow left, and no news
        if context.closed.last(cid) is not None and not self._ground.comes_again(cid):
            link.refuse(cid, Reason.LINK_LOST)    # we had it, it ended while the tunnel was cut
            return
        request = self.read(body)
        if request is None:
            return
        target = (<dict>self._services.targets).get(request[CONNECTOR])
        if target is None:
            link.refuse(cid, Reason.NO_SUCH_CONNECTOR)
            return
        if len(context.flows) + len(context.passed) >= <long>self._ground.max_flows or target.share.is_pressed():
            link.refuse(cid, Reason.OVERLOADED)
            return
        target.open(link, cid, limit, request)

    cdef tuple read(self, bytes body):
        """The members of what `Opening.read` has made, or None."""
        try:
            return unpacked(body) if body.startswith(PACKED) else tuple(Opening.unpack(body))
        except RemoteError as exc:
            self.link.fail(exc.reason, exc.detail)
            return None

    cpdef bint _may(self) except -1:
        """Whether the hub may use our services; ends a tunnel over which one that owns nothing of ours would."""
        if not self.owns:
            self.link.fail(Reason.PROTOCOL_ERROR, "a flow on a tunnel that does not own")
        return self.owns

    cpdef bint _left_behind(self, Flow flow) except -1:
        """Whether the flow has gone on to a later tunnel: what asks for it here was on its way."""
        return flow.path is not None and flow.path.epoch > self.link.epoch

    cpdef _flow(self, bytes cid):
        """The flow that a frame names, if it is here; one that a predecessor has passed comes in for that."""
        bring = self._ground.bring
        if bring is not None:
            bring(cid)
        return (<dict>self._ground.flows).get(cid)

    # what is not usual

    def carry(self, flow):
        """A flow that is here goes by this tunnel from now on."""
        raise NotImplementedError
