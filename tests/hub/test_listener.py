"""A client port on real sockets: who is let in, who is shed and how, and whom a PROXY header names."""

from __future__ import annotations

import socket
from collections import Counter

import pytest
from mesh.wires import LINGER_0

from hub import doors as d
from hub.rooms import listener as config
from ncfast.config.hub import Listener
from ncfast.core.timeouts import Timeouts
from ncfast.hub import listener as module
from ncfast.hub.client import ClientInfo
from ncfast.net import acceptor, proxyproto
from ncfast.net.seam import TCP_NOTSENT_LOWAT
from ncfast.net.throttle import Throttle
from ncfast.observe.log.masking import Mask
from ncfast.observe.stats import ListenerStats

PROXIED = {"proxy_protocol": "any", "proxy_from": ["127.0.0.0/8"]}
HEADER = b"PROXY TCP4 192.0.2.50 192.0.2.1 4711 389\r\n"
LOCAL = proxyproto.build("v2", None, None)  # a balancer's own check
LATE = {"open_on": "first_byte"}


def shed(stats):
    """Clients turned away, by reason, over all listeners."""
    return sum((one.shed for one in stats.listeners.values()), Counter())


def play(tmp_path, scene, settings=None, **sections):
    """`scene(hub, listener)` on a listener of its own."""

    async def main():
        async with d.doors(tmp_path, **sections) as hub:
            await scene(hub, await hub.listen(config(**(settings or {}))))

    d.run(main)


async def reset_seen(address: str, said: bytes = b"", *, eof: bool = False) -> bool:
    """Whether a client that comes now, and says something, is cut by a reset, and not by an end of stream."""
    try:
        reader, writer = await d.dial(address)
        writer.write(said)
        if eof:
            writer.write_eof()
        await reader.read()
    except ConnectionError:
        return True
    writer.close()
    return False


# who is let in


def test_a_client_becomes_a_flow_with_the_listeners_settings(tmp_path):
    async def scene(hub, listener):
        reader, writer = await d.dial(listener.address)
        writer.write(b"hello")
        await d.until(lambda: hub.received() == 5, "the bytes are the flow's")
        (info,) = hub.clients
        assert info.client == "%s:%d" % writer.get_extra_info("sockname")
        assert info.listener is listener.config and info.timeouts.idle == 77
        assert (listener.active, listener.per_source) == (1, {"127.0.0.1": 1})
        d.cut(writer)
        await d.until(lambda: listener.active == 0, "its end is noticed")
        assert listener.per_source == {} and hub.net.sockets == 0

    play(tmp_path, scene, {"idle_timeout_sec": 77})


def test_a_clients_socket_has_the_options_of_a_flows_end(tmp_path):
    async def scene(hub, listener):
        reader, writer = await d.dial(listener.address)
        await d.until(lambda: hub.ground.flows, "the client is a flow")
        (flow,) = hub.ground.flows.values()
        sock = flow.sink.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT) == hub.ground.config.flow.notsent_lowat
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == LINGER_0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        d.cut(writer)

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"deny": ["127.0.0.0/8"]}, "acl"),
        ({"allow": ["192.0.2.0/24"]}, "acl"),
        ({"allow": ["127.0.0.0/8"], "deny": ["127.0.0.1/32"]}, "acl"),
        ({"allow": ["127.0.0.0/8"]}, None),
        ({"deny": ["192.0.2.0/24"]}, None),
    ],
    ids=["denied", "not allowed", "deny wins", "allowed", "not denied"],
)
def test_access_lists(tmp_path, settings, reason):
    async def scene(hub, listener):
        if reason is not None:
            assert await reset_seen(listener.address)
            assert shed(hub.ground.stats) == {reason: 1} and not hub.clients
        else:
            _, writer = await d.dial(listener.address)
            await d.until(lambda: hub.clients, "let in")
            writer.close()

    play(tmp_path, scene, settings)


@pytest.mark.parametrize("cap", ["listener_cap", "source_cap", "flow_cap"])
def test_a_cap_sheds_by_a_reset_and_one_that_goes_makes_room(tmp_path, cap):
    settings = {"listener_cap": {"max_connections": 1}, "source_cap": {"max_connections_per_source": 1}}.get(cap, {})
    sections = {"limits": {"max_flows": 1}} if cap == "flow_cap" else {}

    async def scene(hub, listener):
        _, writer = await d.dial(listener.address)
        await d.until(lambda: hub.clients, "let in")
        assert await reset_seen(listener.address)
        assert shed(hub.ground.stats) == {cap: 1} and len(hub.clients) == 1
        d.cut(writer)
        await d.until(lambda: listener.active == 0, "gone")
        _, writer = await d.dial(listener.address)
        await d.until(lambda: len(hub.clients) == 2, "let in")
        writer.close()

    play(tmp_path, scene, settings, **sections)


