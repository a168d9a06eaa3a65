"""Which flows a round of timers looks at."""

from __future__ import annotations

import pytest

from core.ends import TIMEOUTS
from core.raw import hub_and_peer
from ncfast._frames import FrameType
from ncfast.core.errors import Reason

ROUND = 0.5  # seconds


def looked_at(hub, flow, rounds, **changes):
    """How often rounds looked at the flow, and what they found."""
    timeouts = type("Timeouts", (), {**vars(TIMEOUTS), **changes})
    looks = 0
    for _ in range(rounds):
        hub.time.now += ROUND
        for due in hub.context.due(hub.time.now):
            assert due is flow
            looks += 1
            if (reason := flow.check(hub.time.now, timeouts)) is not None:
                return looks, reason
    return looks, None


def resting():
    time, hub, peer = hub_and_peer()
    hub.time = time
    flow, client = peer.open()
    looked_at(hub, flow, 4)
    assert looked_at(hub, flow, 50) == (0, None)
    return hub, peer, flow, client


def test_an_idle_flow_is_looked_at_twice_a_minute():
    hub, _, flow, _ = resting()
    assert looked_at(hub, flow, 240) == (4, None)


@pytest.mark.parametrize("timer", ["idle", "first_byte"])
def test_its_own_timers_run_out_in_time(timer):
    time, hub, peer = hub_and_peer()
    hub.time = time
    flow, _ = peer.open()
    start, reason = time.now, Reason[f"{timer}_timeout".upper()]
    looks, found = looked_at(hub, flow, 200, **{timer: 50.0})
    assert found is reason and time.now - start == 50.0 and looks < 10


HAPPENS = {
    "its client sends": lambda peer, flow, client: client.send(b"x"),
    "its client ends": lambda peer, flow, client: client.fin(),
    "data comes": lambda peer, flow, client: peer.send(FrameType.M_DATA, flow, payload=b"x"),
    "an end comes": lambda peer, flow, client: peer.send(FrameType.M_FIN, flow, seq=0),
    "frames were lost": lambda peer, flow, client: peer.send(FrameType.M_GAP, flow),
    "it is to wait": lambda peer, flow, client: peer.send(FrameType.M_DETACH, flow),
    "its link is lost": lambda peer, flow, client: peer.link.lost(Reason.CONNECTION_LOST),
}


@pytest.mark.parametrize("what", HAPPENS)
def test_a_flow_to_which_something_happens_is_looked_at(what):
    hub, peer, flow, client = resting()
    HAPPENS[what](peer, flow, client)
    while hub.turns.run():
        pass
    assert hub.context.due(hub.time.now) == [flow]
    _, reason = looked_at(hub, flow, 2)
    assert reason is None  # that nothing had happened for so long is held against nobody


def test_a_flow_that_is_over_is_looked_at_no_more():
    hub, peer, flow, _ = resting()
    peer.send(FrameType.M_RST, flow, code=Reason.TARGET_RESET)
    assert flow.closed and hub.context.due(hub.time.now) == []
    hub.time.now += 100.0
    assert hub.context.due(hub.time.now) == []
