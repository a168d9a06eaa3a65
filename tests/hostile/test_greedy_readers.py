"""Clients that take and do not read, and a target that hangs: what they may cost others. Nothing."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.bystander import Bystander
from support.peer import Address, Peer
from support.topology import Topology
from support.until import PATIENCE, wait_until

MIB = 1 << 20
BUDGET = 16 * MIB
READERS = 400  # that do not read: 1.6 GiB, if each were given what a kernel gives a socket
STILL = 30  # looks at a sum in a row that are the same: it has come to rest


class Flood:
    """A service that sends to each client for as long as the kernel takes it."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address: Address = self._listening.getsockname()
        self._over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        piece = bytes(65536)
        with selectors.DefaultSelector() as selector, ExitStack() as open_ones:
            selector.register(self._listening, selectors.EVENT_READ)
            while not self._over:
                for key, _ in selector.select(0.1):
                    if key.fileobj is self._listening:
                        client = open_ones.enter_context(self._listening.accept()[0])
                        client.setblocking(False)
                        selector.register(client, selectors.EVENT_WRITE)
                        continue
                    assert isinstance(key.fileobj, socket.socket)
                    try:
                        key.fileobj.send(piece)
                    except BlockingIOError:
                        pass
                    except OSError:
                        selector.unregister(key.fileobj)

    def stop(self) -> None:
        self._over = True
        self._thread.join()
        self._listening.close()


@pytest.fixture
def flood() -> Iterator[Flood]:
    service = Flood()
    yield service
    service.stop()


@contextmanager
def topology(directory: Path, connectors: dict[str, Address], **options: Any) -> Iterator[Topology]:
    made = Topology(directory, connectors, **options)
    try:
        yield made
    finally:
        made.close()


def greedy_clients(stack: ExitStack, address: Address, count: int) -> None:
    for _ in range(count):
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect(address)


def test_readers_that_pause_do_not_starve_another_listeners_clients(tmp_path: Path, flood: Flood, peer: Peer) -> None:
    connectors = {"greedy": flood.address, "honest": peer.address}
    limits = {"limits": {"memory_bytes": BUDGET}}
    with topology(tmp_path, connectors, hub=limits) as made, ExitStack() as stack:
        hub, most, rest = made.hub, 0, [-1]

        def full() -> bool:
            nonlocal most
            held = hub.status()["memory"]["held_bytes"]
            most = max(most, held)
            rest.append(held)
            return held > BUDGET // 2 and len(rest) > STILL and len(set(rest[-STILL:])) == 1

        greedy_clients(stack, made.address("greedy"), READERS)
        wait_until(full, "the greedy have all that they can get")
        bystanders = [stack.enter_context(Bystander(made, peer, "honest")) for _ in range(3)]
        for bystander in bystanders:
            bystander.goes_on()
        assert hub.get("/readyz")[0] == 200, "no balancer takes a hub out for one listener's clients"
        full()
        assert most <= BUDGET, f"{most} bytes held by a hub with a budget of {BUDGET}"


def test_the_kernel_holds_little_for_readers_that_pause(tmp_path: Path, flood: Flood) -> None:
    count = 50
    with topology(tmp_path, {"greedy": flood.address}) as made, ExitStack() as stack:
        greedy_clients(stack, made.address("greedy"), count)
        rest: list[int] = []

        def still() -> bool:
            memory = made.hub.status()["memory"]
            rest.append(memory["held_bytes"] + memory["kernel_bytes"])
            return len(rest) > STILL and rest[-1] > count * 65536 and len(set(rest[-STILL:])) == 1

        wait_until(still, "no more comes for them")
        kernel = made.hub.metric("nowconnect_memory_kernel_bytes")
        assert 0 < kernel < count * MIB // 2, f"the kernel holds {kernel} bytes"


def test_a_target_that_hangs_does_not_hold_up_the_agents_others(tmp_path: Path, peer: Peer) -> None:
    """It answers no SYN, as its queue of connections is full: a firewall that drops does the same."""
    with ExitStack() as stack:
        hung = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(hung.getsockname())
        patient = {
            "hub": {"flow": {"open_timeout_sec": 300}, "drain": {"timeout_sec": 0}},
            "agent_connector": {"dial_timeout_sec": 300},
        }
        connectors = {"hung": hung.getsockname(), "honest": peer.address}
        made = stack.enter_context(topology(tmp_path, connectors, **patient))
        for _ in range(300):
            stack.enter_context(socket.create_connection(made.address("hung"), timeout=PATIENCE))
        wait_until(lambda: made.hub.status()["flows"]["held"] >= 44, "the hung connector has all that it can get")
        with Bystander(made, peer, "honest") as bystander:
            bystander.goes_on()