def test_no_clients_beyond_the_memory_or_the_rate(tmp_path):
    async def scene(hub, listener):
        hub.ground.context.budget.resize(-1)
        assert await reset_seen(listener.address)
        hub.ground.context.budget.resize(1 << 30)
        throttle = Throttle(1, lambda: 0.0)  # of which time stands still
        while throttle.admit("127.0.0.1"):
            pass
        listener._opens = throttle
        assert await reset_seen(listener.address)
        assert shed(hub.ground.stats) == {"memory": 1, "rate": 1} and not hub.clients

    play(tmp_path, scene)


def test_without_descriptors_nobody_is_accepted_and_the_kernel_keeps_those_who_come(tmp_path, monkeypatch):
    monkeypatch.setattr(acceptor, "ACCEPT_PAUSE", 0.01)

    async def scene(hub, listener):
        limit, hub.net.fd_limit = hub.net.fd_limit, 0
        _, writer = await d.dial(listener.address)
        await d.until(lambda: listener.out_of_descriptors, "out of descriptors")
        assert listener.bound and not listener.accepting and shed(hub.ground.stats)["fd"] >= 1
        hub.net.fd_limit = limit
        await d.until(lambda: hub.clients, "let in after all")
        assert listener.accepting
        writer.close()

    play(tmp_path, scene)


# its life


def test_a_port_in_use_cannot_be_bound(tmp_path):
    async def scene(hub, listener):
        other = hub.make_listener(config("other", bind=listener.address))
        with pytest.raises(OSError, match="cannot listen on"):
            await other.open()
        assert not other.bound and not other.accepting and other.address == listener.address

    play(tmp_path, scene)


def test_a_closed_listener_accepts_nobody_and_its_flows_live_on(tmp_path):
    async def scene(hub, listener):
        _, writer = await d.dial(listener.address)
        await d.until(lambda: hub.clients, "let in")
        listener.close()
        with pytest.raises(OSError):
            await d.dial(listener.address)
        writer.write(b"still here")
        await d.until(lambda: hub.received() == 10, "the flow goes on")
        assert not listener.bound
        writer.close()

    play(tmp_path, scene)


def test_new_settings_are_for_new_clients(tmp_path):
    async def scene(hub, listener):
        writers = [(await d.dial(listener.address))[1]]
        await d.until(lambda: hub.clients, "let in")
        address = listener.address
        listener.configure(Listener.model_validate(listener.config.model_dump() | {"idle_timeout_sec": 5}))
        writers.append((await d.dial(address))[1])
        await d.until(lambda: len(hub.clients) == 2, "let in")
        assert [info.timeouts.idle for info in hub.clients] == [3600, 5]
        for writer in writers:
            writer.close()

    play(tmp_path, scene)


# PROXY protocol


def test_the_header_names_the_client_and_what_follows_is_the_flows(tmp_path):
    async def scene(hub, listener):
        _, writer = await d.dial(listener.address)
        for piece in (HEADER[:9], HEADER[9:] + b"hello"):
            writer.write(piece)
            await writer.drain()
        await d.until(lambda: hub.received() == 5, "the bytes behind the header")
        assert [info.client for info in hub.clients] == ["192.0.2.50:4711"]
        assert listener.per_source == {"192.0.2.50": 1}
        d.cut(writer)
        await d.until(lambda: listener.active == 0 and hub.net.sockets == 0, "gone")

    play(tmp_path, scene, PROXIED)


def test_a_source_is_a_whole_64_of_ipv6(tmp_path):
    async def scene(hub, listener):
        writers = []
        for number, host in enumerate(("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")):
            _, writer = await d.dial(listener.address)
            writer.write(f"PROXY TCP6 {host} 2001:db8::9 4711 389\r\n".encode())
            await d.until(lambda: len(hub.clients) + sum(shed(hub.ground.stats).values()) == number + 1, "judged")
            writers.append(writer)
        assert shed(hub.ground.stats) == {"source_cap": 1}
        assert listener.per_source == {"2001:db8::/64": 1, "2001:db8:0:1::/64": 1}
        for writer in (writers[0], writers[2]):
            d.cut(writer)

    play(tmp_path, scene, PROXIED | {"max_connections_per_source": 1})


def test_a_header_that_names_nobody_leaves_the_balancer_as_the_client(tmp_path):
    async def scene(hub, listener):
        _, writer = await d.dial(listener.address)
        writer.write(b"PROXY UNKNOWN\r\n")
        await d.until(lambda: hub.clients, "let in")
        assert hub.clients[0].client == "%s:%d" % writer.get_extra_info("sockname")
        writer.close()

    play(tmp_path, scene, PROXIED)


