"""Flows while tunnels come and go: nothing is lost, repeated or reordered, and nobody but the owner's hub reaches
them."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from support.until import PATIENCE, until

from agent.hubs import (
    DRAINING,
    GOAWAY,
    M_ACK,
    M_DATA,
    M_DETACH,
    M_FIN,
    M_OPEN_ACK,
    M_RESUME,
    M_RESUME_ACK,
    M_RST,
    STALE_EPOCH,
    UNKNOWN_FLOW,
    Flow,
    Tunnel,
    World,
)

LINK_LOST, ORIGIN_LOST, TARGET_REFUSED, NO_SUCH_CONNECTOR = 10, 23, 4, 7
CHUNK = 16_384


class Held:
    """The agent's dials to its target end when the test lets them."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        net = world.agent.net
        start = net.start_dial
        self.ended: list[Callable[[], None]] = []

        def held(host, port, done, **more):
            if port != world.service.port:  # a hub's
                return start(host, port, done, **more)
            return start(host, port, lambda outcome: self.ended.append(lambda: done(outcome)), **more)

        monkeypatch.setattr(net, "start_dial", held)

    def let_go(self) -> None:
        for end in self.ended:
            end()


def send(tunnel: Tunnel, flow: Flow, data: bytes, start: int, end: int) -> None:
    """Bytes start to end of the client's `data`."""
    for at in range(start, end, CHUNK):
        tunnel.send(M_DATA, flow=flow, seq=at, payload=data[at : min(at + CHUNK, end)])


async def resumed(tunnel: Tunnel, flow: Flow) -> int:
    """The agent's M_RESUME, answered; where the hub is to go on."""
    return (await all_resumed(tunnel, [flow]))[flow.cid]


async def all_resumed(tunnel: Tunnel, flows: list[Flow]) -> dict[bytes, int]:
    """The same for several, in whichever order the agent asks."""
    by_cid, acks = {flow.cid: flow for flow in flows}, {}
    while len(acks) < len(flows):
        asked = await tunnel.want(M_RESUME)
        if (flow := by_cid.get(asked.cid)) is not None:
            assert asked.payload == flow.secret and asked.epoch == tunnel.epoch
            acks[asked.cid] = asked.ack
    for flow in flows:  # when all have asked: what they say from here on is not passed over
        tunnel.send(M_RESUME_ACK, flow=flow)
    return acks


