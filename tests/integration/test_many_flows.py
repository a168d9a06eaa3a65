"""Many flows at once, and slow ones beside fast ones."""

from __future__ import annotations

import asyncio

import pytest
from support.peer import Peer, byte_exact, connect, order_line, run_flow
from support.script import End, Gates, Outcome
from support.topology import MakeTopology
from support.until import SCENARIO_SEC, until, wait_until

pytestmark = pytest.mark.traffic
MIB = 1 << 20
FLOWS = 2000
PATIENT = {"flow": {"stall_sec": 120}}


def test_2000_flows_at_once(topology: MakeTopology, peer: Peer) -> None:
    """All are open before the first one ends; each carries its own pattern both ways."""
    made = topology({"peer": peer.address})
    both_ways = [["both", [["send", 20_000]], [["read", 20_000]]]]

    async def one(gates: Gates, opened: asyncio.Semaphore, connecting: asyncio.Semaphore) -> Outcome:
        seed = peer.next_seed()
        async with connecting:
            sock = await connect(made.address("peer"))
            end = End(sock, send_seed=2 * seed, receive_seed=2 * seed + 1, gates=gates)
            script = [*both_ways, ["fin"], ["drain"]]
            order = order_line(seed, [["read", 1], *both_ways, ["drain"]])
            await asyncio.get_running_loop().sock_sendall(sock, order)
        opened.release()
        return await end.run([["wait", "all"], ["send", 1], *script])

    async def scenario() -> list[Outcome]:
        gates, opened, connecting = Gates(), asyncio.Semaphore(0), asyncio.Semaphore(200)
        async with asyncio.timeout(SCENARIO_SEC), asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(gates, opened, connecting)) for _ in range(FLOWS)]
            for _ in range(FLOWS):
                await opened.acquire()

            def all_there() -> bool:
                assert made.direct or not (ended := made.hub.status()["flows"]["closed"]), ended
                return peer.counts()["active"] == FLOWS

            await until(all_there, f"{FLOWS} flows at the service")
            if not made.direct:
                assert made.hub.status()["flows"]["active"] == FLOWS
            gates["all"].set()
        return [task.result() for task in tasks]

    for outcome in asyncio.run(scenario()):
        assert outcome.error is None and outcome.eof, outcome
        byte_exact(outcome, 20_000)


