"""How flows end: half-close in every order, resets as resets, nothing cut off."""

from __future__ import annotations

import asyncio

import pytest
from support.peer import Both, Peer, byte_exact, run_flow
from support.script import Gates, Step
from support.topology import Topology

pytestmark = pytest.mark.traffic
MIB = 1 << 20


def flow(peer: Peer, shared: Topology, *, armed: bool = False, **options: object) -> Both:
    address = shared.address("armed" if armed else "peer")
    return asyncio.run(run_flow(peer, address, armed=armed, **options))


def ended_well(both: Both, to_service: int, to_client: int) -> None:
    for end, length in ((both.service, to_service), (both.client, to_client)):
        assert end.error is None and end.finished and end.eof, both
        byte_exact(end, length)


@pytest.mark.parametrize("left", [0, 1, 10 * MIB], ids=["0B", "1B", "10MiB"])
@pytest.mark.parametrize("armed", [False, True], ids=["client-speaks-first", "service-speaks-first"])
class TestHalfClose:
    """``left`` bytes still go the other way after one side's FIN."""

    def test_client_first(self, peer: Peer, shared: Topology, left: int, armed: bool) -> None:
        both = flow(
            peer,
            shared,
            armed=armed,
            client=[["send", 1000], ["fin"], ["drain"]],
            service=[["drain"], ["send", left], ["fin"]],
        )
        ended_well(both, 1000, left)

    def test_service_first(self, peer: Peer, shared: Topology, left: int, armed: bool) -> None:
        both = flow(
            peer,
            shared,
            armed=armed,
            client=[["drain"], ["send", left], ["fin"]],
            service=[["send", 1000], ["fin"], ["drain"]],
        )
        ended_well(both, left, 1000)

    def test_both_at_once(self, peer: Peer, shared: Topology, left: int, armed: bool) -> None:
        script: list[Step] = [["both", [["send", left], ["fin"]], [["drain"]]]]
        ended_well(flow(peer, shared, armed=armed, client=script, service=script), left, left)


def test_client_closes_without_a_byte(peer: Peer, shared: Topology) -> None:
    both = flow(peer, shared, armed=True, client=[["fin"], ["drain"]], service=[["drain"], ["fin"]])
    ended_well(both, 0, 0)


def test_service_sends_20_mib_and_closes_at_once(peer: Peer, shared: Topology) -> None:
    for _ in range(5):
        both = flow(peer, shared, client=[["drain"]], service=[["send", 20 * MIB]])
        assert both.client.eof and both.client.error is None
        byte_exact(both.client, 20 * MIB)


def test_client_sends_20_mib_and_closes_at_once(peer: Peer, shared: Topology) -> None:
    both = flow(peer, shared, client=[["send", 20 * MIB]], service=[["drain"]])
    assert both.service.eof and both.service.error is None
    byte_exact(both.service, 20 * MIB)


@pytest.mark.parametrize("sent", [0, 1, 300_000])
def test_reset_by_the_service_is_a_reset_at_the_client(peer: Peer, shared: Topology, sent: int) -> None:
    gates = Gates()

    def all_here(outcome: object) -> None:
        if outcome.received == sent:
            peer.open_gate(f"reset-{sent}")

    both = flow(
        peer,
        shared,
        gates=gates,
        on_progress=all_here,
        client=[["drain"]],
        service=[["send", sent], *([["wait", f"reset-{sent}"]] if sent else []), ["rst"]],
    )
    assert both.client.error == "ECONNRESET", both
    byte_exact(both.client, sent)


@pytest.mark.parametrize("sent", [0, 1, 300_000])
def test_reset_by_the_client_is_a_reset_at_the_service(peer: Peer, shared: Topology, sent: int) -> None:
    async def scenario() -> Both:
        gates = Gates()
        seed = peer.next_seed()

        async def reset_when_all_is_there() -> None:
            await peer.reached(seed, sent)
            gates["go"].set()

        watcher = asyncio.create_task(reset_when_all_is_there())
        both = await run_flow(
            peer,
            shared.address("peer"),
            gates=gates,
            seed=seed,
            client=[["send", sent], ["wait", "go"], ["rst"]],
            service=[["drain"]],
        )
        await watcher
        return both

    both = asyncio.run(scenario())
    assert both.service.error == "ECONNRESET", both
    byte_exact(both.service, sent)


def test_reset_amid_a_large_body_is_never_a_clean_end(peer: Peer, shared: Topology) -> None:
    for _ in range(20):
        both = flow(peer, shared, client=[["drain"]], service=[["send", 2 * MIB], ["rst"]])
        assert both.client.first_bad is None
        assert both.client.error == "ECONNRESET" and not both.client.eof, both


def test_reset_after_fin_does_not_drop_the_body(peer: Peer, shared: Topology) -> None:
    """The service has shut down its side and all is acknowledged; its reset is then only tidying up."""
    for _ in range(20):
        both = flow(peer, shared, client=[["drain"]], service=[["send", MIB], ["fin"], ["flushed"], ["rst"]])
        byte_exact(both.client, MIB)


def test_answer_and_fin_while_the_client_still_sends(peer: Peer, shared: Topology) -> None:
    for _ in range(10):
        both = flow(
            peer,
            shared,
            client=[["both", [["send", 3 * MIB], ["fin"]], [["drain"]]]],
            service=[["read", MIB], ["send", MIB], ["fin"], ["drain"]],
        )
        ended_well(both, 3 * MIB, MIB)


def test_acknowledged_answer_arrives_before_the_reset(peer: Peer, shared: Topology) -> None:
    """A service that closes with unread input: its kernel resets, yet what was acknowledged before is there."""
    for _ in range(20):
        both = flow(
            peer,
            shared,
            client=[["both", [["send", 3 * MIB]], [["read", MIB]]]],
            service=[["read", MIB], ["send", MIB], ["flushed"], ["rst"]],
        )
        byte_exact(both.client, MIB)


def test_answer_cut_off_by_a_reset_is_never_taken_for_the_whole(peer: Peer, shared: Topology) -> None:
    for _ in range(20):
        both = flow(
            peer,
            shared,
            client=[["both", [["send", 3 * MIB]], [["drain"]]]],
            service=[["read", MIB], ["send", MIB]],
        )
        assert both.client.first_bad is None
        assert both.client.error == "ECONNRESET" or both.client.received == MIB, both


def test_ping_pong_in_lockstep(peer: Peer, shared: Topology) -> None:
    turns = 500
    both = flow(
        peer,
        shared,
        client=[step for _ in range(turns) for step in (["send", 128], ["read", 128])],
        service=[step for _ in range(turns) for step in (["read", 128], ["send", 128])],
    )
    byte_exact(both.client, 128 * turns)
    byte_exact(both.service, 128 * turns)
