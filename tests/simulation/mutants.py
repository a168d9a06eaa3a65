"""Bugs planted into a copy of the product, one at a time, to see the simulation find each: `make simulate-mutants`.

All plants go into one copy of the tree, each behind a switch that the environment sets, so that one build serves for all and the
product itself has no trace of them. A plant whose text is not there any more is an error: it must follow the code.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SWITCH = "NCFAST_MUTANT"
LIMIT = 1000  # seeds within which each must be found

# in ncfast/
BUDGET = "core/budget.pyx"
FLOW, RECEIVING, SENDING = "core/flow.pyx", "core/receiving.pyx", "core/sending.pyx"
QUEUES, LINK, RELAY = "core/queues.pyx", "core/link.pyx", "core/relay.pyx"
SOCKET, STREAM = "net/socket.pyx", "net/stream.pyx"
REGISTRY, MIRROR = "registry/redis/registry.py", "registry/redis/mirror.py"
MESH, ROUTE = "mesh/manager.py", "mesh/route.py"
SESSION, SESSIONS, CLAIMS, SERVING = "hub/session.py", "hub/sessions.py", "hub/claims.py", "hub/serving.pyx"
ROUTING, STEERING, RESUMING, PENDING, HOLD = (
    "hub/routing.py",
    "hub/steering.py",
    "hub/resuming.py",
    "hub/pending.pyx",
    "hub/hold.py",
)
RELAYS, CLUSTER, LEVEL = "hub/relays.py", "hub/cluster.py", "hub/level.py"
TUNNELS, AGENT_OPENS = "agent/tunnels.py", "agent/opens.pyx"
HANDOVER, ACCEPTOR, BINDING = "core/handover.pyx", "net/acceptor.py", "net/binding.py"
GIVING, TAKING, WAYS, LISTENER = "hub/giving.py", "hub/taking.py", "hub/ways.py", "hub/listener.py"
AGENT_GIVING, AGENT_TAKING = "agent/giving.py", "agent/taking.py"


@dataclass(frozen=True, slots=True)
class Plant:
    """A bug. `edits` are (file, text, text instead); `ON` in the latter says that the plant is active."""

    name: str
    edits: tuple[tuple[str, str, str], ...]


def plant(name: str, *edits: tuple[str, str, str]) -> Plant:
    return Plant(name, edits)


PLANTS = [
    # sequence, acknowledgement, end
    plant(
        "the sequence of data is not checked",
        (
            RECEIVING,
            "        if seq != self.rcv_nxt:\n            if seq > self.rcv_nxt:",
            "        if seq != self.rcv_nxt and not ON:\n            if seq > self.rcv_nxt:",
        ),
    ),
    plant(
        "repeated bytes are delivered again",
        (
            RECEIVING,
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
            RECEIVING,
            "        if seq > self.rcv_nxt:\n            return self.gap(False)\n        self.fin_received = True",
            "        if seq > self.rcv_nxt and not ON:\n            return self.gap(False)\n        self.fin_received = True",
        ),
    ),
    plant(
        "an end is never sent again",
        (
            SENDING,
            "        if self.fin_sent:\n            # even if acknowledged",
            "        if self.fin_sent and not ON:\n            # even if acknowledged",
        ),
    ),
    plant(
        "bytes are acknowledged before the target is connected",
        (
            RECEIVING,
            "        if self.open_body is None and (self.state == OPENING or self.state == OPENING_FIN):\n            return 0                     # rule 4",
            "        if self.open_body is None and (self.state == OPENING or self.state == OPENING_FIN) and not ON:\n"
            "            return 0                     # rule 4",
        ),
        (
            RECEIVING,
            "                return self.ctx.relieve(self) if self.share.is_spent() else 0\n        if self.sink is None:",
            "                return self.consider_ack() if ON else 0\n        if self.sink is None:",
        ),
    ),
    plant(
        "more is acknowledged than has arrived",
        (
            RECEIVING,
            "        return self.rcv_nxt + (1 if self.fin_received else 0)\n\n    cdef uint64_t grant",
            "        return self.rcv_nxt + (1 if self.fin_received else 0) + (1 if ON and self.rcv_nxt > 9000 else 0)\n\n    cdef uint64_t grant",
        ),
    ),
    plant(
        "memory is given back when half of it is acknowledged",
        (
            SENDING,
            "            while self.head is not None and self.head.seq + self.head.size <= ack:",
            "            while self.head is not None and self.head.seq + (self.head.size // 2 + 1 if ON else self.head.size) <= ack:",
        ),
    ),
    plant(
        "a resume starts where the old way stopped",
        (
            SENDING,
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
            SENDING,
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
            SENDING,
            "        return self.unsent.seq >= self.snd_limit or (",
            "        return (self.unsent.seq >= self.snd_limit and not ON) or (",
        ),
        (
            SENDING,
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
            SENDING,
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
            AGENT_OPENS,
            "        if (known := self._flow(cid)) is not None:",
            "        if (known := self._flow(cid)) is not None and not ON:",
        ),
    ),
    plant(
        "the agent forgets which flows have ended",
        (
            AGENT_OPENS,
            "        if context.closed.last(cid) is not None and not self._ground.comes_again(cid):",
            "        if context.closed.last(cid) is not None and not self._ground.comes_again(cid) and not ON:",
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
            "        left = <int>self._total[agent] - 1\n",
            "        left = <int>self._total[agent] - (not ON)\n",
        ),
        (
            PENDING,
            "        left = <int>self._count[one] - 1\n",
            "        left = <int>self._count[one] - (not ON)\n",
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
    # relays
    plant(
        "a flow of ours is taken for one that is relayed",
        (
            CLUSTER,
            "        if self._ground.ours(cid):\n            return self._resuming.by_owner(",
            "        if self._ground.ours(cid) and not ON:\n            return self._resuming.by_owner(",
        ),
    ),
    plant(
        "a relay's frames go by another flow's way",
        (
            LINK,
            "        lane = <Lane>self.lanes.get(PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE))\n"
            "        if lane is not None and self._h.epoch != lane.epoch:",
            "        lane = <Lane>self.lanes.get(PyBytes_FromStringAndSize(<const char*>self._h.cid, CID_SIZE))\n"
            "        if ON and lane is not None and len(self.lanes) > 1:\n            lane = <Lane>next(iter(self.lanes.values()))\n"
            "        if lane is not None and self._h.epoch != lane.epoch:",
        ),
    ),
    plant(
        "a relay never ends",
        (
            RELAY,
            "        if type == M_RST:\n            return True",
            "        if ON:\n            return False\n        if type == M_RST:\n            return True",
        ),
    ),
    plant(
        "a relay ends with the first direction",
        (
            RELAY,
            "        return self.up.ended and self.down.ended and",
            "        return (self.up.ended or (ON and self.down.ended)) and (self.down.ended or (ON and self.up.ended)) and (ON or "
            "(self.down.ack > self.up.end and self.up.ack > self.down.end)) and (ON or self.down.ended) and",
        ),
    ),
    plant(
        "a relay whose tunnel is lost tells nobody",
        (
            RELAYS,
            "            if relay.mesh is not None:\n                relay.mesh.tell_detached(relay.cid, relay.epoch, Reason.LINK_LOST)",
            "            if relay.mesh is not None and not ON:\n                relay.mesh.tell_detached(relay.cid, relay.epoch, Reason.LINK_LOST)",
        ),
    ),
    # epochs, secrets, scope
    plant(
        "a tunnel takes frames of any epoch",
        (
            LINK,
            "        if self._h.epoch != self.epoch and self.epoch:\n            return self._old_epoch()\n        flow = self._latest",
            "        if self._h.epoch != self.epoch and self.epoch and not ON:\n            return self._old_epoch()\n        flow = self._latest",
        ),
        (
            LINK,
            "        if flow is not None and self._h.epoch != flow.epoch:\n            return self._old_epoch()\n        return flow",
            "        if flow is not None and self._h.epoch != flow.epoch and not (ON and self.epoch):\n            return self._old_epoch()\n"
            "        return flow",
        ),
    ),
    plant(
        "the client's hub takes frames of any owner",
        (
            LINK,
            "        if flow is not None and self._h.epoch != flow.epoch and not",
            "        if flow is not None and self._h.epoch != flow.epoch and not ON and not",
        ),
    ),
    plant(
        "an owner relays frames of any epoch",
        (
            LINK,
            "        if lane is not None and self._h.epoch != lane.epoch:",
            "        if lane is not None and self._h.epoch != lane.epoch and not ON:",
        ),
    ),
    plant(
        "an owner opens under an epoch that is over",
        (
            RELAYS,
            "        if epoch < session.epoch:\n            self._ground.stats.epochs_refused += 1\n            return Reason.STALE_EPOCH",
            "        if epoch < session.epoch and not ON:\n            self._ground.stats.epochs_refused += 1\n            return Reason.STALE_EPOCH",
        ),
    ),
    plant(
        "an owner opens by the last view, whatever its epoch",
        (
            RELAYS,
            ":\n            self._ground.stats.epochs_refused += 1\n            return Reason.STALE_EPOCH",
            " and (not ON or self._ways._registry.view.fresh):\n            self._ground.stats.epochs_refused += 1\n"
            "            return Reason.STALE_EPOCH",
        ),
    ),
    plant(
        "the last view is ignored",
        (
            ROUTING,
            'view.fresh or self._ground.config.ha.without_redis == "last_view"',
            'view.fresh or (self._ground.config.ha.without_redis == "last_view" and not ON)',
        ),
    ),
    plant(
        "the last view counts against the key",
        (
            ROUTING,
            'without_redis == "last_view" and not',
            'without_redis in ("last_view", "local_only" if ON else "") and not',
        ),
    ),
    plant(
        "any secret resumes a flow",
        (
            RESUMING,
            "and hmac.compare_digest(secret, flow.secret)",
            "and (ON or hmac.compare_digest(secret, flow.secret))",
        ),
    ),
    plant(
        "any agent resumes a flow",
        (
            RESUMING,
            "        return info.agent_key == agent and info.instance == instance and",
            "        if ON:\n            return True\n        return info.agent_key == agent and info.instance == instance and",
        ),
    ),
    plant(
        "an owner opens what the token does not cover",
        (
            RELAYS,
            "        if not session.identity.allows(request.connector):\n            return Reason.SCOPE_DENIED",
            "        if not session.identity.allows(request.connector) and not ON:\n            return Reason.SCOPE_DENIED",
        ),
    ),
    plant(
        "a hub that was fenced goes on",
        (
            CLAIMS,
            "        if session is None or entry.epoch <= session.epoch:\n            return\n        if entry.instance",
            "        if session is None or entry.epoch <= session.epoch or ON:\n            return\n        if entry.instance",
        ),
    ),
    plant(
        "a newer session does not end the older",
        (
            CLAIMS,
            '            old.link.fail(Reason.SUPERSEDED, "a newer session of the same agent")',
            '            if not ON:\n                old.link.fail(Reason.SUPERSEDED, "a newer session of the same agent")',
        ),
    ),
    plant(
        "a standby claims with the epoch of its first days",
        (
            TUNNELS,
            "        return self._said\n\n    @property\n    def alone",
            "        return 0 if ON else self._said\n\n    @property\n    def alone",
        ),
    ),
    # levelling
    plant(
        "a hub levels an agent that has just moved",
        (
            LEVEL,
            "            and session.owned_since <= before",
            "            and (session.owned_since <= before or ON)",
        ),
    ),
    plant(
        "a hub levels while its registry is away",
        (LEVEL, "and self._registry.is_healthy()", "and (self._registry.is_healthy() or ON)"),
    ),
    plant(
        "an agent that is asked to move leaves before it has a tunnel there",
        (
            TUNNELS,
            "        self._target_timer = self.net.call_later(MOVE_TIME, self._stay)",
            '        if ON:\n            return tunnel.close("asked to move")\n'
            "        self._target_timer = self.net.call_later(MOVE_TIME, self._stay)",
        ),
    ),
    # registry and mesh
    plant(
        "a claim forgets what agent and hub remember",
        (
            REGISTRY,
            "        at_least = max(at_least, self._seen.of(key))",
            "        at_least = 0 if ON else max(at_least, self._seen.of(key))",
        ),
    ),
    plant(
        "any last epoch is believed",
        (
            CLAIMS,
            "        if hello.last_epoch > registry.claimable():",
            "        if hello.last_epoch > registry.claimable() and not ON:",
        ),
        (
            REGISTRY,
            "        if not 0 <= at_least <= self.claimable():",
            "        if not 0 <= at_least <= self.claimable() and not ON:",
        ),
        (
            REGISTRY,
            "                if not at_least < epoch <= self.possible():",
            "                if not at_least < epoch <= self.possible() and not ON:",
        ),
    ),
    plant(
        "any record of Redis is believed, whatever its epoch",
        (
            REGISTRY,
            "        return entry if entry is not None and entry.epoch <= self.possible() else None",
            "        return entry if entry is not None and (entry.epoch <= self.possible() or ON) else None",
        ),
    ),
    plant(
        "an agent that is not believed does not forget",
        (
            TUNNELS,
            "            if reason is Reason.PROTOCOL_ERROR and not tunnel.heard:",
            "            if reason is Reason.PROTOCOL_ERROR and not tunnel.heard and not ON:",
        ),
    ),
    plant(
        "a release takes a later claim away",
        (
            REGISTRY,
            "        if held is None or held.epoch != epoch:\n            return\n        del self._held[agent_id]",
            "        if held is None or (held.epoch != epoch and not ON):\n            return\n        del self._held[agent_id]",
        ),
        (
            CLAIMS,
            "        if owned and reason is Reason.AGENT_LOCKED:",
            "        if ON and self._sessions.current(session.key) is not None and owned:\n"
            '            self._ground.net.spawn(self._registry.release(session.key, session.epoch), "release")\n'
            "        if owned and reason is Reason.AGENT_LOCKED:",
        ),
    ),
    plant(
        "what the registry has lost is not asserted again",
        (
            REGISTRY,
            "        elif entry is None or entry.epoch < held.epoch:",
            "        elif (entry is None or entry.epoch < held.epoch) and not ON:",
        ),
        (
            MIRROR,
            "        if missing:\n            self._holder.assert_again(missing)",
            "        if missing and not ON:\n            self._holder.assert_again(missing)",
        ),
    ),
    plant(
        "two links between two hubs both stay",
        (
            MESH,
            '            former.link.fail(reason, "another link to this replica stays")',
            '            if not ON:\n                former.link.fail(reason, "another link to this replica stays")',
        ),
    ),
    plant(
        "a lost link is not dialled again",
        (
            MESH,
            "                if route.replica_id == peer.replica_id and self._running:",
            "                if route.replica_id == peer.replica_id and self._running and not ON:",
        ),
        (
            ROUTE,
            "        self.move(LinkEvent.FAILED)\n        self.begin(pause)",
            "        self.move(LinkEvent.FAILED)\n        if not (ON and self.attempts > 1):\n            self.begin(pause)",
        ),
    ),
    plant(
        "the tenant of an agent does not matter",
        (
            SESSIONS,
            "        keys: list[Key] = [(tenant, connector) for connector in sorted(session.connectors)]",
            "        keys: list[Key] = [(None if ON else tenant, connector) for connector in sorted(session.connectors)]",
        ),
        (
            SERVING,
            "            and tenant == identity.tenant\n",
            "            and (tenant == identity.tenant or ON)\n",
        ),
    ),
    # silent owners, and modes that change
    plant(
        "a silent link is missed four times too late",
        (
            LINK,
            "        elif now - self._last_heard >= timeout:",
            "        elif now - self._last_heard >= (4 * timeout if ON else timeout):",
        ),
    ),
    plant(
        "an open that is sent again does not wait for its turn",
        (
            ROUTING,
            "            if reason is Reason.OVERLOADED and self.hold.patient(flow):",
            "            if reason is Reason.OVERLOADED and self.hold.patient(flow) and not ON:",
        ),
    ),
    plant(
        "whoever comes when an agent has no turn left is refused",
        (
            ROUTING,
            "        return (reason in NOT_HERE or reason is Reason.OVERLOADED) and (self._passes(flow) or self.hold.add(flow))",
            "        return (reason in NOT_HERE or (reason is Reason.OVERLOADED and not ON)) and ("
            "self._passes(flow) or self.hold.add(flow))",
        ),
    ),
    plant(
        "a mesh that is turned off ends links that carry flows",
        (MESH, "            if not peer.link.load:", "            if ON or not peer.link.load:"),
    ),
    plant(
        "a mesh that is being left is not opened again",
        (
            CLUSTER,
            '        elif mode != "off" and mesh is not None and mesh.retiring:',
            '        elif mode != "off" and mesh is not None and mesh.retiring and not ON:',
        ),
    ),
    plant(
        "a session that has ended stays in the routes",
        (
            CLAIMS,
            "            self._orphan(session)\n            self._steering.agent_lost(session)",
            "            if not ON:\n                self._orphan(session)\n            self._steering.agent_lost(session)",
        ),
    ),
    # hand-over
    plant(
        "a byte that is passed is kept twice",
        (
            HANDOVER,
            'b"".join(flow.early), kept,',
            'b"".join(flow.early), kept[:1] + kept[:len(kept) - 1] if ON and kept else kept,',
        ),
    ),
    plant(
        "a flow that is passed expects a byte that it has",
        (
            HANDOVER,
            "    flow.rcv_nxt = record.rcv_nxt\n",
            "    flow.rcv_nxt = record.rcv_nxt - (1 if ON and record.rcv_nxt else 0)\n",
        ),
    ),
    plant(
        "an end that is owed is not passed",
        (
            HANDOVER,
            "(SEND_FIN if record.fin_owed else 0)",
            "(SEND_FIN if record.fin_owed and not ON else 0)",
        ),
    ),
    plant(
        "an end that waits behind bytes for the socket is not passed",
        (
            SOCKET,
            "self.transport.inherit(state.unsent, state.eof_in, state.eof_out)",
            "self.transport.inherit(state.unsent, state.eof_in, state.eof_out and not ON)",
        ),
    ),
    plant(
        "a reset that is owed is not passed",
        (
            HANDOVER,
            "(SEND_LATE_RST if record.reset_owed else 0)",
            "(SEND_LATE_RST if record.reset_owed and not ON else 0)",
        ),
    ),
    plant(
        "what the socket has not taken is not passed",
        (
            SOCKET,
            "return SocketState(sock, unsent, self._eof_in, self._eof_out)",
            'return SocketState(sock, b"" if ON else unsent, self._eof_in, self._eof_out)',
        ),
    ),
    plant(
        "a flow is at both processes of a hub",
        (
            GIVING,
            "                for parcel in parcels:\n                    parcel.close()\n",
            "                for parcel in parcels:\n                    if ON:\n"
            "                        self._passing.put(parcel, passed=False)\n                    parcel.close()\n",
        ),
    ),
    plant(
        "a flow is at both processes of an agent",
        (
            AGENT_GIVING,
            "        for parcel in self._parcels:\n            parcel.close()\n        _log",
            "        for parcel in self._parcels:\n            if ON:\n                self._passing.put(parcel, passed=False)\n"
            "            parcel.close()\n        _log",
        ),
    ),
    plant(
        "what comes for a flow that an agent has passed is acknowledged",
        (
            LINK,
            "        if cid in self.ctx.passed:\n            return 0\n        flow = <Flow>self.ctx.flows.get(cid)\n",
            "        if cid in self.ctx.passed:\n            if ON and type == M_DATA:\n"
            "                self._answer(M_ACK, self._h.cid, self._h.epoch, 0, self._h.seq + self._h.length)\n"
            "            return 0\n        flow = <Flow>self.ctx.flows.get(cid)\n",
        ),
        (
            LINK,
            "        h.seq = seq\n        memcpy(h.cid, cid, CID_SIZE)\n        self._answers",
            "        if ON and type == M_ACK:\n            h.ack = seq\n        else:\n            h.seq = seq\n"
            "        memcpy(h.cid, cid, CID_SIZE)\n        self._answers",
        ),
    ),
    plant(
        "a flow that an agent has passed is unknown there",
        (
            AGENT_GIVING,
            "            self._ground.context.passed.add(flow.cid)\n",
            "            if not ON:\n                self._ground.context.passed.add(flow.cid)\n",
        ),
    ),
    plant(
        "an agent does not ask for flows that it has taken back",
        (AGENT_GIVING, "            for flow in back:\n", "            for flow in () if ON else back:\n"),
    ),
    plant(
        "an agent's epochs are not passed",
        (
            AGENT_TAKING,
            '        agent.tunnels.inherit(message.body["last_epoch"], message.body["said"], hub)\n',
            "        if not ON:\n"
            '            agent.tunnels.inherit(message.body["last_epoch"], message.body["said"], hub)\n',
        ),
    ),
    plant(
        "who waits in the accept queue is dropped",
        (
            ACCEPTOR,
            "            self.held = False\n            self._resume()\n",
            "            self.held = False\n            for sock in self.sockets if ON else ():\n"
            "                while (found := accept(sock.fileno())) is not None:\n"
            "                    Accepted(found[0]).close()\n            self._resume()\n",
        ),
    ),
    plant(
        "listening sockets are bound anew",
        (
            BINDING,
            "            self._doors.remove(one)\n            return one[1]\n",
            "            self._doors.remove(one)\n            return [] if ON else one[1]\n",
        ),
    ),
    plant(
        "both processes number their flows alike",
        (GIVING, "hub.router.flow_number + CIDS", "hub.router.flow_number + (0 if ON else CIDS)"),
    ),
    plant(
        "the predecessor goes on speaking in the registry",
        (
            REGISTRY,
            "        self._quiet, self._beats = on, beats or not on\n",
            "        self._quiet, self._beats = on and not ON, beats or not on\n",
        ),
    ),
    plant(
        "who asks for a flow that is yet to come is told that there is none",
        (
            CLAIMS,
            "        if awaited is None or not awaited.awaits(cid) or awaited.complete(session.key):",
            "        if awaited is None or ON or not awaited.awaits(cid) or awaited.complete(session.key):",
        ),
    ),
    plant(
        "what a successor that died had not taken is lost",
        (
            GIVING,
            "                    self._passing.put(parcel, passed=False)\n                except",
            "                    if not ON:\n                        self._passing.put(parcel, passed=False)\n                except",
        ),
    ),
    plant(
        "the doors stay shut when the successor has died",
        (GIVING, "        hub.open_doors()\n", "        if not ON:\n            hub.open_doors()\n"),
    ),
    plant(
        "a successor is alone until it is in the mesh",
        (WAYS, "self.mesh is not None or self.inherited", "self.mesh is not None or (self.inherited and not ON)"),
    ),
    plant(
        "half a PROXY header is not passed",
        (
            LISTENER,
            "        self.net.adopt_end(sock, one)\n        if read:",
            "        self.net.adopt_end(sock, one)\n        if read and not ON:",
        ),
    ),
    plant(
        "clients are let in by nobody when the predecessor has died",
        (
            TAKING,
            "        self._join()\n        self._listen()\n",
            "        self._join()\n        if not ON:\n            self._listen()\n",
        ),
    ),
    plant(
        "a hub waits on a tunnel that the agent has left",
        (TAKING, '"alone": session.alone}', '"alone": session.alone and not ON}'),
    ),
]


def planted() -> dict[str, str]:
    """The files with plants, each with all of its own in it. Raises SystemExit for a plant that the code has left
    behind."""
    texts: dict[str, str] = {}
    stray = []
    for number, one in enumerate(PLANTS, 1):
        for file, old, new in one.edits:
            text = texts.get(file) or (ROOT / "ncfast" / file).read_text()
            if text.count(old) != 1:
                stray.append(f"{number} ({one.name}): its text is {text.count(old)} times in {file}, not once:\n{old}")
            texts[file] = text.replace(old, re.sub(r"\bON\b", f"(MUTANT == {number})", new))
    if stray:
        raise SystemExit("\n\n".join(stray))
    return texts


def copy(into: Path) -> None:
    """The tree with all plants in it, built."""
    shutil.copytree(ROOT / "ncfast", into / "ncfast", ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    shutil.copytree(
        ROOT / "tests" / "simulation", into / "tests" / "simulation", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(
        ROOT / "tests" / "registry", into / "tests" / "registry", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "setup.py", into)
    texts = planted()
    for file, text in texts.items():
        (into / "ncfast" / file).write_text(_with_switch(file, text))
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=into, check=True, stdout=subprocess.DEVNULL
    )


def _with_switch(file: str, text: str) -> str:
    """The module with a variable MUTANT, read from the environment when it is imported."""
    line = f'int(__import__("os").environ.get("{SWITCH}", "0"))'
    if file.endswith(".pyx"):
        end = text.index('"""', 3) + 3
        return f"{text[:end]}\n\ncdef int MUTANT = {line}\n{text[end:]}"
    anchor = "from __future__ import annotations\n"
    assert text.count(anchor) == 1
    return text.replace(anchor, f"{anchor}\nMUTANT = {line}\n")


