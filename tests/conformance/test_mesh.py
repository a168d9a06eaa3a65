"""The scripted hub of a cluster: ours keeps every rule beside it, and each planted fault is named by its rule."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from support.until import PATIENCE

from conformance.ours import our_hub
from conformance.playing import broken
from ncfast.conformance.mesh.player import ScriptedPeer, WebSocketPeer
from ncfast.conformance.run import play
from ncfast.core.messages import Vouch
from ncfast.hub.relays import Relays
from ncfast.hub.resuming import Resuming
from ncfast.hub.session import AgentSession
from ncfast.mesh.handshake import proves
from ncfast.mesh.manager import Mesh
from ncfast.mesh.peer import Peer

SCENARIOS = {one.name: one for one in ScriptedPeer.scenarios()}
refusal, resume_from_agent = Relays._refusal, Relays.resume_from_agent


def any_epoch(relays, session, key, cid, epoch, request):
    return refusal(relays, session, key, cid, epoch if session is None else session.epoch, request)


def whenever_it_is_linked(relays, session, cid, secret, ack, limit):
    relay, peer = relays.by_cid.get(cid), relays._ways.origin(cid)
    if relay is not None and peer is not None:
        relays._connect(relay, peer)
    resume_from_agent(relays, session, cid, secret, ack, limit)


def vouching_for_nobody(**said):
    return Vouch(**{**said, "instance": "0" * 32})


def proved_by_nothing(secret, role, hello, ack, shown):
    return shown is None or proves(secret, role, hello, ack, shown)


def nothing(*_):
    return None


def always(*_):
    return True


# fault: the rule that it breaks, the scenario that shows it, and what of our hub is otherwise
PLANTS = {
    "believes any proof": ("11.4", "strangers", "ncfast.mesh.peer.proves", always),
    "does not look where it was reached": ("11.11", "strangers", (Peer, "_meant"), always),
    "takes AUTH without a proof": ("11.19", "strangers", "ncfast.mesh.peer.proves", proved_by_nothing),
    "lets a former process in": ("11.22", "a replica after a restart", (Mesh, "verdict"), nothing),
    "keeps the first link": ("11.23", "a second link of the same hub", (Mesh, "_replace"), nothing),
    "takes other hubs' flows for none": (
        "7.11",
        "flows that the owner does not have",
        (AgentSession, "foreign"),
        nothing,
    ),
    "knows every cluster": ("11.HELLO", "strangers", (Peer, "_knows"), always),
    "hears announcements": ("11.10", "frames that have no place on a link", (Peer, "_on_frame__announce"), nothing),
    "relays under any epoch": ("10.10", "opens that are refused", (Relays, "_refusal"), any_epoch),
    "does not say that a tunnel is lost": ("10.15", "the tunnel is lost", (Relays, "tunnel_lost"), nothing),
    "does not say that a link is lost": ("10.16", "the link is lost", (Relays, "peer_lost"), nothing),
    "passes on what has crossed M_DETACH": (
        "10.31",
        "an agent's M_RESUME crosses M_DETACH",
        (Relays, "resume_from_agent"),
        whenever_it_is_linked,
    ),
    "vouches for nobody": ("10.28", "the tunnel is lost", "ncfast.hub.relays.Vouch", vouching_for_nobody),
    "believes any owner": ("10.11", "an owner that may not ask", (Resuming, "_may_resume"), always),
}


@contextmanager
def planted(where, other):
    with patch(where, other) if isinstance(where, str) else patch.object(*where, other):
        yield


@pytest.mark.parametrize("by", [ScriptedPeer, WebSocketPeer])
def test_our_hub_keeps_every_rule_of_the_mesh(by):
    assert len(SCENARIOS) > 20 and not broken(by, [*SCENARIOS.values()], our_hub)


@pytest.mark.parametrize("fault", PLANTS)
def test_a_fault_is_named_by_its_rule(fault):
    rule, name, where, other = PLANTS[fault]
    with planted(where, other):
        for patience in (2, 8, 30, PATIENCE):
            found = asyncio.run(play(ScriptedPeer, SCENARIOS[name], our_hub, patience)).broken
            if found is not None and found.rule == rule:
                break
    assert found is not None and found.rule == rule, found