def test_a_source_that_is_not_trusted_sends_no_header_whatever_its_bytes_look_like(tmp_path):
    async def scene(hub, listener):
        _, writer = await d.dial(listener.address)
        writer.write(HEADER)
        await d.until(lambda: hub.received() == len(HEADER), "all of it is payload")
        assert hub.clients[0].client.startswith("127.0.0.1:")
        writer.close()

    play(tmp_path, scene, PROXIED | {"proxy_from": ["192.0.2.0/24"]})


@pytest.mark.parametrize(
    ("data", "settings", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", {}, "proxy_header"),
        (HEADER, {"deny": ["192.0.2.50/32"]}, "acl"),
        (HEADER, {"allow": ["127.0.0.0/8"]}, "acl"),
    ],
    ids=["no header", "denied", "not allowed"],
)
def test_who_is_shed_by_what_the_header_says(tmp_path, data, settings, reason):
    async def scene(hub, listener):
        assert await reset_seen(listener.address, data)
        await d.until(lambda: listener.active == 0 and hub.net.sockets == 0, "gone")
        assert shed(hub.ground.stats) == {reason: 1} and not hub.clients

    play(tmp_path, scene, PROXIED | settings)


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "is silent"])
def test_a_source_whose_header_does_not_come_is_shed(tmp_path, monkeypatch, ends):
    monkeypatch.setattr(module, "PROXY_HEADER_TIMEOUT", 60.0 if ends else 0.01)

    async def scene(hub, listener):
        assert await reset_seen(listener.address, HEADER[:5], eof=ends)
        await d.until(lambda: listener.active == 0 and hub.net.sockets == 0, "gone")
        assert shed(hub.ground.stats) == {"proxy_header" if ends else "proxy_header_timeout": 1}

    play(tmp_path, scene, PROXIED)


def test_those_who_have_not_sent_their_header_count_against_the_cap(tmp_path):
    async def scene(hub, listener):
        _, writer = await d.dial(listener.address)
        await d.until(lambda: listener.active == 1, "accepted")
        assert await reset_seen(listener.address)
        assert shed(hub.ground.stats) == {"listener_cap": 1}
        d.cut(writer)
        await d.until(lambda: listener.active == 0, "gone")

    play(tmp_path, scene, PROXIED | {"max_connections": 1})


# those who say nothing


@pytest.mark.parametrize(
    ("settings", "said", "kind"),
    [(PROXIED, LOCAL, "proxy_local"), (LATE, b"", "silent"), (PROXIED | LATE, HEADER, "silent")],
    ids=["a balancer's check", "a probe", "a probe through a balancer"],
)
class TestProbe:
    @pytest.mark.parametrize("ends", ["in order", "by a reset"])
    def test_nothing_is_opened_for_it_and_it_ends_as_it_likes(self, tmp_path, settings, said, kind, ends):
        async def scene(hub, listener):
            reader, writer = await d.dial(listener.address)
            writer.write(said)
            await d.until(lambda: listener.waiting, "it is waited for")
            assert listener.active == 1 and sum(listener.per_source.values()) == 1
            if ends == "in order":
                writer.write_eof()
                assert await reader.read() == b""  # no reset
                writer.close()
            else:
                d.cut(writer)
            await d.until(lambda: listener.active == 0 and hub.net.sockets == 0, "gone")
            stats = hub.ground.stats
            assert (stats.probes, shed(stats), stats.flows_opened) == ({kind: 1}, {}, 0)
            assert not hub.clients and not listener.waiting and not listener.per_source

        play(tmp_path, scene, settings)

    def test_with_its_first_byte_it_is_a_client(self, tmp_path, settings, said, kind):
        async def scene(hub, listener):
            reader, writer = await d.dial(listener.address)
            writer.write(said)
            await d.until(lambda: listener.waiting, "it is waited for")
            writer.write(b"h")
            await d.until(lambda: hub.received() == 1, "the byte is the flow's")
            writer.write(b"ello")
            await d.until(lambda: hub.received() == 5, "and what follows")
            (info,) = hub.clients
            named = "192.0.2.50:4711" if said == HEADER else "%s:%d" % writer.get_extra_info("sockname")
            assert info.client == named and listener.per_source == {named.partition(":")[0]: 1}
            assert not listener.waiting and hub.ground.stats.probes == {}
            d.cut(writer)
            await d.until(lambda: listener.active == 0 and hub.net.sockets == 0, "gone")
            assert not listener.per_source

        play(tmp_path, scene, settings)

    @pytest.mark.parametrize("times", [{"first_byte_timeout_sec": 0.01}, {"idle_timeout_sec": 0.01}])
    def test_it_is_not_waited_for_for_ever(self, tmp_path, settings, said, kind, times):
        async def scene(hub, listener):
            reader, writer = await d.dial(listener.address)
            writer.write(said)
            with pytest.raises(ConnectionError):
                await reader.read()
                raise AssertionError("an end of stream instead of a reset")
            await d.until(lambda: listener.active == 0 and hub.net.sockets == 0, "gone")
            assert shed(hub.ground.stats) == {"first_byte_timeout": 1} and hub.ground.stats.probes == {}
            writer.close()

        play(tmp_path, scene, settings | times)

    def test_its_first_byte_finds_no_room(self, tmp_path, settings, said, kind):
        async def scene(hub, listener):
            hub.ground.context.budget.resize(-1)
            reader, writer = await d.dial(listener.address)
            writer.write(said)
            await d.until(lambda: listener.waiting, "it is waited for all the same")
            writer.write(b"hello")
            with pytest.raises(ConnectionError):
                await reader.read()
                raise AssertionError("an end of stream instead of a reset")
            await d.until(lambda: listener.active == 0, "gone")
            assert shed(hub.ground.stats) == {"memory": 1} and not hub.clients
            writer.close()

        play(tmp_path, scene, settings)

    def test_it_is_turned_away_when_the_hub_drains(self, tmp_path, settings, said, kind):
        async def scene(hub, listener):
            reader, writer = await d.dial(listener.address)
            writer.write(said)
            await d.until(lambda: listener.waiting, "it is waited for")
            listener.turn_away("draining")
            with pytest.raises(ConnectionError):
                await reader.read()
                raise AssertionError("an end of stream instead of a reset")
            await d.until(lambda: listener.active == 0, "gone")
            assert shed(hub.ground.stats) == {"draining": 1}
            writer.close()

        play(tmp_path, scene, settings)


