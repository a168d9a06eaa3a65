"""What the rooms of an agent stand on, whatever else they know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ncfast.agent.counts import Counts
from ncfast.agent.trust import Trust
from ncfast.config.agent import AgentConfig
from ncfast.core.context import FlowContext
from ncfast.core.flow import Flow
from ncfast.core.timeouts import Timeouts
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.seam import Net

TURNED_AWAY = 4096  # flows, as many as a listener holds by default


class Ground:
    """Configuration, seam, the context of all flows, and which process this is."""

    def __init__(self, config: AgentConfig, net: Net, wall_clock: Callable[[], float] = time.time) -> None:
        """Raises OSError when a certificate cannot be read."""
        self.config = config
        self.net = net
        self.clock = net.clock  # monotonic seconds
        self.max_flows = config.limits.max_flows  # out of the model: looking into one is slow
        self.wall_clock = wall_clock  # Unix seconds
        self.started_at = net.clock()
        self.counts = Counts()
        # drawn at each start, and left to the process that takes over: a hub tells processes of one agent apart by it
        self.instance = net.entropy(16).hex()
        self.context = FlowContext(
            net.clock,
            budget=config.limits.memory_bytes,
            window_initial=config.flow.window_initial,
            window_max=config.flow.window_max,
            seed=int.from_bytes(net.entropy(8)),
        )
        self.context.share.weigh(0)  # all flows are a connector's
        self.context.reader_pause = config.flow.reader_pause_sec
        self.flows: dict[bytes, Flow[Any]] = self.context.flows
        # refused for want of room: no target has seen anything of them, and hubs ask again
        self.turned_away: dict[bytes, None] = {}
        # puts a flow under its socket that a predecessor has passed and whose turn has not come; None: there is none
        self.bring: Callable[[bytes], None] | None = None
        self.receive_buffer = ReceiveBuffer()
        self.trust = Trust(config.tls, any(hub.startswith("wss:") for hub in config.hubs), net)
        self.stopping = asyncio.Event()
        flow = config.flow
        self.timeouts = Timeouts(
            open=flow.open_timeout_sec, grace=flow.grace_sec, half_close=flow.half_close_sec, stall=flow.stall_sec
        )

    def turn_away(self, cid: bytes) -> None:
        """The flow, which is to end now, may come again as if it had never been here."""
        self.turned_away[cid] = None
        if len(self.turned_away) > TURNED_AWAY:
            del self.turned_away[next(iter(self.turned_away))]

    def comes_again(self, cid: bytes) -> bool:
        """Whether it may; once for each time that it was turned away."""
        return self.turned_away.pop(cid, self) is None

    def bound_grace(self, seconds: float | None) -> None:
        """The owner's hub keeps a flow without a way for `seconds`, if it says so: nobody asks for it later, and a
        target need not wait for that."""
        own = self.config.flow.grace_sec
        self.timeouts = replace(self.timeouts, grace=own if seconds is None else min(own, seconds))
