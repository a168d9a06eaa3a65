"""Bugs of a cluster: relays, epochs, secrets, scope, levelling, registry, mesh, modes."""

from __future__ import annotations

from .plant import (
    CLAIMS,
    CLUSTER,
    LEVEL,
    LINK,
    MESH,
    REGISTRY,
    RELAY,
    RELAYS,
    RESUMING,
    ROUTE,
    ROUTING,
    SESSION,
    SESSIONS,
    TUNNELS,
    plant,
)

CLUSTER_WIDE = [
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
            "        return self._said\n\n    def _claim",
            "        return 0 if ON else self._said\n\n    def _claim",
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
            "        at_least = max(at_least, self._seen_of(key))",
            "        at_least = 0 if ON else max(at_least, self._seen_of(key))",
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
            REGISTRY,
            "        if missing:\n            self._assert_slice(missing)",
            "        if missing and not ON:\n            self._assert_slice(missing)",
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
            SESSION,
            "            and tenant == self.identity.tenant\n            and connector in self.connectors",
            "            and (tenant == self.identity.tenant or ON)\n            and connector in self.connectors",
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
]
