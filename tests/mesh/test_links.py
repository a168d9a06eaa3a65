"""Links come about, one a pair, and come back."""

from __future__ import annotations

from mesh.hubs import Hub, hubs, linked, run, until


def tcp(hub: Hub) -> str:
    return f"tcp://127.0.0.1:{hub.port}"


def test_two_hubs_link_by_tcp():
    async def main():
        a, b = Hub("hub-a"), Hub("hub-b")
        async with hubs(a, b):
            a.dial(tcp(b))
            await linked(a, b)
            assert a.linked(b).dialled and not b.linked(a).dialled
            assert a.events == [("up", "hub-b")] and b.events == [("up", "hub-a")]
            assert a.mesh.origin(b.instance + bytes(8)) is a.linked(b) and b.mesh.origin(a.instance + bytes(8)) is b.linked(a)
            await until(lambda: a.linked(b).link.rtt > 0 and b.linked(a).link.rtt > 0)
            row, = a.mesh.snapshot()
            assert row["peer"] == "hub-b" and row["state"] == "up" and row["direction"] == "out" and row["carrier"] == "stream"
        assert a.events[-1] == ("down", "hub-b", "going_away")

    run(main)
