"""Links come about by every way, exactly one a pair, and come back."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from types import SimpleNamespace

import pytest
from support.until import until

from bench.ports import free_port
from mesh.authority import Authority, uri
from mesh.hubs import Hub, hubs, linked, run
from mesh.wires import Wire
from ncfast.core.errors import Reason
from ncfast.mesh import peer as peer_module
from ncfast.mesh.manager import Mesh
from ncfast.mesh.states import LinkState
from ncfast.observe import readings


def tcp(hub: Hub) -> str:
    return f"tcp://127.0.0.1:{hub.port}"


def frames(peer) -> int:
    """PONGs that have come: the link works both ways."""
    return peer.link.counters()[0].get("PONG", 0)


async def alive(one: Hub, other: Hub) -> None:
    await linked(one, other)
    before = frames(one.linked(other)), frames(other.linked(one))
    await until(
        lambda: frames(one.linked(other)) > before[0] and frames(other.linked(one)) > before[1], "pings answered"
    )


# ways


def test_tcp():
    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with hubs(a, b):
            a.dial(tcp(b))
            await alive(a, b)
            assert a.linked(b).dialled and not b.linked(a).dialled
            assert a.events == [("up", "hub-b")] and b.events == [("up", "hub-a")]
            assert a.mesh.origin(b.instance + bytes(8)) is a.linked(b) and b.mesh.origin(
                a.instance + bytes(8)
            ) is b.linked(a)
            assert a.mesh.origin(bytes(16)) is None
            (row,) = a.mesh.snapshot()
            assert (
                row["peer"] == "hub-b"
                and row["state"] == "up"
                and row["direction"] == "out"
                and row["carrier"] == "stream"
            )
            assert row["url"] == tcp(b) and row["reconnects"] == row["errors"] == row["flows"] == 0
            (row,) = b.mesh.snapshot()
            assert row["peer"] == "hub-a" and row["state"] == "up" and row["direction"] == "in" and row["url"] == ""
            assert a.mesh.totals().frames_out["AUTH"] == b.mesh.totals().frames_in["AUTH"] == 1
        assert a.events[-1] == ("down", "hub-b", "going_away")
        assert a.stats.mesh_rtt.cumulative()[-1][1] > 0
        assert not a.stats.mesh_errors and not b.stats.mesh_errors and not b.refused()

    run(main)


def test_unix_socket(tmp_path):
    async def main():
        a, b = (
            Hub("hub-a"),
            Hub("hub-b", {"listen": None, "listen_unix": str(tmp_path / "b.sock"), "require_mtls": True}),
        )
        async with hubs(a, b):
            assert b.mesh.address == str(tmp_path / "b.sock")
            a.dial(f"unix://{b.mesh.address}")
            await alive(a, b)
        assert not (tmp_path / "b.sock").exists()

    run(main)


def test_mutual_tls(tmp_path):
    async def main():
        authority = Authority(tmp_path)
        a = Hub("hub-a", {"require_mtls": True, "tls": authority.tls(uri("hub-a"))})
        b = Hub("hub-b", {"require_mtls": True, "tls": authority.tls("DNS:hub-b")})
        async with hubs(a, b):
            a.dial(f"tls://127.0.0.1:{b.port}")
            await alive(a, b)
            assert a.linked(b).credential.kind == b.linked(a).credential.kind == "certificate"

    run(main)


def test_websocket():
    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with hubs(a, b):
            a.dial(f"ws://127.0.0.1:{b.port}/mesh")
            await alive(a, b)
            assert a.mesh.snapshot()[0]["carrier"] == b.mesh.snapshot()[0]["carrier"] == "websocket"

    run(main)


def test_websocket_over_mutual_tls(tmp_path):
    """wss:// straight to a hub's listener: the web's rule for the URL's host, and the mesh's for the certificates."""

    async def main():
        authority = Authority(tmp_path)
        a = Hub("hub-a", {"require_mtls": True, "tls": authority.tls(uri("hub-a"))})
        b = Hub("hub-b", {"require_mtls": True, "tls": authority.tls(uri("hub-b"), "DNS:localhost")})
        async with hubs(a, b):
            a.dial(f"wss://localhost:{b.port}/mesh")
            await alive(a, b)
            assert a.linked(b).credential.kind == b.linked(a).credential.kind == "certificate"
            assert b.mesh.snapshot()[0]["carrier"] == "websocket"
            a.dial(f"wss://127.0.0.1:{b.port}/mesh")  # not a name of the certificate
            await until(lambda: a.mesh.routes[f"wss://127.0.0.1:{b.port}/mesh"].last_error == "certificate")

    run(main)


