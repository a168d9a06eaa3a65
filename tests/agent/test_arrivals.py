"""Flows that a predecessor has passed go on in turn, and one that is asked for at once."""

from __future__ import annotations

import pytest
from support.until import until

from agent.hubs import M_RESUME, M_RESUME_ACK, UNKNOWN_FLOW, Flow, Tunnel, World
from ncfast.agent import arrivals
from ncfast.agent.arrivals import Arrivals
from ncfast.agent.passing import Passing


async def passed(world: World, owner: Tunnel, count: int) -> tuple[list[Flow], list]:
    """Flows, taken off their sockets as by a predecessor."""
    flows = [await world.opened(owner) for _ in range(count)]
    passing = Passing(world.agent.ground, world.agent.services)
    return flows, [passing.off(world.agent.flows[flow.cid]) for flow in flows]


def test_flows_are_taken_up_some_in_each_turn(play, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrivals, "SLICE", 2)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        flows, parcels = await passed(world, owner, 5)
        over = []
        coming = Arrivals(world.agent, parcels, lambda: over.append(coming.lost))
        coming.begin()
        assert len(world.agent.flows) == 2 and not over
        for flow in flows:
            assert (await owner.want(M_RESUME)).cid == flow.cid
        assert over == [0] and world.agent.ground.bring is None

    play(scenario, "a")


def test_one_that_the_hub_asks_for_has_its_turn_at_once(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        (first, second), parcels = await passed(world, owner, 2)
        coming = Arrivals(world.agent, parcels, lambda: None)
        owner.send(M_RESUME, flow=second, payload=second.secret)
        assert (await owner.want(M_RESUME_ACK)).cid == second.cid
        assert list(world.agent.flows) == [second.cid]
        world.service.writers[1].write(b"it goes on")
        await owner.take(second, 10)
        coming.begin()
        assert (await owner.want(M_RESUME)).cid == first.cid
        assert not [frame for frame in owner.frames if frame.code == UNKNOWN_FLOW]

    play(scenario, "a")


def test_none_waits_any_more_when_that_is_asked(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        flows, parcels = await passed(world, owner, 3)
        over = []
        coming = Arrivals(world.agent, [*parcels], lambda: over.append(True))
        coming.bring_all()
        assert set(world.agent.flows) == {flow.cid for flow in flows} and not over
        coming.begin()
        await until(lambda: over, "it is over")

    play(scenario, "a")
