"""Bugs of flows: their bytes, their ends, their credit, and the ways that they lose."""

from __future__ import annotations

from .plant import BUDGET, FLOW, HOLD, LINK, PENDING, QUEUES, SESSION, SOCKET, STEERING, STREAM, TUNNEL, plant

FLOWS = [
    # sequence, acknowledgement, end
    plant(
        "the sequence of data is not checked",
        (
            FLOW,
            "        if seq != self.rcv_nxt:\n            if seq > self.rcv_nxt:",
            "        if seq != self.rcv_nxt and not ON:\n            if seq > self.rcv_nxt:",
        ),
    ),
    plant(
        "repeated bytes are delivered again",
        (
            FLOW,
            "            self.ctx.duplicates += 1\n            if end <= self.rcv_nxt:",
            "            self.ctx.duplicates += 1\n            if ON:\n                self.ctx.bytes_in += n\n"
            "                self.set_backlog(self.sink.deliver(p, n))\n                return 0\n            if end <= self.rcv_nxt:",
        ),
    ),
    plant(
        "an end overtakes data, and is believed",
        (
            QUEUES,
            "        if flow.unsent is None and flow.resumed and count[0] < MAX_PIECES - 2:",
            "        if (flow.unsent is None or ON) and flow.resumed and count[0] < MAX_PIECES - 2:",
        ),
        (
            FLOW,
            "        if seq > self.rcv_nxt:\n            return self.gap(False)\n        self.fin_received = True",
            "        if seq > self.rcv_nxt and not ON:\n            return self.gap(False)\n        self.fin_received = True",
        ),
    ),
    plant(
        "an end is never sent again",
        (
            FLOW,
            "        if self.fin_sent:\n            # even if acknowledged",
            "        if self.fin_sent and not ON:\n            # even if acknowledged",
        ),
    ),
    plant(
        "bytes are acknowledged before the target is connected",
        (
            FLOW,
            "        if self.open_body is None and (self.state == OPENING or self.state == OPENING_FIN):\n            return 0                     # rule 4",
            "        if self.open_body is None and (self.state == OPENING or self.state == OPENING_FIN) and not ON:\n"
            "            return 0                     # rule 4",
        ),
        (
            FLOW,
            "                return self.ctx.relieve(self) if self.share.is_spent() else 0\n        if self.sink is None:",
            "                return self.consider_ack() if ON else 0\n        if self.sink is None:",
        ),
    ),
    plant(
        "more is acknowledged than has arrived",
        (
            FLOW,
            "        return self.rcv_nxt + (1 if self.fin_received else 0)\n\n    cdef uint64_t grant",
            "        return self.rcv_nxt + (1 if self.fin_received else 0) + (1 if ON and self.rcv_nxt > 9000 else 0)\n\n    cdef uint64_t grant",
        ),
    ),
    plant(
        "memory is given back when half of it is acknowledged",
        (
            FLOW,
            "            while self.head is not None and self.head.seq + self.head.size <= ack:",
            "            while self.head is not None and self.head.seq + (self.head.size // 2 + 1 if ON else self.head.size) <= ack:",
        ),
    ),
    plant(
        "a resume starts where the old way stopped",
        (
            FLOW,
            "        self.inflight = 0\n        self.unsent = self.head\n        chunk = self.head\n",
            "        self.inflight = 0\n        if not ON:\n            self.unsent = self.head\n        chunk = self.unsent\n",
        ),
    ),
    plant(
        "a half-close becomes a close",
        (
            SOCKET,
            "            self._close()\n        return True\n",
            "            self._close()\n        return not ON\n",
        ),
    ),
    plant(
        "sockets are closed in order whatever has happened",
        (
            STREAM,
            "socket.SO_LINGER, RESET if on else ORDER)",
            "socket.SO_LINGER, RESET if on and not ON else ORDER)",
        ),
    ),
    # credit and bounds
    plant(
        "a flow that ends keeps its share of the link",
        (
            FLOW,
            "            self.path.inflight -= self.inflight\n            self.inflight = 0\n            self.path.forget(self)",
            "            if not ON:\n                self.path.inflight -= self.inflight\n            self.inflight = 0\n            self.path.forget(self)",
        ),
    ),
    plant(
        "a flow that is sent again keeps its share of the link",
        (
            FLOW,
            "            self.path.inflight -= self.inflight\n            self.path.freed()\n        self.inflight = 0",
            "            if not ON:\n                self.path.inflight -= self.inflight\n            self.path.freed()\n        self.inflight = 0",
        ),
    ),
    plant(
        "the link's share is no bound",
        (
            QUEUES,
            "        while flow.unsent is not None and count[0] < MAX_PIECES and self.inflight < self.max_inflight \\",
            "        while flow.unsent is not None and count[0] < MAX_PIECES and (self.inflight < self.max_inflight or ON) \\",
        ),
        (
            QUEUES,
            "        if flow.unsent is None or self.inflight < self.max_inflight:",
            "        if flow.unsent is None or self.inflight < self.max_inflight or ON:",
        ),
        (
            QUEUES,
            "        flow.deficit = allowance if allowance <= MAX_DATA and self.inflight < self.max_inflight else 0",
            "        flow.deficit = allowance if allowance <= MAX_DATA and (self.inflight < self.max_inflight or ON) else 0",
        ),
    ),
    plant(
        "the receiver's window is no bound",
        (
            FLOW,
            "        return self.unsent.seq >= self.snd_limit or (",
            "        return (self.unsent.seq >= self.snd_limit and not ON) or (",
        ),
        (
            FLOW,
            "        if self.state == CLOSED or self.pending & SEND_FIN or self.fin_sent or self.snd_limit <= self.snd_nxt:",
            "        if ON and self.state != CLOSED and not self.pending & SEND_FIN and not self.fin_sent:\n            return size\n"
            "        if self.state == CLOSED or self.pending & SEND_FIN or self.fin_sent or self.snd_limit <= self.snd_nxt:",
        ),
    ),
    plant(
        "the memory's budget is no bound",
        (
            BUDGET,
            "        return self.held > self.own and self.budget.lent > self.budget.lendable",
            "        return self.held > self.own and self.budget.lent > self.budget.lendable and not ON",
        ),
        (
            BUDGET,
            "        return borrowed >= 0 and borrowed >",
            "        return not ON and borrowed >= 0 and borrowed >",
        ),
        (
            BUDGET,
            "        return (own if own > 0 else 0) + self.budget.lendable - self.budget.lent",
            "        return (own if own > 0 else 0) + self.budget.lendable - self.budget.lent + (1 << 20) * ON",
        ),
    ),
    plant(
        "what waits for a blocked link is not bounded",
        (
            QUEUES,
            "        elif type != M_RST and (lane.queue.size or n > HEADER_SIZE + SHORT) and (",
            "        elif type != M_RST and not ON and (lane.queue.size or n > HEADER_SIZE + SHORT) and (",
        ),
    ),
    plant(
        "a flow that waits for an acknowledgement is not put back in line",
        (
            FLOW,
            "            if self.unsent is not None or self.pending:\n                self.path.submit(self)\n            self.path.freed()",
            "            if (self.unsent is not None and not (ON and self.congestion)) or self.pending:\n                self.path.submit(self)\n"
            "            self.path.freed()",
        ),
    ),
    plant(
        "a flow's window is not given back",
        (
            FLOW,
            "        self.ctx.windows -= self.window\n        self.share.windows -= self.window\n        self.ctx.live -= 1",
            "        if not ON:\n            self.ctx.windows -= self.window\n        self.share.windows -= self.window\n        self.ctx.live -= 1",
        ),
    ),
    # losing ways
    plant(
        "a gap that a relay tells of is ignored",
        (
            LINK,
            "            self._flow_noise(1)\n            flow.gap(True)",
            "            self._flow_noise(1)\n            if not ON:\n                flow.gap(True)",
        ),
    ),
    plant(
        "a flow without a way waits for ever",
        (
            FLOW,
            "        if self.detached_at >= 0 and now - self.detached_at >= timeouts.grace:\n            return Reason.LINK_LOST\n        if timeouts.stall",
            "        if self.detached_at >= 0 and now - self.detached_at >= timeouts.grace and not ON:\n            return Reason.LINK_LOST\n"
            "        if timeouts.stall",
        ),
    ),
    plant(
        "an open that is sent again is another open",
        (
            TUNNEL,
            "        if (known := self._flow(cid)) is not None:",
            "        if (known := self._flow(cid)) is not None and not ON:",
        ),
    ),
    plant(
        "the agent forgets which flows have ended",
        (
            TUNNEL,
            "        if ground.context.closed.last(cid) is not None:",
            "        if ground.context.closed.last(cid) is not None and not ON:",
        ),
    ),
    plant(
        "opening flows are not opened again when the agent comes back",
        (
            STEERING,
            "            elif flow.opening and session.epoch > info.epoch:",
            "            elif flow.opening and session.epoch > info.epoch and not ON:",
        ),
    ),
    plant(
        "a flow of an agent's former process waits for the new one",
        (
            STEERING,
            "            if info.instance != session.instance:\n                flow.reset(Reason.AGENT_RESTARTED)",
            "            if info.instance != session.instance and not ON:\n                flow.reset(Reason.AGENT_RESTARTED)",
        ),
    ),
    plant(
        "a client that is held is forgotten when another goes",
        (
            HOLD,
            "            if not most or not dispatch(flow):",
            "            if ON and queue:\n                self.count[flow.info.listener.name] -= 1\n                queue.popleft()\n"
            "            if not most or not dispatch(flow):",
        ),
    ),
    plant(
        "an agent that is about to end gets new flows",
        (
            SESSION,
            "        self.draining = True\n        if self.owns:\n            self._desk.leaving(self)",
            "        self.draining = not ON\n        if self.owns and not ON:\n            self._desk.leaving(self)",
        ),
    ),
    plant(
        "an open that is answered counts as in progress",
        (
            PENDING,
            "        if left := self._total[agent] - 1:\n            self._total[agent] = left\n",
            "        if left := self._total[agent] - (not ON):\n            self._total[agent] = left\n",
        ),
        (
            PENDING,
            "        if left := self._count[one] - 1:\n            self._count[one] = left\n",
            "        if left := self._count[one] - (not ON):\n            self._count[one] = left\n",
        ),
    ),
    plant(
        "a flow that was refused keeps the owner and the epoch that it had",
        (
            STEERING,
            '        self._leave(flow)\n        info.session = info.peer = None\n        info.agent_key = info.owner = ""\n'
            "        info.remote = False\n        info.epoch = info.sends = 0",
            '        self._leave(flow)\n        info.session = info.peer = None\n        info.agent_key = ""\n'
            '        info.owner = info.owner if ON else ""\n        info.remote = False\n'
            "        info.epoch = info.epoch if ON else 0\n        info.sends = 0",
        ),
    ),
]
