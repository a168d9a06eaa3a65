"""Two tunnels: the standby is found, takes over, moves when a hub drains; and claims keep their rules."""

from __future__ import annotations

import asyncio

import pytest
from support.until import until

from agent.hubs import (
    AGENT_GOES,
    ANNOUNCE,
    AUTH,
    DRAINING,
    GOAWAY,
    HELLO,
    M_DETACH,
    PROTOCOL_ERROR,
    STALE_EPOCH,
    SUPERSEDED,
    World,
)
from ncfast.agent import tunnels as standby
from ncfast.agent.tunnel import TunnelState
from ncfast.net.backoff import Backoff


def rising(numbers):
    return all(low < high for low, high in zip(numbers, numbers[1:], strict=False))


def test_a_standby_is_found_at_another_hub(play):
    async def scenario(world: World) -> None:
        owner, warm = await world["a"].owner(), await world["b"].standby()
        assert [hello["standby"] for hello in owner.hellos + warm.hellos] == [False, True]
        assert warm.hellos[0]["instance"] == owner.hellos[0]["instance"] and warm.hellos[0]["connectors"] == ["echo"]
        assert world.ownership.claims == [("hub-a", 0)]
        assert world.names() == ["tunnel_up", "standby_up"]

    play(scenario)


@pytest.mark.parametrize("why", ["no cluster", "switched off"])
def test_no_standby_where_it_is_of_no_use(play, why):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await until(lambda: [frame.type for frame in owner.frames] == [HELLO], "HELLO")
        assert not world.agent.tunnels._lacks_standby()

    async def alone(world: World) -> None:
        for hub in world.hubs.values():
            hub.cluster = False
        await scenario(world)
        assert world["b"].connects == 0

    play(alone if why == "no cluster" else scenario, standby=why == "no cluster")


def test_a_standby_is_sought_when_the_hubs_have_become_a_cluster(play):
    async def scenario(world: World) -> None:
        for hub in world.hubs.values():
            hub.cluster = False
        owner = await world["a"].owner()
        assert not world.agent.tunnels._lacks_standby()
        world["a"].cluster = True  # the owner's hub first, then the other
        owner.answer(owner.epoch)
        await until(lambda: world["b"].connects, "tried")
        world["b"].cluster = True
        await world["b"].standby()
        assert owner.owns and world.ownership.claims == [("hub-a", 0)]

    play(scenario)


