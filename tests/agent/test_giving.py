"""An agent passes its flows to another process of it: those that rest first, while the others go on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from support.until import until

from agent.hubs import AGENT_GOES, M_DATA, M_FIN, M_OPEN_ACK, M_RESUME, M_RESUME_ACK, M_RST, Flow, Tunnel, World
from ncfast.agent import giving, taking
from ncfast.agent.agent import Agent
from ncfast.agent.taking import Heritage
from ncfast.core.errors import Reason
from ncfast.core.record import FlowRecord
from ncfast.net.backoff import Backoff
from ncfast.net.channel import Channel, Message
from ncfast.net.handover import HandoverFailed
from ncfast.net.parcel import unpacked
from ncfast.net.seam import Net


class Successor:
    """Says what the test has it say; `answers` at once, by what it has heard."""

    def __init__(self, net: Net, *, hub: bool = True, **answers: str) -> None:
        ours, theirs = net.pair()
        self.given = Channel(net, ours, lambda message: None, lambda reason: None)
        self.channel = Channel(net, theirs, self._hear, lambda reason: None)
        self.heard: list[str] = []
        self.cids: list[bytes] = []  # of flows that have come
        self._hub = hub  # whether it got a tunnel
        self._answers = {"heritage": "dialled", **answers}

    def _hear(self, message: Message) -> None:
        self.heard.append(message.kind)
        if message.kind == "flows":
            for parcel in unpacked(message.body["heads"], message.payload, message.fds):
                self.cids.append(FlowRecord.cid_of(parcel.record))
                parcel.close()
        if message.kind in self._answers:
            self.say(self._answers[message.kind])

    def say(self, kind: str) -> None:
        self.channel.send(kind, {"hub": self._hub})


async def two(world: World, owner: Tunnel) -> tuple[Flow, Flow]:
    """A flow that rests, and one that does not: of that the hub has heard something, and acknowledged nothing."""
    resting, moving = await world.opened(owner), await world.opened(owner)
    owner.send(M_DATA, flow=resting, payload=b"before ")
    await until(lambda: len(world.service.writers) == 2, "both are there")
    world.service.writers[1].write(b"not acknowledged ")
    await owner.want(M_DATA, cid=moving.cid)
    await until(lambda: bytes(world.service.received[0]) == b"before ", "it has come")
    await until(lambda: world.agent.flows[resting.cid].resting, "it rests")
    assert not world.agent.flows[moving.cid].resting
    return resting, moving


async def opened(world: World, owner: Tunnel) -> None:
    """One more; the agent has looked at all that was sent before."""
    flow = world.flow()
    owner.open(flow)
    await owner.want(M_OPEN_ACK, cid=flow.cid)


def test_what_rests_is_passed_while_the_rest_goes_on(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        resting, moving = await two(world, owner)
        successor = Successor(world.agent.net)
        handing = asyncio.create_task(world.agent.hand_over(successor.given))
        await until(lambda: successor.cids, "it is passed")
        world.service.writers[1].write(b"it goes on")
        assert (await owner.want(M_DATA, cid=moving.cid)).payload == b"it goes on"
        await opened(world, owner)
        assert successor.cids == [resting.cid] and not handing.done()
        successor.say("resting")
        await until(lambda: "commit" in successor.heard, "all are passed")
        assert successor.cids[:2] == [resting.cid, moving.cid] and len(successor.cids) == 3, "what is under way first"
        successor.channel.close()
        with suppress(HandoverFailed):
            await handing
        world.agent.upgrade_failed()

    play(scenario, "a")


@pytest.mark.parametrize("until_heard", ["resting", "commit"])
def test_what_comes_meanwhile_for_one_that_is_passed_comes_again(play, until_heard: str):
    """And nobody is told that it is not here. The successor dies, so that it is the same agent that asks."""

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        resting, _ = await two(world, owner)
        successor = Successor(world.agent.net)
        handing = asyncio.create_task(world.agent.hand_over(successor.given))
        await until(lambda: "resting" in successor.heard, "it is passed")
        before = len(owner.frames)
        owner.send(M_DATA, flow=resting, seq=7, payload=b"meanwhile")
        owner.send(M_FIN, flow=resting, seq=16)
        owner.send(M_RESUME, flow=resting, payload=resting.secret)
        owner.open(resting)
        await opened(world, owner)
        assert not [frame for frame in owner.frames[before:] if frame.cid == resting.cid]
        assert len(world.service.received) == 3, "it is not opened anew"
        if until_heard == "commit":
            successor.say("resting")
            await until(lambda: "commit" in successor.heard, "all are passed")
        successor.channel.close()
        with pytest.raises(HandoverFailed):
            await handing
        world.agent.upgrade_failed()
        asked = await owner.want(M_RESUME, cid=resting.cid)
        assert asked.ack == 7
        owner.send(M_RESUME_ACK, flow=resting)
        owner.send(M_DATA, flow=resting, seq=7, payload=b"meanwhile")
        owner.send(M_FIN, flow=resting, seq=16)
        await until(lambda: world.service.ends, "the end has come")
        assert bytes(world.service.received[0]) == b"before meanwhile"

    play(scenario, "a")


def test_those_that_are_passed_count(play):
    """They are the successor's to carry, or ours again."""

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await two(world, owner)
        successor = Successor(world.agent.net)
        handing = asyncio.create_task(world.agent.hand_over(successor.given))
        await until(lambda: successor.cids, "it is passed")
        one = world.flow()
        owner.open(one)
        assert (await owner.want(M_OPEN_ACK, 8, cid=one.cid)).type == 8, "refused"
        assert world.agent.upgrade()["passed"] == 1 and world.agent.upgrade()["left"] == {"flows": 1}
        successor.channel.close()
        with pytest.raises(HandoverFailed):
            await handing
        world.agent.upgrade_failed()
        assert len(world.agent.flows) == 2

    play(scenario, "a", limits={"max_flows": 2})