def test_a_hub_that_drains_says_so_to_all():
    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with hubs(a, b):
            a.dial(tcp(b))
            await linked(a, b)
            a.mesh.say_leaving()
            await until(lambda: b.mesh.peer("hub-a").draining)
            assert (
                b.linked(a).draining
                and b.mesh.snapshot()[0]["state"] == "draining"
                and a.mesh.snapshot()[0]["state"] == "up"
            )
            b.dial(tcp(a))  # those that come later are told as well
            former = b.linked(a)
            a.linked(b).link.fail(Reason.GOING_AWAY)
            await until(lambda: (now := b.mesh.peer("hub-a")) not in (None, former) and now.draining)

    run(main)


# one link


def test_simultaneous_dials_settle_on_one():
    async def main():
        for seed in range(40):
            a, b = Hub("hub-a"), Hub("hub-b")
            chance = random.Random(seed)
            async with hubs(a, b):
                later = [a, b]
                chance.shuffle(later)
                for hub in later:
                    hub.dial(tcp(b if hub is a else a))
                    for _ in range(chance.randrange(8)):
                        await asyncio.sleep(0)
                await linked(a, b)
                await until(
                    lambda a=a, b=b: (
                        a.linked(b) and a.linked(b).dialled and not a.mesh._handshakes and not b.mesh._handshakes
                    )
                )
                await alive(a, b)
                await until(lambda a=a, b=b: b.mesh.routes[tcp(a)].state is LinkState.RESTING)
                assert a.mesh.routes[tcp(b)].state is LinkState.UP
                assert not a.stats.mesh_errors and not b.stats.mesh_errors and not a.refused() and not b.refused()
                assert a.stats.mesh_reconnects == b.stats.mesh_reconnects == 0
                for hub in (a, b):
                    ends = [event[2] for event in hub.events if event[0] == "down"]
                    assert set(ends) <= {"duplicate"} and len(ends) <= 1

    run(main)


def test_eight_hubs_make_a_full_mesh():
    async def main():
        made = [Hub(f"hub-{number}") for number in range(8)]
        async with hubs(*made):
            for hub in made:
                hub.mesh.discovered(
                    [
                        SimpleNamespace(replica_id=one.replica_id, instance=one.instance.hex(), mesh_url=tcp(one))
                        for one in made
                    ]
                )
            await linked(*made)
            await until(
                lambda: all(hub.linked(one).dialled for hub in made for one in made if hub.replica_id < one.replica_id)
            )
            assert sum(route.attempts for hub in made for route in hub.mesh.routes.values()) <= 5 * 28
            assert all(len(hub.mesh.snapshot()) == 7 for hub in made)

    run(main)


def test_the_smaller_ones_dial_stays_whoever_came_first():
    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with hubs(a, b):
            b.dial(tcp(a))
            await linked(a, b)
            await alive(a, b)
            a.dial(tcp(b))
            await until(lambda: a.linked(b) and a.linked(b).dialled and b.linked(a) and not b.linked(a).dialled)
            assert ("down", "hub-b", "duplicate") in a.events and ("down", "hub-a", "duplicate") in b.events
            await until(lambda: b.mesh.routes[tcp(a)].state is LinkState.RESTING)

    run(main)