def test_a_second_hello_ack_with_another_epoch_is_refused(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        owner.answer(owner.epoch + 1)
        await until(lambda: world.events("tunnel_down"), "refused")
        assert world.events("tunnel_down")[0]["reason"] == "protocol_error"

    play(scenario)


def test_the_owner_is_lost_and_the_claim_is_out_before_anything_else_happens(play):
    async def scenario(world: World) -> None:
        await world["a"].owner()
        warm = await world["b"].standby()
        tunnels = world.agent.tunnels
        lost, ready = tunnels.owner, tunnels.standby
        frames = ready.link.counters()[1]["HELLO"]
        lost.link.fail(standby.Reason.KEEPALIVE_TIMEOUT, "as its timer says it")
        assert tunnels.owner is None and tunnels.claimant is ready and ready.state is TunnelState.CLAIMING
        assert ready.link.counters()[1]["HELLO"] == frames + 1  # no turn of the loop has passed
        await world["b"].owner()
        assert warm.owns and world["b"].connects == 1
        assert world.ownership.claims == [("hub-a", 0), ("hub-b", 1)]
        await world["a"].standby()  # and there is a new one
        took = world.events("takeover")
        assert len(took) == 1 and took[0]["replica"] == "hub-b" and took[0]["outage_ms"] >= 0

    play(scenario)


@pytest.mark.parametrize("way", ["cut", "close"])
def test_owners_are_lost_one_after_the_other(play, way):
    async def scenario(world: World) -> None:
        names = "abc"
        for number in range(12):
            owning = await until(
                lambda: next((n for n in names for one in world[n].live if one.owns), None), "an owner"
            )
            await until(lambda: world.agent.tunnels.standby, "a standby")
            tunnel = next(one for one in world[owning].live if one.owns)
            before = {n: world[n].connects for n in names}
            if way == "cut":
                tunnel.cut()
            else:
                tunnel.close(AGENT_GOES)
            await until(lambda: len(world.ownership.claims) == number + 2, "a claim")
            claimed = world.ownership.claims[-1][0].removeprefix("hub-")
            assert claimed != owning and world[claimed].connects == before[claimed]
            await until(lambda: world.agent.tunnels.owner, "granted")
        said = [last for _, last in world.ownership.claims]
        assert rising(said) and world.agent.tunnels.last_epoch == world.ownership.epoch
        assert len(world.events("takeover")) == 12 and len(world.events("tunnel_up")) == 13

    play(scenario, "abc")


def test_a_frozen_owner_is_noticed_and_the_standby_claims(play):
    async def scenario(world: World) -> None:
        await world["a"].owner()
        await world["b"].standby()
        world["a"].frozen = True
        await world["b"].owner()
        assert world.events("tunnel_down")[0]["reason"] == "keepalive_timeout"
        assert world["b"].connects == 1 and world.events("takeover")
        stale = world["a"].live[0]
        world["a"].frozen = False  # it thaws, and may say what it likes
        stale.send(M_DETACH, epoch=1, cid=bytes(16))
        await world["a"].standby()
        assert world.ownership.epoch == 2

    play(scenario, tunnel={"ping_timeout_sec": 0.4})


def test_a_frozen_standby_is_replaced(play):
    async def scenario(world: World) -> None:
        await world["a"].owner()
        warm, other = await world.beside()
        world[warm].frozen = True
        await world[other].standby()
        assert world.events("standby_down")[0]["reason"] == "keepalive_timeout"
        assert len(world.ownership.claims) == 1

    play(scenario, "abc", tunnel={"ping_timeout_sec": 0.4}, reconnect={"connect_timeout_sec": 0.3})


def test_a_claim_that_is_not_answered_is_given_up_for_a_new_tunnel(play, monkeypatch):
    monkeypatch.setattr(standby, "CLAIM_TIMEOUT", 0.1)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await world["b"].standby()
        heard = []
        world["b"].on_hello = lambda tunnel, hello: heard.append(hello)  # never answers again
        owner.cut()
        await until(lambda: heard, "the claim")
        again = await world["a"].owner()
        assert again is not owner and again.hellos[0]["last_epoch"] > heard[0]["last_epoch"] == 1
        assert world.events("tunnel_down")[1]["reason"] == "handshake_timeout"

    play(scenario, reconnect={"connect_timeout_sec": 0.3})


def test_a_late_grant_of_a_claim_given_up_is_no_clone(play, monkeypatch):
    """The hub carries the claim out after all, and the owner we have meanwhile is superseded: no conflict, rule 3."""
    monkeypatch.setattr(standby, "CLAIM_TIMEOUT", 0.05)
    monkeypatch.setattr(standby, "CONFLICT_DELAY", 1000.0)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await world["b"].standby()
        world["b"].on_hello = lambda tunnel, hello: None
        owner.cut()
        second = await world["a"].owner()
        world["b"].on_hello = world["b"].grant
        second.close(SUPERSEDED)
        await until(lambda: len(world.ownership.claims) == 3, "a third claim")
        await until(lambda: world.agent.tunnels.owner, "granted")
        assert rising([last for _, last in world.ownership.claims])

    play(scenario, reconnect={"max_sec": 100})


def test_superseded_means_a_clone_and_the_standby_is_spared(play, monkeypatch):
    monkeypatch.setattr(standby, "CONFLICT_DELAY", 0.4)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        warm = await world["b"].standby()
        clock = world.agent.net.clock
        owner.close(SUPERSEDED)
        await until(lambda: world.agent.tunnels.owner is None, "superseded")
        at = clock()
        assert world.agent.tunnels.standby is not None and world.agent.tunnels.claimant is None
        await until(lambda: len(world.ownership.claims) == 2, "a claim in the end")
        assert clock() - at >= 0.35
        assert warm.owns and world["a"].connects == 1  # over the standby, when the time has come

    play(scenario, reconnect={"max_sec": 30})


@pytest.mark.parametrize("answered", [True, False])
def test_superseded_while_a_claim_is_out_is_our_own_doing(play, monkeypatch, answered):
    monkeypatch.setattr(standby, "CONFLICT_DELAY", 1000.0)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        warm = await world["b"].standby()
        held = []
        world["b"].on_hello = lambda tunnel, hello: held.append(hello)
        owner.send(GOAWAY, code=DRAINING)
        await until(lambda: held, "the claim")
        owner.close(SUPERSEDED)  # its hub hears of the claim before we do
        await until(lambda: world.agent.tunnels.owner is None, "superseded")
        if answered:
            world["b"].grant(warm, held[0])
        else:
            warm.cut()
            world["b"].on_hello = world["b"].grant
        await until(lambda: world.agent.tunnels.owner, "an owner, and no waiting for a clone")

    play(scenario, reconnect={"max_sec": 1000})


def test_a_draining_owner_is_left_when_the_new_epoch_is_there(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        warm = await world["b"].standby()
        held = []
        world["b"].on_hello = lambda tunnel, hello: held.append(hello)
        owner.send(GOAWAY, code=DRAINING)
        await until(lambda: held, "the claim")
        assert not owner.gone and owner.code is None and world.agent.tunnels.owner.replica_id == "hub-a"
        world["b"].grant(warm, held[0])
        await until(lambda: owner.gone, "the old tunnel closed")
        assert owner.code == AGENT_GOES and world.agent.tunnels.owner.replica_id == "hub-b"
        moved = world.events("moved")[0]
        assert (moved["previous_epoch"], moved["epoch"], moved["replica"]) == (1, 2, "hub-b")
        assert not world.events("takeover", "tunnel_lost") and world["b"].connects == 1
        assert world.events("tunnel_down")[0]["level"] == "info"

    play(scenario)


def test_a_draining_standby_is_replaced(play):
    async def scenario(world: World) -> None:
        await world["a"].owner()
        first, other = await world.beside()
        world[first].refuses = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
        leaving = world[first].live[0]
        leaving.send(GOAWAY, code=DRAINING)
        await world[other].standby()
        await until(lambda: leaving.gone, "the first closed")
        assert len(world.ownership.claims) == 1

    play(scenario, "abc")


def test_both_hubs_drain_and_the_third_is_found(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        ready, third = await world.beside()
        for name in ("a", ready):
            world[name].refuses = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        world[ready].live[0].send(GOAWAY, code=DRAINING)
        owner.send(GOAWAY, code=DRAINING)
        await world[third].owner()
        await until(lambda: owner.gone, "the draining owner left")
        assert {replica for replica, _ in world.ownership.claims[1:]} <= {"hub-b", "hub-c"}

    play(scenario, "abc")


def test_one_url_that_leads_to_the_owners_hub_again(play):
    """Behind a balancer: a standby on the owner's hub is of no use, closed, and sought again."""

    async def scenario(world: World) -> None:
        await world["a"].owner()
        await until(lambda: len(world["a"].tunnels) >= 4, "three attempts at a standby")
        assert all(one.hellos[0]["standby"] for one in world["a"].tunnels[1:-1])
        await until(lambda: all(one.gone for one in world["a"].tunnels[1:-1]), "closed again")
        assert not world.events("standby_up") and len(world.ownership.claims) == 1
        world["a"].replica_id = "hub-z"  # the balancer chooses another
        await until(lambda: world.agent.tunnels.standby, "a standby")
        assert world.agent.tunnels.standby.replica_id == "hub-z"

    play(scenario, "a")


def test_a_url_that_has_led_to_the_owners_hub_is_tried_last(play):
    async def scenario(world: World) -> None:
        world["b"].replica_id = "hub-a"  # two names, one hub
        await world["a"].owner()
        await world["c"].standby()
        assert world["b"].connects <= 1 and world["a"].connects == 1

    play(scenario, "abc")


def test_agents_of_one_hub_have_their_standbys_at_different_others(play):
    found = set()

    async def scenario(world: World) -> None:
        await world["a"].owner()
        found.add((await until(lambda: world.agent.tunnels.standby, "a standby")).replica_id)

    for seed in range(6):
        play(scenario, "abcd", seed=seed)
    assert len(found) > 1 and "hub-a" not in found


def test_a_hub_outside_the_cluster_is_no_standby(play):
    async def scenario(world: World) -> None:
        world["b"].cluster = False
        await world["a"].owner()
        await until(lambda: len(world["b"].tunnels) >= 2, "tried, and tried again")
        assert not world.events("standby_up")

    play(scenario)


def test_a_hub_that_grants_a_standby_an_epoch_is_left(play):
    async def scenario(world: World) -> None:
        world["b"].on_hello = lambda tunnel, hello: tunnel.answer(77)
        await world["a"].owner()
        await until(lambda: world.events("standby_down"), "refused")
        assert world.events("standby_down")[0]["reason"] == "protocol_error"
        assert world.agent.tunnels.last_epoch == 1

    play(scenario)


@pytest.mark.parametrize("granted", [0, 1, 3])
def test_an_epoch_that_is_not_above_what_was_said_is_refused(play, granted):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        world.ownership.epoch = 0  # the registry is empty, and this hub does not listen to the agent
        world["b"].on_hello = lambda tunnel, hello: tunnel.answer(0 if hello["standby"] else granted)
        await world["b"].standby()
        world.agent.tunnels._said = 2
        owner.cut()
        again = await world["a"].owner()
        assert again.hellos[0]["last_epoch"] >= 4 and world.agent.tunnels.last_epoch == again.epoch
        assert "protocol_error" in [line["reason"] for line in world.events("tunnel_down")]

    play(scenario)


def test_two_hubs_without_a_registry_never_grant_the_same_epoch(play, monkeypatch):
    """Each grants above what it is told only; the first does it late, when the claim has been given up."""
    monkeypatch.setattr(standby, "CLAIM_TIMEOUT", 0.05)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        warm = await world["b"].standby()
        granted, late = [1], []
        world["b"].on_hello = lambda tunnel, hello: late.append(hello["last_epoch"] + 1)

        def alone(tunnel, hello):
            granted.append(hello["last_epoch"] + 1)
            tunnel.answer(0 if hello["standby"] else granted[-1])

        world["a"].on_hello = alone
        owner.cut()
        await until(lambda: late and len(granted) > 1, "both claims")
        warm.answer(late[0])  # nobody listens any more
        await world["a"].owner()
        assert late[0] not in granted

    play(scenario)


@pytest.mark.parametrize("epoch", [2**52, 2**53 - 1, 2**62 - 1])
def test_an_epoch_beyond_reason_is_not_believed_of_a_flows_other_end(play, epoch):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await world["b"].standby()
        flows = [world.flow(), world.flow()]
        for flow in flows:
            owner.open(flow)
        await until(
            lambda: all(world.agent.flows.get(flow.cid) and not world.agent.flows[flow.cid].opening for flow in flows),
            "open",
        )
        owner.send(M_DETACH, cid=flows[0].cid, code=STALE_EPOCH, seq=epoch)
        owner.send(M_DETACH, cid=flows[1].cid, code=STALE_EPOCH, seq=owner.epoch + 7)
        again = await world["b"].owner()
        assert [last for _, last in world.ownership.claims] == [0, owner.epoch + 8]
        assert again.epoch == owner.epoch + 9

    play(scenario)


@pytest.mark.parametrize("over", ["the standby", "a new tunnel"])
def test_an_agent_that_is_not_believed_forgets_and_gets_in_again(play, over):
    """Its last epoch was granted when a registry was poisoned; the hubs know better now, and end a claim above it."""
    insane = 2**52

    async def scenario(world: World) -> None:
        world.ownership.epoch = insane
        owner = await world["a"].owner()
        assert owner.epoch == insane + 1
        if over == "the standby":
            await world["b"].standby()
        else:
            world["b"].down = True
        world.ownership.epoch = 7
        refused = []

        def judge(tunnel, hello):
            if not hello["standby"] and hello["last_epoch"] > 2**51:
                refused.append(hello["last_epoch"])
                tunnel.close(PROTOCOL_ERROR)
            else:
                tunnel.hub.grant(tunnel, hello)

        world["a"].on_hello = world["b"].on_hello = judge
        owner.cut()
        await until(lambda: world.agent.tunnels.owner is not None and world.agent.tunnels.owner.epoch == 8, "it is in")
        assert refused == [insane + 1]
        assert [one["epoch"] for one in world.events("epoch_forgotten")] == [insane + 1]

    play(scenario)


def test_a_hub_that_answers_and_grants_too_little_makes_nobody_forget(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        world["b"].down = True
        said = []

        def too_little(tunnel, hello):
            said.append(hello["last_epoch"])
            tunnel.answer(1)

        world["a"].on_hello = too_little
        owner.cut()
        await until(lambda: len(said) >= 3, "three claims")
        assert said == sorted(said) and said[0] >= owner.epoch
        assert not world.events("epoch_forgotten")

    play(scenario)


def test_health_and_tokens_are_news_for_both_hubs(play, monkeypatch):
    monkeypatch.setattr("ncfast.agent.agent.FILES_CHECK", 0.02)

    async def scenario(world: World) -> None:
        owner, warm = await world["a"].owner(), await world["b"].standby()
        world.token_file.write_text("second")
        for tunnel in (owner, warm):
            assert (await tunnel.want(AUTH)).payload == b"second"
        world.service.server.close()
        for tunnel in (owner, warm):
            assert (await tunnel.want(ANNOUNCE)).body == {"connectors": []}
        owner.cut()
        await world["b"].owner()
        assert warm.hellos[-1]["connectors"] == []  # and the claim says it, too
        await world["a"].standby()
        assert world["a"].live[-1].token == "second"

    play(scenario, connector={"health": {"interval_sec": 0.05, "timeout_sec": 1, "fall": 1, "rise": 1}})


def test_a_stopping_agent_says_so_on_both_tunnels_and_waits_for_its_flows(play):
    async def scenario(world: World) -> None:
        owner, warm = await world["a"].owner(), await world["b"].standby()
        flow = world.flow()
        owner.open(flow)
        await until(lambda: world.service.writers, "dialled")
        world.agent.stop()
        for tunnel in (owner, warm):
            assert (await tunnel.want(GOAWAY)).code == DRAINING
        owner.cut()  # even now the standby takes over
        await world["b"].owner()
        assert warm.hellos[-1]["connectors"] == []
        assert (await warm.want(GOAWAY)).code == DRAINING
        world.agent.flows[flow.cid].reset(DRAINING)
        await until(lambda: warm.code == AGENT_GOES, "closed in order")
        await until(lambda: world.names("draining", "stopped") == ["draining", "stopped"], "its last line")
        assert world["a"].connects == 1  # a standby is not sought any more

    play(scenario)


@pytest.mark.parametrize("turns", range(0, 60, 3))
def test_an_agent_stopped_at_any_moment_of_its_dials_leaves_nothing(play, turns):
    async def scenario(world: World) -> None:
        await world["a"].owner()
        for _ in range(turns):  # somewhere in the standby's dial; the world looks for what is left
            await asyncio.sleep(0)

    play(scenario)


def test_a_hub_that_says_when_to_come_back_is_not_asked_before(play):
    async def scenario(world: World) -> None:
        world["a"].refuses = b"HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
        clock = world.agent.net.clock
        await until(lambda: world.events("connect_failed"), "refused")
        at = clock()
        world["a"].refuses = b""
        await world["a"].owner()
        assert 0.9 < clock() - at < 5 and len(world["a"].tunnels) == 1

    play(scenario, "a", reconnect={"max_sec": 30})


def test_pings_come_often_enough_for_the_hub(play):
    async def scenario(world: World) -> None:
        world["a"].says = {"ping_timeout": 1.0}
        owner = await world["a"].owner()
        await until(lambda: owner.pings > 2, "more PINGs than the one behind HELLO_ACK")

    play(scenario, "a", tunnel={"ping_interval_sec": 300, "ping_timeout_sec": 900})


def test_an_owner_that_drains_is_left_in_the_time_that_it_gives(play, monkeypatch):
    """No standby is there, and the next would be sought in an hour."""
    bounds: list[float] = []
    drawn = Backoff.next

    def draw(self: Backoff) -> float:
        if self._first < standby.SETTLE:
            return drawn(self)
        bounds.append(self._bound)
        return 3600.0 if len(bounds) == 1 else 0.0

    async def scenario(world: World) -> None:
        world["a"].says = {"drain": standby.SETTLE}
        owner = await world["a"].owner()
        await until(lambda: bounds, "a standby is sought")
        owner.send(GOAWAY, code=DRAINING)
        await world["b"].owner()
        assert bounds[:2] == [standby.SETTLE, standby.SETTLE / 2]

    monkeypatch.setattr(Backoff, "next", draw)
    play(scenario, "ab")


@pytest.mark.parametrize("answer", ["down", "401", "503"])
def test_hubs_that_refuse_are_tried_in_turn_until_one_takes_us(play, answer):
    async def scenario(world: World) -> None:
        for name in "ab":
            world[name].down = answer == "down"
            world[name].refuses = b"HTTP/1.1 %s No\r\nContent-Length: 0\r\n\r\n" % answer.encode()
        await world["c"].owner()
        failed = world.events("connect_failed")
        assert {line["hub"] for line in failed} >= {world[name].url for name in "ab"}
        assert {line["reason"] for line in failed} == {"closed" if answer == "down" else f"http_{answer}"}
        assert {line["role"] for line in failed} <= {"owner", "standby"}

    play(scenario, "abc")


def test_a_hub_that_is_started_beside_us_is_found_soon(play, monkeypatch):
    """Pauses are short while nobody listens, and as the file has them once somebody has answered."""
    bounds: list[float] = []
    drawn = Backoff.next

    def draw(self: Backoff) -> float:
        bounds.append(self._bound)
        return drawn(self)

    async def scenario(world: World) -> None:
        hub = world["a"]
        await until(lambda: len(bounds) >= 2, "refused, and tried again")
        assert bounds[:2] == [standby.SOON, 2 * standby.SOON]
        hub.refuses = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
        await hub.server.start_serving()
        await until(lambda: 60 in bounds, "refused by a hub")
        assert hub.connects == 1
        assert {line["reason"] for line in world.events("connect_failed")} == {"refused", "http_503"}

    monkeypatch.setattr(Backoff, "next", draw)
    play(scenario, "a", standby=False, listening=False, reconnect={"min_sec": 60, "max_sec": 60})


def test_pauses_grow_until_a_tunnel_has_stood(play, monkeypatch):
    """A hub that takes each claim and ends each tunnel soon after is not dialled in a hot loop."""
    bounds: list[float] = []
    drawn = Backoff.next

    def draw(self: Backoff) -> float:
        bounds.append(self._bound)
        return drawn(self)

    async def scenario(world: World) -> None:
        for count in range(1, 5):
            (await world["a"].owner()).cut()
            await until(lambda at=count: len(bounds) == at, "the next attempt")
        assert bounds == [0.01, 0.02, 0.04, 0.08]
        monkeypatch.setattr(standby, "STOOD", 0.0)
        (await world["a"].owner()).cut()
        await until(lambda: len(bounds) == 5, "the next attempt")
        assert bounds[-1] == 0.01, "it was well, and the pauses begin anew"

    monkeypatch.setattr(Backoff, "next", draw)
    play(scenario, "a", standby=False)