def test_a_successor_of_a_release_that_says_nothing_of_it_gets_all(play, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(giving, "CATCH_UP", 0.01)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        flows = await two(world, owner)
        successor = Successor(world.agent.net, commit="taken")
        handing = asyncio.create_task(world.agent.hand_over(successor.given))
        await until(lambda: "commit" in successor.heard, "all are passed")
        assert successor.cids == [flow.cid for flow in flows]
        successor.say("owner")
        await handing
        assert successor.heard[-1] == "over"

    play(scenario, "a")


async def beside(world: World) -> tuple[Agent, asyncio.Task[None]]:
    """Another process of the agent, as far as it goes; and the hand-over to it."""
    loop, net = asyncio.get_running_loop(), world.agent.net
    ours, theirs = net.pair()
    heritage: asyncio.Future[Heritage] = loop.create_future()

    def hear(message: Message) -> None:
        if message.kind == "heritage":
            heritage.set_result(Heritage.read(message.body))

    channel = Channel(net, theirs, hear, lambda reason: None)
    given = Channel(net, ours, lambda message: None, lambda reason: None)
    handing = loop.create_task(world.agent.hand_over(given))
    successor = Agent(world.agent.ground.config, Net(loop), heritage=await heritage)
    successor.start()
    successor.take_over(channel)
    return successor, handing


async def ends(successor: Agent) -> None:
    """With the flows that it has."""
    for one in list(successor.flows.values()):
        one.reset(Reason.DRAINING)
    successor.stop()
    await successor.drain()


@pytest.mark.parametrize("hub", ["answers", "is silent"])
def test_the_successor_asks_last_for_those_that_rested(play, monkeypatch: pytest.MonkeyPatch, hub: str):
    """And is done when they go on, if the hub has them do so."""
    if hub == "is silent":
        monkeypatch.setattr(taking, "GO_ON", 0.01)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        resting, moving = await two(world, owner)
        successor, handing = await beside(world)
        await handing
        await until(lambda: owner.gone, "the former tunnel has ended")
        new, *_ = world["a"].live  # it may look for a standby by now
        for flow in (moving, resting):
            asked = await new.want(M_RESUME)
            assert asked.cid == flow.cid
            if hub == "answers":
                assert not world.events("upgrade_done")
                new.send(M_RESUME_ACK, flow=flow)
        (done,) = await until(lambda: world.events("upgrade_done"), "it is over")
        assert done["result"] == "done" and done["passed"] == 2
        assert (done["longest_pause_sec"] > 0) == (hub == "answers")
        assert successor.ground.counts.handovers == {"done": 1}
        for flow in list(successor.flows.values()):
            flow.reset(18)
        successor.stop()
        await successor.drain()

    play(scenario, "a")


def test_a_flow_that_was_refused_for_want_of_room_may_come_to_the_successor(play, monkeypatch: pytest.MonkeyPatch):
    """Its client waits at a hub, and no target has seen anything of it."""

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        flow = world.flow()
        monkeypatch.setattr(world.agent.services.targets["echo"], "dials", 1)
        owner.open(flow)
        assert (await owner.want(M_RST, cid=flow.cid)).code == Reason.OVERLOADED
        successor, handing = await beside(world)
        await handing
        await until(lambda: owner.gone, "the former tunnel has ended")
        new, *_ = world["a"].live
        new.open(flow)
        answer = await new.want(M_OPEN_ACK, M_RST, cid=flow.cid)
        await ends(successor)
        assert answer.type == M_OPEN_ACK

    play(scenario, "a", connector={"max_dials": 1})


def test_a_successor_whose_claim_is_refused_dials_again_without_a_pause(play, monkeypatch: pytest.MonkeyPatch):
    """As by a hub that is upgraded at the same moment. It says that no flow is on a tunnel of before."""

    async def scenario(world: World) -> None:
        hub = world["a"]
        hub.cluster = False
        flow = await world.opened(await hub.owner())
        claims: list[tuple[Tunnel, dict[str, Any]]] = []

        def heard(tunnel: Tunnel, hello: dict[str, Any]) -> None:
            claims.append((tunnel, hello))
            if len(claims) == 1:
                tunnel.close(AGENT_GOES)
            else:
                hub.grant(tunnel, hello)

        hub.on_hello = heard
        monkeypatch.setattr(Backoff, "next", lambda pause: 3600.0)
        successor, handing = await beside(world)
        await handing
        (_, refused), (new, granted) = claims
        assert refused["alone"] and granted["alone"]
        assert (await new.want(M_RESUME)).cid == flow.cid
        new.send(M_RESUME_ACK, flow=flow)
        await until(lambda: world.events("upgrade_done"), "it is over")
        await ends(successor)

    play(scenario, "a")


@pytest.mark.parametrize("ahead", ["goes away", "is lost", "leads elsewhere", "is lost, in a release before"])
def test_the_successor_claims_where_its_predecessor_is_owned(play, monkeypatch: pytest.MonkeyPatch, ahead: str):
    """Whatever has become of the tunnel dialled ahead: a hub that is in no cluster has the flows alone."""
    dialled, may_go_on = asyncio.Event(), asyncio.Event()
    pass_resting = giving.Giving._pass_resting

    async def paused(one: giving.Giving) -> None:
        dialled.set()
        await may_go_on.wait()
        await pass_resting(one)

    monkeypatch.setattr(giving.Giving, "_pass_resting", paused)
    if ahead == "is lost, in a release before":  # which says where it is owned only at first
        send = Channel.send

        def less(channel: Channel, kind: str, body: dict[str, Any], *more: Any, **named: Any) -> None:
            send(channel, kind, {key: body[key] for key in body if (kind, key) != ("commit", "hub")}, *more, **named)

        monkeypatch.setattr(Channel, "send", less)

    async def moved(world: World, owner: Tunnel) -> Tunnel:
        """The agent loses its owner at the first hub of its file, and goes to the second."""
        world["a"].down = True
        owner.cut()
        owner = await world["b"].owner()
        world["a"].down = False
        return owner

    async def scenario(world: World) -> None:
        a, b = world["a"], world["b"]
        a.cluster = b.cluster = False
        owner = await a.owner()
        if ahead != "leads elsewhere":
            owner = await moved(world, owner)
        successor, handing = await beside(world)
        await dialled.wait()
        if ahead == "leads elsewhere":
            owner = await moved(world, owner)
        else:
            (tunnel,) = (one for one in b.live if one is not owner)
            tunnel.close(AGENT_GOES) if ahead == "goes away" else tunnel.cut()
            taken = successor._taking
            assert taken is not None and taken._ahead is not None
            await until(lambda: taken._ahead.link.closed, "the successor knows")
        flow = await world.opened(owner)
        claims = world.ownership.claims
        before = len(claims)
        may_go_on.set()
        await handing
        await until(lambda: owner.gone and len(claims) > before, "the successor's tunnel is the only one")
        (new,) = (one for hub in (a, b) for one in hub.live if one.owns)
        asked = await new.want(M_RESUME)
        new.send(M_RESUME_ACK, flow=flow)
        await until(lambda: world.events("upgrade_done"), "it is over")
        await ends(successor)
        assert (new.hub, asked.cid) == (b, flow.cid)
        assert [where for where, _ in claims[before:]] == [b.replica_id], "and nowhere else"

    play(scenario, "ab")


def test_a_tunnel_that_works_is_not_given_for_none(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        flow, _ = await two(world, owner)
        world["a"].refuses = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        successor, handing = await beside(world)
        with pytest.raises(HandoverFailed, match=rf"no tunnel \({world['a'].url}: http_503\)"):
            await handing
        world.agent.upgrade_failed()
        world.service.writers[0].write(b"it goes on")
        await owner.take(flow, 10)
        await successor.net.cancel_all()

    play(scenario, "a")


def test_where_there_is_no_tunnel_none_is_asked_for(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        world["a"].down = True
        owner.cut()
        await until(lambda: world.agent.tunnels.owner is None, "it is lost")
        successor = Successor(world.agent.net, hub=False, commit="taken")
        handing = asyncio.create_task(world.agent.hand_over(successor.given))
        await until(lambda: "commit" in successor.heard, "all is passed")
        successor.say("owner")
        await handing

    play(scenario, "a")