def test_two_urls_of_one_replica_make_one_link():
    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with hubs(a, b):
            b.dial(f"ws://127.0.0.1:{a.port}/mesh", tcp(a))
            await linked(a, b)
            await until(lambda: sorted(route.state for route in b.mesh.routes.values()) == ["resting", "up"])
            assert len(b.mesh.snapshot()) == 1 and a.events == [("up", "hub-b")]
            b.linked(a).link.fail(Reason.STALLED)
            await until(lambda: len(a.events) == 3)
            await until(lambda: sorted(route.state for route in b.mesh.routes.values()) == ["resting", "up"])

    run(main)


def test_ourselves_is_recognised_and_forgotten():
    async def main():
        a = Hub("hub-a")
        async with hubs(a):
            a.dial(tcp(a))
            await until(lambda: a.mesh.routes[tcp(a)].own)
            assert a.mesh.healthy and not a.mesh.snapshot() and not a.events
            assert not a.refused() and not a.stats.mesh_errors
            a.mesh.discovered([SimpleNamespace(replica_id="hub-a", instance=a.instance.hex(), mesh_url=tcp(a))])
            assert a.mesh.healthy and a.mesh.routes[tcp(a)].attempts == 1

    run(main)


def test_our_own_name_in_use_is_an_error(monkeypatch):
    async def main():
        a, other = Hub("hub-a"), Hub("hub-a")
        async with hubs(a, other):
            a.dial(tcp(other))
            await until(lambda: a.refused().get("replica_id") or other.refused().get("replica_id"))
            assert not a.events and not other.events and not a.mesh.healthy

    run(main)


# coming back


def test_a_restarted_peer_replaces_its_former_link_at_once():
    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with hubs(a, b):
            a.dial(tcp(b))
            await linked(a, b)
            again = Hub("hub-b")
            async with hubs(again):
                again.dial(tcp(a))
                await until(lambda: a.linked("hub-b").instance == again.instance)
                assert a.events == [("up", "hub-b"), ("down", "hub-b", "superseded"), ("up", "hub-b")]
                assert a.mesh.was(b.instance) and not a.mesh.was(again.instance)
                assert a.mesh.origin(b.instance + bytes(8)) is None and a.mesh.origin(
                    again.instance + bytes(8)
                ) is a.linked("hub-b")
                b.dial(tcp(a))  # the former process still lives, and tries
                await until(lambda: a.refused().get("superseded"))
                assert a.linked("hub-b").instance == again.instance

    run(main)


def test_a_process_whose_link_was_lost_before_its_successor_came_is_remembered():
    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with hubs(a):
            async with hubs(b):
                a.dial(tcp(b))
                await linked(a, b)
            await until(lambda: a.linked("hub-b") is None)
            assert not a.mesh.was(b.instance)
            again = Hub("hub-b")
            async with hubs(again):
                again.dial(tcp(a))
                await until(lambda: a.linked("hub-b") is not None)
                assert a.mesh.was(b.instance) and not a.mesh.was(again.instance)

    run(main)


def test_lost_links_come_back():
    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with Wire(lambda: b.port) as wire, hubs(a, b):
            b.reached_by(wire.url)
            a.dial(wire.url)
            b.dial(tcp(a))
            await linked(a, b)
            for number in range(1, 6):
                was = a.linked(b), b.linked(a)
                wire.reset()
                await until(lambda was=was: a.linked(b) not in (None, was[0]) and b.linked(a) not in (None, was[1]))
                await linked(a, b)
                await until(lambda: a.linked(b) and a.linked(b).dialled)
                assert a.mesh.accounts.record("hub-b").reconnects >= number
            assert a.stats.mesh_reconnects >= 5 and a.stats.mesh_errors >= 5

    run(main)


@pytest.mark.parametrize("silence", ["both", "up", "down"])
def test_silence_is_noticed_in_either_direction(silence):
    """One-way too: a peer that is heard but does not hear is no peer."""

    async def main():
        a, b = (Hub(name, {"ping_timeout_sec": 0.5}) for name in ("hub-a", "hub-b"))
        async with Wire(lambda: b.port) as wire, hubs(a, b):
            b.reached_by(wire.url)
            a.dial(wire.url)
            await linked(a, b)
            first = a.linked(b), b.linked(a)
            wire.silence(silence)
            await until(lambda: a.linked(b) is not first[0] and b.linked(a) is not first[1], "both ends notice")
            await alive(a, b)
            assert ("down", "hub-b", "keepalive_timeout") in a.events or (
                "down",
                "hub-a",
                "keepalive_timeout",
            ) in b.events

    run(main)


