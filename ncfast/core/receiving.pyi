"""The half of a flow that receives, from its path to its socket."""

from ncfast.core.context import FlowBase

class Receiver(FlowBase):
    rcv_nxt: int
    rcv_limit: int
    window: int
