"""An agent's connections to its targets: dialled, told of when that fails, given up, tuned."""

from __future__ import annotations

import errno
import socket

import pytest
from support.descriptors import descriptors
from support.silent import silent_address
from support.until import until

from agent.hubs import M_OPEN_ACK, M_RST, World
from ncfast.agent import target as target_module
from ncfast.core.errors import Reason
from ncfast.net.seam import TCP_NOTSENT_LOWAT


def test_a_client_that_has_gone_leaves_no_dial(play):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        target = world.agent.services.targets["echo"]
        await world["b"].standby()  # nothing else is opened from here on
        before = descriptors()
        for _ in range(3):  # and each had the only place
            flow = world.flow()
            owner.open(flow)
            await until(lambda: target.dials == 1, "the dial")
            assert descriptors() != before
            other = world.flow()
            owner.open(other)
            assert (await owner.want(M_RST, cid=other.cid)).code == Reason.OVERLOADED
            owner.send(M_RST, cid=flow.cid, code=Reason.CLIENT_RESET)
            await until(lambda: not world.agent.flows, "the flow's end")
            assert target.dials == 0 and descriptors() == before
        assert [one["reason"] for one in world.events("flow_closed")] == ["overloaded", "client_reset"] * 3
        assert not world.events("dial_failed")

    with silent_address() as (host, port):
        play(scenario, connector={"target": f"{host}:{port}", "dial_timeout_sec": 300, "max_dials": 1})


@pytest.mark.parametrize(
    ("failure", "reason", "detail"),
    [
        (TimeoutError(), Reason.TARGET_TIMEOUT, None),
        (OSError(errno.ETIMEDOUT, ""), Reason.TARGET_TIMEOUT, None),
        (OSError(errno.ECONNREFUSED, ""), Reason.TARGET_REFUSED, None),
        (OSError(errno.EHOSTUNREACH, "No route to host"), Reason.TARGET_UNREACHABLE, "No route to host"),
        (socket.gaierror(socket.EAI_NONAME, ""), Reason.TARGET_UNREACHABLE, "the name is not found"),
        (OSError(errno.EMFILE, ""), Reason.OVERLOADED, "out of descriptors"),
    ],
)
@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_dial_that_fails(play, monkeypatch, failure, reason, detail, when):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await world["b"].standby()
        net, target = world.agent.net, world.agent.services.targets["echo"]
        end = net.call_soon if when == "later" else lambda done, outcome: done(outcome)
        monkeypatch.setattr(net, "start_dial", lambda host, port, done, **more: end(done, failure))
        flow = world.flow()
        owner.open(flow)
        assert (await owner.want(M_RST, cid=flow.cid)).code == reason
        (told,) = world.events("dial_failed")
        assert (told["connector"], told["reason"], told.get("detail")) == ("echo", reason.label, detail)
        assert target.dials == 0 and not target.reached and not world.agent.flows

    play(scenario)


def test_a_dial_that_cannot_even_begin_leaves_neither_its_place_nor_its_flow(play, monkeypatch):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await world["b"].standby()
        agent, target, flow = world.agent, world.agent.services.targets["echo"], world.flow()
        request = ("echo", "l", flow.secret, "hub-a", ("192.0.2.1", 1, "192.0.2.2", 2), "", "")

        def fails(*arguments, **more):
            raise MemoryError

        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(agent.net, "start_dial", fails)
            target.open(agent.tunnels.owner.link, flow.cid, 65536, request)
        assert target.dials == 0 and not agent.flows
        assert (await owner.want(M_RST, cid=flow.cid)).code == Reason.INTERNAL
        await world.opened(owner)

    play(scenario)


@pytest.mark.parametrize("lacks", ["a place", "a descriptor"])
def test_a_flow_that_was_refused_for_want_of_room_may_come_again(play, monkeypatch, lacks):
    """Its target has seen nothing of it, and hubs ask again at the same agent."""

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await world["b"].standby()
        net, target = world.agent.net, world.agent.services.targets["echo"]
        flow = world.flow()
        with monkeypatch.context() as patch:
            if lacks == "a place":
                patch.setattr(target, "dials", 1)
            else:
                full = OSError(errno.EMFILE, "")
                patch.setattr(net, "start_dial", lambda host, port, done, **more: done(full))
            for _ in range(2):
                owner.open(flow)
                assert (await owner.want(M_RST, cid=flow.cid)).code == Reason.OVERLOADED
        owner.open(flow)
        await owner.want(M_OPEN_ACK, cid=flow.cid)
        owner.send(M_RST, cid=flow.cid, code=Reason.CLIENT_RESET)
        await until(lambda: not world.agent.flows, "the flow's end")
        owner.open(flow)  # its target has seen this one
        assert (await owner.want(M_RST, cid=flow.cid)).code == Reason.LINK_LOST

    play(scenario, connector={"max_dials": 1})


def options(sock: socket.socket) -> list[int]:
    tcp = socket.IPPROTO_TCP
    asked = [(tcp, socket.TCP_NODELAY), (tcp, TCP_NOTSENT_LOWAT), (socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
    asked += [(tcp, socket.TCP_KEEPIDLE), (tcp, socket.TCP_KEEPINTVL), (tcp, socket.TCP_KEEPCNT)]
    return [sock.getsockopt(*option) for option in asked]


def test_a_connection_that_lives_has_keepalive(play, monkeypatch):
    monkeypatch.setattr(target_module, "YOUNG_SEC", 1e6)

    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        young = world.agent.services.targets["echo"].young
        short, flow = await world.opened(owner), await world.opened(owner)
        sock = world.agent.flows[flow.cid].sink.transport.get_extra_info("socket")
        assert options(sock)[:3] == [1, 65536, 0] and len(young) == 2
        owner.send(M_RST, cid=short.cid, code=Reason.CLIENT_RESET)
        await until(lambda: len(young) == 1, "the short one forgotten")
        monkeypatch.setattr(target_module, "YOUNG_SEC", 0.0)
        await until(lambda: options(sock) == [1, 65536, 1, 60, 10, 6], "keepalive")
        assert not young

    play(scenario, flow={"notsent_lowat": 65536})


def test_a_connection_without_a_transport_ends_its_flow(play, monkeypatch):
    async def scenario(world: World) -> None:
        owner = await world["a"].owner()
        await world["b"].standby()

        def none(sock, end, notsent_lowat):
            sock.close()
            end.handshake_failed(OSError(errno.ENOSPC, ""))

        monkeypatch.setattr(world.agent.net, "adopt_end", none)
        flow = world.flow()
        owner.open(flow)
        assert (await owner.want(M_RST, cid=flow.cid)).code == Reason.TARGET_UNREACHABLE
        assert not world.agent.flows

    play(scenario)
