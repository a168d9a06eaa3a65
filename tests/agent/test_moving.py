"""An agent that its hub asks to move: it claims where it has a tunnel, or stays and says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.until import until

from agent.hubs import AGENT_GOES, M_DATA, M_DETACH, M_RESUME, M_RST, MOVE, Tunnel, World
from ncfast.agent import former
from ncfast.agent import tunnels as standby

LINK_LOST = 10


def move(tunnel: Tunnel, hub: str) -> None:
    """The owner's hub asks the agent to move."""
    tunnel.send(MOVE, payload=json.dumps({"replica_id": hub}).encode())


async def claim_again(world: World, owner: Tunnel) -> tuple[Tunnel, dict[str, Any]]:
    """The hub asks the agent to come by another tunnel: that one, and the claim on it, which it has not answered."""
    held: list[tuple[Tunnel, dict[str, Any]]] = []
    world["a"].on_hello = lambda tunnel, hello: held.append((tunnel, hello))
    move(owner, "hub-a")
    return await until(lambda: held and held[0], "the claim")


def test_an_agent_that_is_asked_to_move_claims_over_its_standby_there(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await world["b"].standby()
        move(owner, "hub-b")
        await world["b"].owner()
        await until(lambda: owner.code == AGENT_GOES, "the old tunnel closed")
        assert world["b"].connects == 1 and not world.events("takeover", "move_refused")
        assert [event["replica"] for event in world.events("moved")] == ["hub-b"]
        await world["a"].standby()

    play(scenario)


def test_an_agent_dials_the_hub_that_it_is_asked_to_move_to_and_keeps_its_standby(play):
    """Nothing is given up before the claim is answered, and the standby at a third hub stays what it is."""

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        first, other = await world.beside()
        held = []
        grant = world[other].grant
        world[other].on_hello = lambda tunnel, hello: grant(tunnel, hello) if hello["standby"] else held.append(tunnel)
        move(owner, f"hub-{other}")
        await until(lambda: held, "the claim")
        assert owner.owns and world.agent.tunnels.owner.replica_id == "hub-a"
        assert world.agent.tunnels.standby.replica_id == f"hub-{first}"
        grant(held[0], held[0].hellos[-1])
        await until(lambda: owner.code == AGENT_GOES, "the old tunnel closed")
        assert world.agent.tunnels.owner.replica_id == f"hub-{other}"
        assert world.agent.tunnels.standby.replica_id == f"hub-{first}" and world[first].connects == 1
        assert len(world.ownership.claims) == 2 and not world.events("takeover")

    play(scenario, "abc")


def test_behind_a_balancer_an_agent_dials_until_it_gets_to_the_hub(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        world["a"].replica_id = "hub-y"
        await until(lambda: world.agent.tunnels.standby, "a standby")
        move(owner, "hub-z")
        dials = world["a"].connects
        await until(lambda: world["a"].connects >= dials + 2, "dialled, and dialled again")
        assert world.agent.tunnels.standby.replica_id == "hub-y" and world.agent.tunnels.owner.replica_id == "hub-a"
        world["a"].replica_id = "hub-z"
        await until(lambda: world.agent.tunnels.owner.replica_id == "hub-z", "moved")
        assert world.agent.tunnels.standby.replica_id == "hub-y"

    play(scenario, "a")


@pytest.mark.parametrize("why", ["nobody there", "no standby", "the claim is lost"])
def test_an_agent_that_cannot_move_says_so_and_stays(play, monkeypatch, why):
    monkeypatch.setattr(standby, "MOVE_TIME", 0.5)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        if why != "no standby":
            await world["b"].standby()
        if why == "the claim is lost":
            world["b"].on_hello = lambda tunnel, hello: tunnel.cut()
        asked = "hub-z" if why == "nobody there" else "hub-b"
        move(owner, asked)
        answer = await owner.want(MOVE)
        assert answer.body == {"replica_id": asked}
        assert owner.owns and world.agent.tunnels.owner.replica_id == "hub-a"
        assert [event["to"] for event in world.events("move_refused")] == [asked]

    play(scenario, standby=why != "no standby")


def test_an_agent_that_is_asked_to_move_to_where_it_is_claims_over_another_tunnel_there(play):
    """One hub and no cluster. Flows go on by the tunnel that owned, until each is told to leave it, or it ends."""

    async def scenario(world: World) -> None:
        world["a"].cluster = False
        owner = await world["a"].owner()
        flow, other = await world.opened(owner), await world.opened(owner)
        tunnel, hello = await claim_again(world, owner)
        assert hello["last_epoch"] >= owner.epoch and not hello["standby"] and "moves_again" in hello["features"]
        assert not hello["alone"] and owner.hellos[0]["alone"], "flows are on the owner's"
        assert owner.owns and world.agent.tunnels.owner.epoch == owner.epoch
        world["a"].grant(tunnel, hello)
        await until(lambda: world.agent.tunnels.owner.epoch == tunnel.epoch, "it is owned there")
        world.service.writers[0].write(b"by the old tunnel")
        await owner.take(flow, 17)
        owner.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        assert (await owner.want(M_DETACH)).cid == flow.cid
        assert (await tunnel.want(M_RESUME)).cid == flow.cid
        world.service.writers[1].write(b"and still by that")
        await owner.take(other, 17)
        assert not [frame for frame in tunnel.frames if frame.cid == other.cid]
        owner.close(1001)
        assert (await tunnel.want(M_RESUME)).cid == other.cid
        assert len(world["a"].live) == 1 and world["a"].connects == 2
        assert [event["replica"] for event in world.events("moved")] == ["hub-a"]
        assert not world.events("move_refused", "takeover", "tunnel_lost")

    play(scenario, "a")


def test_a_dial_that_fails_is_made_again_until_the_agent_has_moved(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        world["a"].down = True
        move(owner, "hub-a")
        await until(lambda: world["a"].connects >= 3, "dialled, and dialled again")
        assert owner.owns
        world["a"].down = False
        await until(lambda: owner.code == AGENT_GOES, "moved")
        await world["a"].owner()

    play(scenario, "a")


def test_a_flow_that_is_told_to_leave_before_the_agent_knows_its_claim_granted_leaves_then(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        flow, _ = await world.opened(owner), await world.opened(owner)
        tunnel, hello = await claim_again(world, owner)
        owner.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        await until(lambda: not world.agent.flows[flow.cid].attached, "it has left")
        world["a"].grant(tunnel, hello)
        assert (await owner.want(M_DETACH)).cid == flow.cid
        assert (await tunnel.want(M_RESUME)).cid == flow.cid
        assert owner.code is None

    play(scenario, "a")


@pytest.mark.parametrize("late", ["open", "resume"])
def test_what_comes_late_by_the_tunnel_that_was_left_takes_no_flow_back(play, late):
    """The hub's other process has the flow already, and what was sent before comes behind what it says."""

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await world.opened(owner)  # for which that tunnel stays
        tunnel, hello = await claim_again(world, owner)
        world["a"].grant(tunnel, hello)
        await until(lambda: world.agent.tunnels.owner.epoch == tunnel.epoch, "it is owned there")
        flow = await world.opened(tunnel)
        if late == "open":
            owner.open(flow)
        else:
            owner.send(M_RESUME, flow=flow, payload=flow.secret)
        owner.open(behind := world.flow(), connector="none")
        assert (await owner.want(M_RST)).cid == behind.cid, "all that was sent there was read"
        tunnel.send(M_DATA, flow=flow, seq=0, payload=b"by the new one")
        await until(lambda: world.service.received[1] == b"by the new one", "the bytes")
        assert not [frame for frame in (*owner.frames, *tunnel.frames) if frame.type == M_RESUME]

    play(scenario, "a")


def test_an_agent_leaves_a_tunnel_at_once_that_carries_nothing(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        move(owner, "hub-a")
        await until(lambda: owner.code == AGENT_GOES, "the old tunnel closed")
        assert (await world["a"].owner()).epoch > owner.epoch

    play(scenario, "a")


def test_a_tunnel_that_was_left_ends_after_a_time_and_its_flows_are_taken_up(play, monkeypatch):
    monkeypatch.setattr(former, "STAYS", 0.5)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        flow = await world.opened(owner)
        move(owner, "hub-a")
        await until(lambda: owner.code == AGENT_GOES, "the old tunnel closed")
        assert (await (await world["a"].owner()).want(M_RESUME)).cid == flow.cid

    play(scenario, "a")


@pytest.mark.parametrize("why", ["it does not answer", "the claim is lost"])
def test_an_agent_that_does_not_get_another_tunnel_says_so_and_stays(play, monkeypatch, why):
    if why == "it does not answer":
        monkeypatch.setattr(standby, "MOVE_TIME", 0.5)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        if why == "it does not answer":
            world["a"].down = True
        else:
            world["a"].on_hello = lambda tunnel, hello: tunnel.cut()
        move(owner, "hub-a")
        assert (await owner.want(MOVE)).body == {"replica_id": "hub-a"}
        assert owner.owns and world.agent.tunnels.owner.epoch == owner.epoch
        assert [event["to"] for event in world.events("move_refused")] == ["hub-a"]

    play(scenario, "a")


def test_an_owner_that_dies_while_a_move_is_under_way_is_replaced_at_once(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        first, other = await world.beside()
        world[other].frozen = True
        move(owner, f"hub-{other}")
        await until(lambda: world.events("move_asked"), "asked")
        owner.cut()
        await world[first].owner()
        assert [event["replica"] for event in world.events("takeover")] == [f"hub-{first}"]
        world[other].frozen = False

    play(scenario, "abc")


def test_a_hub_that_does_not_own_us_does_not_move_us(play):
    async def scenario(world: World) -> None:
        await world["a"].owner()
        warm = await world["b"].standby()
        move(warm, "hub-b")
        await until(lambda: warm.gone, "left")
        assert warm.code == 1002 and len(world.ownership.claims) == 1

    play(scenario)


def test_standbys_come_back_to_a_hub_that_was_away(play, monkeypatch):
    """The hub is drawn anew from time to time; mostly it is the one that stands already, and nothing is dialled."""
    monkeypatch.setattr(standby, "REDRAW", 0.05)

    async def scenario(world: World) -> None:
        world["c"].refuses = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        await world["a"].owner()
        first = await world["b"].standby()
        world["c"].refuses = b""
        await world["c"].standby()
        await until(lambda: first.gone, "the first closed")
        await world["b"].standby()
        assert len(world.ownership.claims) == 1 and world.agent.tunnels.owner.replica_id == "hub-a"

    play(scenario, "abc")


def test_with_two_hubs_a_new_draw_dials_nobody(play, monkeypatch):
    monkeypatch.setattr(standby, "REDRAW", 0.01)
    drawn = []

    async def scenario(world: World) -> None:
        await world["a"].owner()
        await world["b"].standby()
        draw = world.agent.tunnels._redraw_later
        world.agent.tunnels._redraw_later = lambda: (drawn.append(1), draw())
        await until(lambda: len(drawn) > 5, "drawn anew, and again")
        assert world["b"].connects == 1

    play(scenario)