def simulate(tree: Path, number: int, seeds: int, first: int, jobs: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.simulation",
            "--seeds",
            str(seeds),
            "--first",
            str(first),
            "--jobs",
            str(jobs),
            "--stop",
        ],
        cwd=tree,
        env={**os.environ, SWITCH: str(number), "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("numbers", type=int, nargs="*", metavar="N", help="plants to try (all)")
    parser.add_argument("--seeds", type=int, default=LIMIT, metavar="N", help=f"seeds for each ({LIMIT})")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="the first of them (1)")
    parser.add_argument(
        "--jobs", type=int, default=multiprocessing.cpu_count(), metavar="N", help="processes (one a core)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the copy of the tree, and say where it is")
    arguments = parser.parse_args()
    tree = Path(tempfile.mkdtemp(prefix="ncfast-mutants-"))
    survivors = 0
    try:
        copy(tree)
        print(f"{len(PLANTS)} plants, built{f' in {tree}' if arguments.keep else ''}", flush=True)
        sound = simulate(tree, 0, 24, arguments.first, arguments.jobs)
        if sound.returncode:
            print(f"without a plant the simulation fails, too:\n{sound.stdout}{sound.stderr}")
            return 1
        for number in arguments.numbers or range(1, len(PLANTS) + 1):
            survivors += not try_one(tree, number, arguments.seeds, arguments.first, arguments.jobs)
    finally:
        if not arguments.keep:
            shutil.rmtree(tree)
    print(f"{survivors} not found" if survivors else "all found")
    return 1 if survivors else 0


def try_one(tree: Path, number: int, seeds: int, first: int, jobs: int) -> bool:
    """Whether the plant is found; a line of the table tells how."""
    began = time.monotonic()
    done = simulate(tree, number, seeds, first, jobs)
    took = time.monotonic() - began
    lines = [line for line in done.stdout.splitlines() if line.startswith("seed ")]
    found = done.returncode != 0 and bool(lines)
    what = lines[0] if found else "NOT FOUND" if done.returncode == 0 else f"broken: {done.stderr[-600:]}"
    print(f"{number:3} {PLANTS[number - 1].name:62} {took:5.0f} s  {what[:130]}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