def test_a_peer_that_is_away_is_tried_with_growing_pauses_and_then_found():
    async def main():
        port = free_port()
        url = f"tcp://127.0.0.1:{port}"
        a = Hub("hub-a", {"connect_backoff_max_sec": 0.1})
        async with hubs(a):
            a.dial(url)
            route = a.mesh.routes[url]
            await until(lambda: route.breaker.state in ("open", "half_open"), "the breaker opens")
            assert not a.mesh.healthy
            (row,) = a.mesh.snapshot()
            assert row["peer"] == url and row["state"] in ("backoff", "dialling") and row["last_error"] == "unreachable"
            assert row["errors"] == a.stats.mesh_errors >= 8
            b = Hub("hub-b", {"listen": f"127.0.0.1:{port}"})
            async with hubs(b):
                await linked(a, b)
                assert a.mesh.healthy and a.mesh.snapshot()[0]["peer"] == "hub-b"

    run(main)


def test_a_sign_of_life_ends_the_wait():
    async def main():
        port = free_port()
        url = f"tcp://127.0.0.1:{port}"
        a = Hub("hub-a", {"connect_backoff_max_sec": 3600})
        async with hubs(a):
            a.dial(url)
            await until(lambda: a.mesh.routes[url].breaker.failures >= 5)
            b = Hub("hub-b", {"listen": f"127.0.0.1:{port}"})
            async with hubs(b):
                b.dial(tcp(a))
                await until(lambda: a.linked(b) and a.linked(b).dialled)

    run(main)


def test_discovered_peers_come_and_go():
    async def main():
        a, b, c = Hub("hub-a"), Hub("hub-b"), Hub("hub-c")

        def known(*some):
            return [
                SimpleNamespace(replica_id=one.replica_id, instance=one.instance.hex(), mesh_url=tcp(one))
                for one in some
            ]

        async with hubs(a, b, c):
            assert a.mesh.healthy
            a.mesh.discovered([*known(a, b), SimpleNamespace(replica_id="hub-x", instance="00" * 8, mesh_url="")])
            assert not a.mesh.healthy and tcp(a) not in a.mesh.routes
            await linked(a, b)
            assert a.mesh.healthy
            a.mesh.discovered(known(a, c))  # b's presence ran out; its link stands all the same
            await linked(a, c)
            assert tcp(b) not in a.mesh.routes and a.linked(b)
            a.linked(b).link.fail(Reason.STALLED)
            assert a.linked(b) is None
            rows = {row["peer"]: row for row in a.mesh.snapshot()}
            assert (
                rows["hub-b"]["state"] == "lost"
                and rows["hub-b"]["last_error"] == "stalled"
                and rows["hub-c"]["state"] == "up"
            )

    run(main)


def test_an_address_may_pass_from_one_replica_to_another():
    async def main():
        a, b, c = Hub("hub-a"), Hub("hub-b"), Hub("hub-c")

        def known(name, url):
            return SimpleNamespace(replica_id=name, instance="00" * 8, mesh_url=url)

        async with hubs(a, b, c):
            a.mesh.discovered([known("hub-b", tcp(c))])  # the registry is late: hub-c is there by now
            await until(lambda: a.mesh.routes[tcp(c)].last_error == "identity")
            assert not a.mesh.peers
            other = f"ws://127.0.0.1:{b.port}/mesh"
            a.mesh.discovered([known("hub-b", tcp(b)), known("hub-c", tcp(c))])
            await linked(a, c)
            await linked(a, b)
            a.dial(other)
            route = a.mesh.routes[other]
            await until(lambda: route.state is LinkState.RESTING and route.replica_id == "hub-b")
            attempts = route.attempts
            a.mesh.discovered([known("hub-b", tcp(b)), known("hub-x", other)])  # and so it is dialled again
            await until(
                lambda: route.attempts > attempts and route.state is LinkState.RESTING and route.replica_id == "hub-b"
            )

    run(main)