@pytest.mark.parametrize("how", ["drain", "cut", "close"])
def test_both_directions_go_on_over_the_standby(play, how):
    async def scenario(world: World) -> None:
        owner, warm = await world["a"].owner(), await world["b"].standby()
        flow = await world.opened(owner)
        question, answer = os.urandom(300_000), os.urandom(400_000)
        send(owner, flow, question, 0, 100_000)
        world.service.writers[0].write(answer[:150_000])
        await owner.take(flow, 100_000)
        send(owner, flow, question, 100_000, 200_000)  # in flight when the tunnel goes
        world.service.writers[0].write(answer[150_000:])
        if how == "drain":
            owner.send(GOAWAY, code=DRAINING)
        elif how == "cut":
            owner.cut()
        else:
            owner.close(1001)
        at = await resumed(warm, flow)
        assert at <= 200_000
        send(warm, flow, question, at // 1000 * 1000, 300_000)  # cut differently, and a little of it again
        warm.send(M_FIN, flow=flow, seq=300_000)
        await warm.take(flow, 400_000)
        assert flow.received == answer
        await until(lambda: world.service.ends == ["eof"], "the question's end")
        assert world.service.received[0] == question
        assert len(world.agent.flows) == 1 and world["b"].connects == 1
        world.service.writers[0].close()
        assert (await warm.want(M_FIN, cid=flow.cid)).seq == len(answer)
        flow.ended = True
        warm.send(M_ACK, flow=flow)
        await until(lambda: not world.agent.flows, "the flow's end")
        assert world.events("flow_closed")[0]["reason"] == "closed" and world.events("flow_closed")[0]["resumes"] == 1

    play(scenario)


def test_many_flows_move_again_and_again(play):
    async def scenario(world: World) -> None:
        tunnel = await world["a"].owner()
        await until(lambda: world.agent.tunnels.standby, "a standby")
        flows = [await world.opened(tunnel) for _ in range(20)]
        sent, answers = {flow.cid: 0 for flow in flows}, [os.urandom(120_000) for _ in flows]
        question = os.urandom(120_000)
        for turn in range(6):
            for flow, writer, answer in zip(flows, world.service.writers, answers, strict=True):
                send(tunnel, flow, question, sent[flow.cid], (turn + 1) * 20_000)
                writer.write(answer[turn * 20_000 : (turn + 1) * 20_000])
            if turn % 2:
                tunnel.cut()
            else:
                tunnel.send(GOAWAY, code=DRAINING)
            old, epoch = tunnel, tunnel.epoch
            tunnel = await until(
                lambda: next(
                    (
                        one
                        for hub in world.hubs.values()
                        for one in hub.live
                        if one.owns and one.epoch > epoch and one is not old
                    ),
                    None,
                ),
                "the next owner",
            )
            sent = await all_resumed(tunnel, flows)
            for flow in flows:
                await _take_any(tunnel, flows, flow, (turn + 1) * 20_000)
            await until(lambda: world.agent.tunnels.standby, "a standby")
        for flow in flows:
            send(tunnel, flow, question, sent[flow.cid], len(question))
        await until(lambda: all(got == question for got in world.service.received), "all questions")
        assert [flow.received for flow in flows] == answers

    async def _take_any(tunnel: Tunnel, flows: list[Flow], flow: Flow, size: int) -> None:
        """Frames of all flows come mixed: each is taken as it comes."""
        by_cid = {one.cid: one for one in flows}
        while len(flow.received) < size:
            frame = await tunnel.want(M_DATA)
            one = by_cid[frame.cid]
            assert frame.seq <= len(one.received)
            one.received += frame.payload[len(one.received) - frame.seq :]
            tunnel.send(M_ACK, flow=one)

    play(scenario)


def test_a_flow_that_lost_its_way_waits_and_is_resumed_by_the_clients_hub(play):
    """M_DETACH, then M_RESUME over the same tunnel: the mesh link to the client's hub came back."""

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        flow = await world.opened(owner)
        question, answer = os.urandom(200_000), os.urandom(200_000)
        send(owner, flow, question, 0, 100_000)
        await until(lambda: len(world.service.received[0]) == 100_000, "the first half")
        owner.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        ours = world.agent.flows[flow.cid]
        await until(lambda: not ours.attached, "detached")
        world.service.writers[0].write(answer)
        send(owner, flow, question, 100_000, 116_384)  # was on its way: not ours to take now, and not unknown
        before = len(owner.frames)
        owner.send(M_RESUME, flow=flow, payload=bytes(16))  # not the flow's secret
        assert (await owner.want(M_RST)).code == UNKNOWN_FLOW
        assert [frame.type for frame in owner.frames[before:]] == [M_RST] and not ours.attached and not ours.closed
        owner.send(M_RESUME, flow=flow, payload=flow.secret)
        at = (await owner.want(M_RESUME_ACK, cid=flow.cid)).ack
        assert at == 100_000
        send(owner, flow, question, at, 200_000)
        await owner.take(flow, 200_000)
        await until(lambda: len(world.service.received[0]) == 200_000, "the second half")
        assert world.service.received[0] == question and flow.received == answer
        assert ours.info.resumes == 1 and len(owner.hellos) == 1

    play(scenario)


def test_a_flow_that_lost_its_way_is_opened_again_by_the_clients_hub(play):
    """The client's hub had not seen M_OPEN_ACK, and sends M_OPEN another time; M_RESUME answers that."""

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        flow = await world.opened(owner)
        send(owner, flow, bytes(1000), 0, 1000)
        await until(lambda: world.service.received[0] == bytes(1000), "the bytes")
        owner.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        await until(lambda: not world.agent.flows[flow.cid].attached, "detached")
        owner.open(flow)
        send(owner, flow, bytes(1000), 0, 1000)  # right behind it, as the protocol has it
        assert await resumed(owner, flow) == 1000
        owner.send(M_DATA, flow=flow, seq=1000, payload=b"on")
        await until(lambda: world.service.received[0] == bytes(1000) + b"on", "what is new")
        owner.open(flow)  # attached: no news
        owner.send(M_DATA, flow=flow, seq=1002, payload=b"!")
        await until(lambda: world.service.received[0].endswith(b"on!"), "the rest")
        assert len(world.service.writers) == 1 and not [one for one in owner.frames if one.type == M_RST]

    play(scenario)


def test_an_open_that_lost_its_way_while_it_dials(play, monkeypatch):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        dials = Held(world, monkeypatch)
        flow = world.flow()
        owner.open(flow)
        owner.send(M_DATA, flow=flow, seq=0, payload=b"early")
        await until(lambda: dials.ended, "the dial")
        owner.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        await until(lambda: not world.agent.flows[flow.cid].attached, "detached")
        owner.open(flow)
        owner.send(M_DATA, flow=flow, seq=0, payload=b"early and more")
        await until(lambda: world.agent.flows[flow.cid].attached, "attached again")
        dials.let_go()
        accepted = await owner.want(M_OPEN_ACK, M_RESUME, cid=flow.cid)
        assert accepted.type == M_OPEN_ACK and len(dials.ended) == 1
        await until(
            lambda: world.service.received and world.service.received[0] == b"early and more", "the bytes, once"
        )

    play(scenario)


def test_an_open_that_lost_its_way_is_accepted_when_it_asks_again(play, monkeypatch):
    """The target answers while there is no way; the next M_OPEN finds it connected."""

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        dials = Held(world, monkeypatch)
        flow = world.flow()
        owner.open(flow)
        await until(lambda: flow.cid in world.agent.flows, "the open")
        owner.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        await until(lambda: not world.agent.flows[flow.cid].attached, "detached")
        await until(lambda: dials.ended, "the dial")
        dials.let_go()
        await until(lambda: not world.agent.flows[flow.cid].opening, "connected")
        owner.open(flow)
        owner.send(M_DATA, flow=flow, seq=0, payload=b"x")
        assert await resumed(owner, flow) == 0
        owner.send(M_DATA, flow=flow, seq=0, payload=b"x")
        await until(lambda: world.service.received[0] == b"x", "the byte")

    play(scenario)


@pytest.mark.parametrize("answered", ["nothing comes", "M_RESUME unanswered"])
def test_the_grace_ends_what_nobody_resumes(play, answered):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        flow = await world.opened(owner)
        owner.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        if answered == "M_RESUME unanswered":
            await until(lambda: not world.agent.flows[flow.cid].attached, "detached")
            owner.open(flow)
            await owner.want(M_RESUME, cid=flow.cid)  # and no answer
        await until(lambda: not world.agent.flows, "given up")
        await until(lambda: world.service.ends == ["reset"], "the target told")
        assert world.events("flow_closed")[0]["reason"] == "link_lost"

    play(scenario, flow={"flow_grace_sec": 1.5})


def test_the_hubs_grace_ends_it_if_that_is_shorter(play):
    async def scenario(world: World) -> None:
        world["b"].says = {"grace": 0.5}
        owner, warm = await world["a"].owner(), await world["b"].standby()
        flow = await world.opened(owner)
        assert world.agent.ground.timeouts.grace == PATIENCE, "a hub that says nothing of it"
        owner.cut()
        assert await resumed(warm, flow) == 0
        warm.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        await until(lambda: world.service.ends == ["reset"], "the target told")
        warm.cut()
        await world["a"].owner()
        assert world.agent.ground.timeouts.grace == PATIENCE

    play(scenario, flow={"flow_grace_sec": PATIENCE})


def test_a_flow_without_a_way_moves_to_the_next_owner(play):
    async def scenario(world: World) -> None:
        owner, warm = await world["a"].owner(), await world["b"].standby()
        flow = await world.opened(owner)
        owner.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        await until(lambda: not world.agent.flows[flow.cid].attached, "detached")
        owner.send(GOAWAY, code=DRAINING)
        assert await resumed(warm, flow) == 0
        warm.send(M_DATA, flow=flow, seq=0, payload=b"here")
        await until(lambda: world.service.received[0] == b"here", "the bytes")
        # what the new owner does not know either waits there, and moves once more
        warm.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        await world["a"].standby()
        warm.cut()
        again = await world["a"].owner()
        assert await resumed(again, flow) == 4

    play(scenario)


def test_a_fenced_flow_makes_the_agent_claim_above(play):
    async def scenario(world: World) -> None:
        owner, warm = await world["a"].owner(), await world["b"].standby()
        flow = await world.opened(owner)
        world["a"].refuses = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"  # so there is no next standby
        connects = world["a"].connects
        owner.send(M_DETACH, cid=flow.cid, code=STALE_EPOCH, seq=41)
        assert await resumed(warm, flow) == 0
        assert world.ownership.claims[-1][0] == "hub-b" and world.ownership.claims[-1][1] > 41 and warm.epoch > 42
        await until(lambda: owner.gone, "the old tunnel closed")
        assert owner.code == 1001 and world["b"].connects == 1
        # over a new tunnel, where there is no standby
        await until(lambda: world["a"].connects > connects, "a standby sought in vain")
        world["a"].refuses = b""
        world["a"].cluster = False  # it answers, and is no standby
        warm.send(M_DETACH, cid=flow.cid, code=STALE_EPOCH, seq=99)
        await until(lambda: warm.gone, "the second closed")
        await until(lambda: world.ownership.claims[-1][1] > 99, "a claim above")
        last = await until(lambda: world.agent.tunnels.owner, "granted")
        tunnel = await world[last.replica_id.removeprefix("hub-")].owner()
        assert await resumed(tunnel, flow) == 0
        assert len(world.events("epoch_outdated")) == 2

    play(scenario)


def test_old_news_and_many_notices_make_one_claim_at_most(play):
    async def scenario(world: World) -> None:
        owner, warm = await world["a"].owner(), await world["b"].standby()
        flows = [await world.opened(owner) for _ in range(5)]
        owner.send(M_DETACH, cid=flows[0].cid, code=STALE_EPOCH, seq=0)  # below ours: says nothing
        for flow in flows[1:]:
            owner.send(M_DETACH, cid=flow.cid, code=STALE_EPOCH, seq=7)
        await all_resumed(warm, flows)
        assert len(world.ownership.claims) == 2
        warm.send(M_DETACH, cid=flows[0].cid, code=STALE_EPOCH, seq=500)  # once more, and at once: waits for its time
        at = world.agent.net.clock()
        await until(lambda: len(world.ownership.claims) == 3, "the third claim")
        assert world.agent.net.clock() - at > 0.1 and world.ownership.claims[-1][1] > 500

    play(scenario)


def test_a_notice_to_the_next_owner_is_not_lost_with_the_former_ones(play):
    async def scenario(world: World) -> None:
        owner, second = await world["a"].owner(), await world["b"].standby()
        flow = await world.opened(owner)
        owner.send(M_DETACH, cid=flow.cid, code=STALE_EPOCH, seq=7)
        await resumed(second, flow)
        third = await world["a"].standby()
        claimed = len(world.ownership.claims)
        second.send(M_DETACH, cid=flow.cid, code=STALE_EPOCH, seq=50)  # waits for its time,
        await until(lambda: world.agent.tunnels._renewal or len(world.ownership.claims) > claimed, "noticed")
        second.cut()  # and its tunnel is gone first
        await resumed(third, flow)
        third.send(M_DETACH, cid=flow.cid, code=STALE_EPOCH, seq=900)
        await until(lambda: world.ownership.claims[-1][1] > 900, "a claim above the latest")

    play(scenario)


@pytest.mark.parametrize("frame", ["M_OPEN", "M_RESUME"])
@pytest.mark.parametrize("state", ["standing", "claiming"])
def test_only_the_owner_may_open_and_resume(play, frame, state):
    async def scenario(world: World) -> None:
        owner, warm = await world["a"].owner(), await world["b"].standby()
        flow = await world.opened(owner)
        other = world.flow()
        if state == "claiming":
            world["b"].on_hello = lambda tunnel, hello: None
            owner.send(GOAWAY, code=DRAINING)
            await until(lambda: len(warm.hellos) == 2, "the claim")
        if frame == "M_OPEN":
            warm.open(other)
        else:
            warm.send(M_RESUME, flow=flow, payload=flow.secret)
        await until(lambda: warm.gone, "ended")
        assert warm.code == 1002
        assert len(world.service.writers) == 1 and other.cid not in world.agent.flows
        owner.send(M_DATA, flow=flow, seq=0, payload=b"well")
        await until(lambda: world.service.received[0] == b"well", "the owner serves on")

    play(scenario)


def test_frames_of_the_old_epoch_move_nothing(play):
    async def scenario(world: World) -> None:
        owner, warm = await world["a"].owner(), await world["b"].standby()
        flow = await world.opened(owner)
        owner.cut()
        await resumed(warm, flow)
        warm.send(M_DATA, flow=flow, seq=0, payload=b"old", epoch=1)
        warm.send(M_RST, cid=flow.cid, code=TARGET_REFUSED, epoch=1)
        warm.send(M_DATA, flow=flow, seq=0, payload=b"new")
        await until(lambda: world.service.received[0] == b"new", "the bytes")

    play(scenario)


@pytest.mark.parametrize("by", ["owner", "standby"])
def test_a_flow_without_a_way_ends_when_the_owners_hub_says_so(play, by):
    """The client's hub is gone for good: `origin_lost`, before the grace is over. A hub that does not own says nothing
    to us."""

    async def scenario(world: World) -> None:
        owner, warm = await world["a"].owner(), await world["b"].standby()
        flow = await world.opened(owner)
        owner.send(M_DETACH, cid=flow.cid, code=LINK_LOST)
        await until(lambda: not world.agent.flows[flow.cid].attached, "detached")
        if by == "standby":
            warm.send(M_RST, cid=flow.cid, code=ORIGIN_LOST)
            warm.send(GOAWAY, code=DRAINING)
            await until(lambda: world.events("hub_draining"), "read")
            assert flow.cid in world.agent.flows
        owner.send(M_RST, cid=flow.cid, code=ORIGIN_LOST)
        await until(lambda: not world.agent.flows, "ended")
        assert world.events("flow_closed")[0]["reason"] == "origin_lost"
        await until(lambda: world.service.ends == ["reset"], "the target told")

    play(scenario)


@pytest.mark.parametrize("connector", ["other", "Echo", "echo.", "e"])
def test_a_hub_cannot_make_an_agent_dial_what_its_file_does_not_name(play, connector):
    async def scenario(world: World) -> None:
        owner, flow = await world["a"].owner(), world.flow()
        owner.open(flow, connector=connector)
        assert (await owner.want(M_RST, cid=flow.cid)).code == NO_SUCH_CONNECTOR
        assert not world.service.writers
        await world.opened(owner)  # the tunnel stands for what it does name
        assert len(world.service.writers) == 1

    play(scenario)


def test_a_hub_cannot_make_an_agent_dial_an_address(play):
    async def scenario(world: World) -> None:
        owner, flow = await world["a"].owner(), world.flow()
        owner.open(flow, connector=f"127.0.0.1:{world.service.port}")
        await until(lambda: owner not in world["a"].live, "the tunnel of whoever asks for it is ended")
        assert not world.service.writers

    play(scenario)
