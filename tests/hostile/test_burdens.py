"""Tunnels that burden: what one of them costs the others is bounded, whatever it sends."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest
from support.bystander import Bystander
from support.cluster import Cluster
from support.insider import Insider
from support.peer import Peer
from support.raw_tunnel import CONTINUATION, ws_frame
from support.topology import Topology
from support.until import PATIENCE, wait_until

from ncfast._frames import FrameType, decode, encode
from ncfast.auth import mint
from ncfast.core.errors import Reason, close_code

MIB = 1 << 20
ASKED_FREE = 65536  # flows that a peer may ask for in vain (docs/protocol.md)


@pytest.fixture(scope="module")
def fort(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """An honest agent that serves `peer`, and nobody who serves `lure`."""
    made = Topology(
        tmp_path_factory.mktemp("fort"),
        {"peer": peer.address, "lure": peer.address},
        agents=0,
        hub={"edge": {"handshakes_per_source_per_sec": 0}},
    )
    made.add_agent("site-1", connectors={"peer": {"target": "{}:{}".format(*peer.address)}})
    yield made
    made.check()
    made.close()


@pytest.fixture
def bystander(request: pytest.FixtureRequest, fort: Topology, peer: Peer) -> Iterator[Bystander]:
    request.node.topologies = [fort]
    with Bystander(fort, peer) as running:
        yield running
    wait_until(lambda: len(fort.hub.status()["agents"]) == 1, "only the honest agent left")


def resumes(count: int, prefix: bytes, epoch: int, first: int = 0) -> bytes:
    """M_RESUMEs for flows that nobody has."""
    return b"".join(
        encode(FrameType.M_RESUME, cid=prefix + number.to_bytes(8), epoch=epoch, limit=1 << 20, payload=bytes(16))
        for number in range(first, first + count)
    )


# small frames


def test_a_flow_of_one_byte_frames_starves_nobody(fort: Topology, bystander: Bystander) -> None:
    """It is legal, and goes on as it likes; so do the others."""
    with Insider(fort.hub.edge, fort.token("mallory"), "mallory", "lure") as attacker:
        with socket.create_connection(fort.address("lure"), timeout=PATIENCE) as accomplice:
            opened = attacker.wait_frame(FrameType.M_OPEN)
            cid, epoch = opened[16:32], attacker.epoch
            limit = decode(opened)[7]
            attacker.say(encode(FrameType.M_OPEN_ACK, cid=cid, epoch=epoch, limit=1 << 18))
            whole = min(limit, 32768)
            tiny = [
                ws_frame(encode(FrameType.M_DATA, cid=cid, epoch=epoch, seq=seq, limit=1 << 18, payload=b"x"))
                for seq in range(whole)
            ]
            attacker.behaves()
            stop = threading.Event()

            def flood() -> None:
                """Once all of it, then again and again what has been received already."""
                while True:
                    for start in range(0, whole, 256):
                        if stop.is_set():
                            return
                        attacker.send(b"".join(tiny[start : start + 256]))

            thread = threading.Thread(target=flood)
            thread.start()
            try:
                got = 0
                while got < whole:
                    got += len(accomplice.recv(65536))
                for _ in range(5):
                    before = taken(fort)
                    bystander.goes_on()
                    wait_until(lambda before=before: taken(fort) > before + 10_000, "the flood to be read on")
            finally:
                stop.set()
                thread.join()
            assert [one for one in fort.hub.status()["agents"] if one["agent_id"] == "mallory"], "it broke no rule"


def taken(fort: Topology) -> float:
    """M_DATA frames that the hub has received."""
    frames = fort.hub.metric_by("nowconnect_frames_total")
    return sum(count for labels, count in frames.items() if "M_DATA" in labels and "in" in labels)


@pytest.mark.parametrize(
    "unit",
    [ws_frame(b""), ws_frame(b"", fin=False) + ws_frame(b"", CONTINUATION, fin=False) + ws_frame(b"", CONTINUATION)],
    ids=["messages", "fragments"],
)
def test_empty_messages_are_a_flood(fort: Topology, bystander: Bystander, unit: bytes) -> None:
    with Insider(fort.hub.edge, fort.token("mallory")) as attacker:
        attacker.send(unit * 5000)
        assert attacker.close_code() == close_code(Reason.FLOOD)
    bystander.goes_on()


# what only the latest counts of


def test_of_a_burst_of_announcements_the_last_counts(fort: Topology, bystander: Bystander) -> None:
    """Fewer than would be a flood; the hub acts upon the first, and a second later upon the last."""
    lines = fort.hub.log.mark()
    with Insider(fort.hub.edge, fort.token("mallory")) as attacker:
        burst = [["lure"], []] * 40 + [["lure", "peer"]]
        attacker.say(
            *(encode(FrameType.ANNOUNCE, payload=json.dumps({"connectors": names}).encode()) for names in burst)
        )
        attacker.behaves()

        def changes() -> list[dict]:
            return fort.hub.log.events("connectors_changed", after=lines, agent_id="mallory")

        wait_until(lambda: "peer" in (changes() or [{"added": []}])[-1]["added"], "the last one to count")
        assert len(changes()) <= 3, changes()  # in one read, but it may have come in two
    bystander.goes_on()


# answers that nobody reads


def test_answers_that_nobody_reads_cost_no_memory(fort: Topology, bystander: Bystander) -> None:
    fort.hub.program.reset_peak()
    base = fort.hub.program.rss()
    with Insider(fort.hub.edge, fort.token("mallory")) as attacker:
        attacker.sock.settimeout(PATIENCE)
        sent = 0
        for number in range(2000):
            try:
                attacker.sock.sendall(ws_frame(resumes(200, b"nobody's", attacker.epoch, 200 * number)))
            except (ConnectionResetError, BrokenPipeError):
                break
            sent += 1
        assert sent < 2000, "400,000 questions whose answers nobody has read, and the tunnel stands"
        bystander.goes_on()
    closed = fort.hub.log.wait("agent_disconnected", agent_id="mallory", epoch=attacker.epoch)
    assert closed["reason"] in {Reason.STALLED.label, Reason.FLOOD.label}, closed
    assert fort.hub.program.peak_rss() - base < 32 * MIB
    wait_until(lambda: fort.hub.status()["memory"]["held_bytes"] < MIB, "nothing kept for who is gone")


# a link between hubs, which many agents share


def test_an_agent_that_asks_in_vain_ends_its_own_tunnel_and_no_link(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, peer: Peer
) -> None:
    made = Cluster(tmp_path_factory.mktemp("cluster"), {"peer": peer.address}, names=("hub-a", "hub-b"))
    request.node.topologies = [made]
    try:
        made.wait_ready(*made.names)
        owner = made.wait_owner()
        (other,) = set(made.names) - {owner}
        marks = {name: hub.log.mark() for name, hub in made.hubs.items()}
        with Bystander(made.door(other), peer):
            pass  # a flow of that hub's clients, whose cid begins as all of them do
        prefix = bytes.fromhex(made.hubs[other].log.wait("flow_closed", after=marks[other])["cid"])[:8]
        with Bystander(made.door(other), peer) as bystander:
            token = mint(made.key_file.read_bytes(), "mallory", connectors=["peer"])
            with Insider(made.hubs[owner].edge, token) as attacker:
                codes: list[int | None] = []
                reader = threading.Thread(target=lambda: codes.append(attacker.close_code()))
                reader.start()
                for number in range(0, 4 * ASKED_FREE, 100):
                    if codes:
                        break
                    attacker.send(ws_frame(resumes(100, prefix, attacker.epoch, (1 << 40) + number)))
                reader.join(PATIENCE)
            ended = made.hubs[owner].log.wait("agent_disconnected", after=marks[owner], agent_id="mallory")
            assert ended["reason"] in {Reason.FLOOD.label, Reason.STALLED.label}, ended
            bystander.goes_on()
        for name, hub in made.hubs.items():
            assert not hub.log.events("mesh_link_down", after=marks[name]), name
        made.check()
    finally:
        made.close()