@pytest.mark.parametrize("dials", ["who comes back first", "who comes back last"])
def test_hubs_that_have_left_and_come_back_keep_what_carries_flows_until_there_is_better(monkeypatch, dials):
    """One is back, and the other does not let it in yet: their flows have no other link."""
    monkeypatch.setattr(Mesh, "_let_go", lambda mesh: None)  # flows need the link

    async def main():
        a, b = (Hub(name, {"listen": f"127.0.0.1:{free_port()}"}) for name in ("hub-a", "hub-b"))
        async with hubs(a, b):
            for one, other in ((a, b), (b, a)):
                if (one is a) == (dials == "who comes back first"):
                    one.dial(tcp(other))
            await linked(a, b)
            links = a.linked(b).link, b.linked(a).link
            a.mesh.retire()
            b.mesh.retire()
            await a.mesh.rejoin(a.config)
            if dials == "who comes back first":
                await until(lambda: any(route.errors for route in a.mesh.routes.values()), "it is not let in")
            await alive(a, b)
            assert (a.linked(b).link, b.linked(a).link) == links and len(a.events) == len(b.events) == 1
            await b.mesh.rejoin(b.config)
            await until(lambda: all(link.closed for link in links), "another has come")
            await alive(a, b)
            assert not a.linked(b).draining and not b.linked(a).draining

    run(main)


def test_states_shown_are_those_of_the_metrics():
    assert {str(state) for state in LinkState} == set(readings.LINK_STATES)


# what comes from others


def test_unknown_frames_are_skipped_and_garbage_hurts_only_its_own_link():
    async def main():
        a, b, c = Hub("hub-a"), Hub("hub-b"), Hub("hub-c")
        async with Wire(lambda: b.port) as wire, hubs(a, b, c):
            b.reached_by(wire.url)
            a.dial(wire.url)
            c.dial(tcp(b))
            await linked(a, b)
            await linked(c, b)
            first, third = a.linked(b), c.linked(b)
            wire.inject(struct.pack(">BBHI", 200, 1, 0, 5) + bytes(48) + b"later")
            await alive(a, b)
            assert a.linked(b) is first and b.mesh.totals().frames_in.get("M_OPEN") is None
            wire.inject(b"\xff" * 200)
            await until(lambda: a.linked(b) is not first)
            await alive(a, b)
            assert c.linked(b) is third and c.events == [("up", "hub-b")]
            assert ("down", "hub-a", "protocol_error") in b.events and ("down", "hub-b", "protocol_error") in a.events

    run(main)


def test_newer_hubs_may_say_more(monkeypatch):
    """N+1: members and features that this version does not know."""
    pack = peer_module.Hello.pack
    monkeypatch.setattr(
        peer_module.Hello,
        "pack",
        lambda self: json.dumps(json.loads(pack(self)) | {"later": [1, {"x": None}]}).encode(),
    )
    monkeypatch.setattr(peer_module, "FEATURES", ["relay-v2"])

    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with hubs(a, b):
            a.dial(tcp(b))
            await alive(a, b)
            assert a.linked(b).features == {"relay-v2"}

    run(main)


def test_another_version_or_cluster_is_refused(monkeypatch):
    async def main():
        a, b, c = Hub("hub-a"), Hub("hub-b", cluster="other"), Hub("hub-c")
        async with hubs(a, b, c):
            a.dial(tcp(b))
            await until(lambda: b.refused().get("cluster"))
            say = peer_module.Peer._say
            monkeypatch.setattr(
                peer_module.Peer,
                "_say",
                lambda self, kind, **more: say(self, kind, **more).model_copy(
                    update={"version": 2} if self.dialled else {}
                ),
            )
            c.dial(tcp(a))
            await until(lambda: a.refused().get("version"))
            await until(lambda: c.mesh.routes[tcp(a)].last_error == "peer_version")
            assert not a.events and not b.events and not c.events

    run(main)
