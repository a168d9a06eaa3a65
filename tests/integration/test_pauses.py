"""Readers that pause: whoever does not read for a while loses nothing, as on a direct connection.

Flows with the same pauses run beside each other, and a direct connection beside each. `NCFAST_PAUSE` (seconds) makes
the pauses longer than the suite has time for.
"""

from __future__ import annotations

import asyncio
import os

import pytest
from support.peer import Address, Both, Peer, byte_exact, run_flow
from support.script import Step
from support.topology import MakeTopology

MIB = 1 << 20
MUCH = 24 * MIB  # more than all buffers on the way hold
PAUSE = float(os.environ.get("NCFAST_PAUSE", 14))  # above each timer of these hubs and agents, 10 s the longest once
FLOW = {"stall_sec": 0, "half_close_sec": 3}

READS: list[Step] = [["read", 65536], ["pause", PAUSE], ["drain"]]
SENDS: list[Step] = [["send", MUCH], ["fin"]]
SCRIPTS: dict[str, tuple[list[Step], list[Step]]] = {  # client's, service's
    "client": ([*READS, ["fin"]], [*SENDS, ["drain"]]),
    "service": ([*SENDS, ["drain"]], [*READS, ["fin"]]),
    "both": ([["both", SENDS, READS]], [["both", SENDS, READS]]),
    # all is sent, and the service has closed, before the client reads on
    "client, of the rest": (
        [["read", 1000], ["pause", PAUSE], ["drain"], ["fin"]],
        [["send", 2 * MIB], ["fin"], ["drain"]],
    ),
    "service, of the rest": (
        [["send", 2 * MIB], ["fin"], ["drain"]],
        [["read", 1000], ["pause", PAUSE], ["drain"], ["fin"]],
    ),
}


def sent(script: list[Step]) -> int:
    return sum(
        step[1] if step[0] == "send" else sent(step[1]) + sent(step[2]) if step[0] == "both" else 0 for step in script
    )


async def run(peer: Peer, address: Address, who: str) -> Both:
    client, service = SCRIPTS[who]
    return await run_flow(peer, address, client=client, service=service, timeout=PAUSE + 120)


def whole(who: str, both: Both) -> None:
    client, service = SCRIPTS[who]
    for end, length in ((both.client, sent(service)), (both.service, sent(client))):
        assert end.error is None and end.finished and end.eof, (who, both)
        byte_exact(end, length)


@pytest.mark.parametrize("cut", [False, True], ids=["", "tunnel-cut"])
def test_who_pauses_loses_nothing(peer: Peer, topology: MakeTopology, cut: bool) -> None:
    made = topology({"peer": peer.address}, via_proxy=cut, hub={"flow": FLOW}, agent={"flow": FLOW})

    async def cuts() -> None:
        await asyncio.sleep(PAUSE / 2)  # while they pause: nothing tells of it
        assert made.proxy is not None
        made.proxy.fault("rst")

    async def all_of_them() -> list[Both]:
        flows = [run(peer, address, who) for who in SCRIPTS for address in (made.address("peer"), peer.address)]
        return (await asyncio.gather(*flows, *([cuts()] if cut else [])))[: len(flows)]

    outcomes = asyncio.run(all_of_them())
    for who, through, direct in zip(SCRIPTS, outcomes[::2], outcomes[1::2], strict=True):
        whole(f"{who}", direct)
        whole(f"{who}", through)
    assert {line["reason"] for line in made.hub.access_lines()} == {"closed"}