def test_a_balancers_check_is_answered_by_a_hub_that_lets_nobody_in(tmp_path):
    async def scene(hub, listener):
        hub.ground.context.budget.resize(-1)
        assert await d.exchange(listener.address, LOCAL, eof=True) == b""
        await d.until(lambda: listener.active == 0, "gone")
        assert hub.ground.stats.probes == {"proxy_local": 1} and shed(hub.ground.stats) == {}

    play(tmp_path, scene, PROXIED | {"deny": ["127.0.0.1/32"]})


def test_a_client_that_is_silent_counts_for_its_source(tmp_path):
    async def scene(hub, listener):
        _, writer = await d.dial(listener.address)
        await d.until(lambda: listener.waiting, "it is waited for")
        assert await reset_seen(listener.address)
        assert shed(hub.ground.stats) == {"source_cap": 1}
        writer.write(b"hello")
        await d.until(lambda: hub.received() == 5, "its own place does not stand in its way")
        writer.close()

    play(tmp_path, scene, LATE | {"max_connections_per_source": 1})


def test_a_client_that_was_silent_keeps_the_settings_with_which_it_came(tmp_path):
    async def scene(hub, listener):
        _, writer = await d.dial(listener.address)
        await d.until(lambda: listener.waiting, "it is waited for")
        listener.configure(Listener.model_validate(listener.config.model_dump() | {"idle_timeout_sec": 5}))
        writer.write(b"hello")
        await d.until(lambda: hub.clients, "let in")
        (info,) = hub.clients
        assert (info.timeouts.idle, info.listener.idle_timeout_sec) == (3600, 3600)
        writer.close()

    play(tmp_path, scene, LATE)


def test_a_client_by_ipv6_is_one_client_whatever_its_port():
    """Without brackets the port would be a part of the address, and each port another client to `mask: hash`."""
    shown = []
    for port in (4000, 4001):
        info = ClientInfo(config(), Timeouts(10.0, 30.0, 300.0, 30.0), "2001:db8::1", port, 0.0, ListenerStats())
        shown.append(info.client)
    assert shown == ["[2001:db8::1]:4000", "[2001:db8::1]:4001"]
    mask = Mask("hash", b"k")
    assert mask.address(shown[0]) == mask.address(shown[1])


# who is passed by another process


SILENT = {"kind": "silent", "client": ["127.0.0.1", 4711], "due": None, "read": "", "as": "silent"}
NO_CLIENTS = [
    ({key: SILENT[key] for key in SILENT if key != lacks}, KeyError) for lacks in ("client", "due", "read", "as")
]
NO_CLIENTS += [(SILENT | {"client": client}, TypeError) for client in ([None, 4711], ["127.0.0.1", "4711"], 4711)]


@pytest.mark.parametrize(("head", "defect"), NO_CLIENTS)
def test_a_client_that_was_passed_and_is_none_takes_no_place(tmp_path, head, defect):
    async def scene(hub, listener):
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(defect):
            listener.put(head, ours)
        assert listener.active == 0 and not listener.per_source and not listener.waiting
        assert hub.net.sockets == 0

    play(tmp_path, scene, LATE)