def test_2000_short_flows_one_after_another(topology: MakeTopology, peer: Peer) -> None:
    """Open, one exchange, close, 50 at a time: the life of an LDAP client without a pool."""
    made = topology({"peer": peer.address})

    async def worker(turns: int) -> None:
        for _ in range(turns):
            seed = peer.next_seed()
            sock = await connect(made.address("peer"))
            end = End(sock, send_seed=2 * seed, receive_seed=2 * seed + 1, gates=Gates())
            order = order_line(seed, [["read", 64], ["send", 700]])
            await asyncio.get_running_loop().sock_sendall(sock, order)
            outcome = await end.run([["send", 64], ["drain"]])
            assert outcome.error is None, outcome
            byte_exact(outcome, 700)

    async def scenario() -> None:
        async with asyncio.timeout(SCENARIO_SEC):
            await asyncio.gather(*(worker(FLOWS // 50) for _ in range(50)))

    asyncio.run(scenario())


def test_slow_readers_stall_only_themselves(topology: MakeTopology, peer: Peer) -> None:
    """Ten clients stop reading 24 MiB each; a fast flow goes on beside them; they get every byte later."""
    made = topology({"peer": peer.address}, hub=PATIENT, agent=PATIENT)
    size, slow = 24 * MIB, 10
    base = 0 if made.direct else made.hub.program.rss()

    async def scenario() -> tuple[list[Outcome], list[Outcome]]:
        gates = Gates()
        seeds = [peer.next_seed() for _ in range(slow)]
        slow_flows = [
            asyncio.create_task(
                run_flow(
                    peer,
                    made.address("peer"),
                    seed=seed,
                    gates=gates,
                    receive_buffer=65536,
                    client=[["read", 1024], ["wait", "read on"], ["drain"]],
                    service=[["send", size], ["fin"]],
                )
            )
            for seed in seeds
        ]
        for seed in seeds:  # every slow flow has filled what lies between
            sent, same = -1, 0
            while same < 20:
                await asyncio.sleep(0.01)
                seen = await asyncio.to_thread(peer.outcome, seed)
                now = seen.sent if seen else -1
                same = same + 1 if now == sent and now > 0 else 0
                sent = now
            assert sent < size, "nothing held the source back"
        fast = []
        for _ in range(3):
            service = [["send", 64 * MIB]]
            flow = await run_flow(peer, made.address("peer"), client=[["drain"]], service=service)
            fast.append(flow.client)
        if not made.direct:
            grown = made.hub.program.peak_rss() - base
            assert grown < 256 * MIB, f"ten slow readers cost {grown >> 20} MiB at the hub"
        gates["read on"].set()
        return [(await task).client for task in slow_flows], fast

    slow_seen, fast_seen = asyncio.run(scenario())
    for outcome in fast_seen:
        byte_exact(outcome, 64 * MIB)
    for outcome in slow_seen:
        assert outcome.error is None, outcome
        byte_exact(outcome, size)


def test_slow_service_holds_its_own_client_back_only(topology: MakeTopology, peer: Peer) -> None:
    """The mirror image: a service that stops reading, beside one that reads."""
    made = topology({"peer": peer.address}, hub=PATIENT, agent=PATIENT)
    size = 24 * MIB

    async def scenario() -> None:
        seed = peer.next_seed()
        slow = asyncio.create_task(
            run_flow(
                peer,
                made.address("peer"),
                seed=seed,
                client=[["send", size], ["fin"], ["drain"]],
                service=[["read", 1024], ["wait", f"read on {seed}"], ["drain"], ["fin"]],
            )
        )
        fast = await run_flow(peer, made.address("peer"), client=[["send", 64 * MIB]], service=[["drain"]])
        byte_exact(fast.service, 64 * MIB)
        peer.open_gate(f"read on {seed}")
        both = await slow
        assert both.client.error is None, both
        byte_exact(both.service, size)

    asyncio.run(scenario())


def test_one_byte_writes_stay_bytes_not_objects(topology: MakeTopology, peer: Peer) -> None:
    """100,000 single bytes towards a service that does not read yet cost little memory anywhere."""
    made = topology({"peer": peer.address})
    seed, count = peer.next_seed(), 100_000
    base = 0 if made.direct else made.hub.program.rss()

    async def scenario() -> None:
        both = await run_flow(
            peer,
            made.address("peer"),
            seed=seed,
            client=[*([["send", 1]] * count), ["fin"], ["drain"]],
            service=[["drain"], ["fin"]],
        )
        byte_exact(both.service, count)

    asyncio.run(scenario())
    if not made.direct:
        assert made.hub.program.peak_rss() - base < 64 * MIB


def test_flows_leave_no_descriptor_behind(topology: MakeTopology, peer: Peer) -> None:
    made = topology({"peer": peer.address})
    if made.direct:
        pytest.skip("about the hub's and agent's descriptors")
    now = made.hub.program.open_files, made.agent.program.open_files
    files = tuple(count() + 1 for count in now)  # the first flow's socket makes the epoll set that all of them are in

    async def scenario() -> None:
        ways = (
            {"client": [["fin"], ["drain"]], "service": [["drain"]]},
            {"client": [["read", 1], ["send", 10], ["rst"]], "service": [["send", 1], ["drain"]]},
            {"client": [["drain"]], "service": [["send", 10], ["rst"]]},
        )
        async with asyncio.timeout(SCENARIO_SEC):
            for _ in range(20):
                await asyncio.gather(*(run_flow(peer, made.address("peer"), **way) for way in ways * 5))

    asyncio.run(scenario())
    made.hub.wait_idle()
    wait_until(lambda: tuple(count() for count in now) == files, f"open files back at {files}")
