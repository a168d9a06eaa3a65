"""A conversation that runs beside whatever a test does to the hub, and must not notice."""

from __future__ import annotations

import socket
import threading

from support.peer import Peer, order_line
from support.script import pattern
from support.topology import Topology
from support.until import PATIENCE, wait_until

SIZE = 512


class Bystander:
    """An echo client in a thread; leaving the context fails unless every answer was right."""

    def __init__(self, made: Topology, peer: Peer, connector: str = "peer") -> None:
        self.turns = 0
        self._seed = peer.next_seed()
        self._sock = socket.create_connection(made.address(connector), timeout=PATIENCE)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(order_line(self._seed, [["echo"], ["fin"]]))
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._talk)

    def _talk(self) -> None:
        try:
            while not self._stop.is_set():
                sent = pattern(self._seed, SIZE * self.turns, SIZE)
                self._sock.sendall(sent)
                assert self._read(SIZE) == sent, f"wrong echo in turn {self.turns}"
                self.turns += 1
                self._stop.wait(0.005)  # a bystander, not a load
            self._sock.shutdown(socket.SHUT_WR)
            assert self._sock.recv(1) == b"", "bytes after the last answer"
        except BaseException as error:
            self._failure = error
        finally:
            self._sock.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._sock.recv(size - len(data))
            assert more, "the flow ended"
            data += more
        return data

    def goes_on(self) -> None:
        """Fail unless ten more answers come."""
        goal = self.turns + 10
        wait_until(lambda: self._failure or self.turns >= goal, "ten more answers to the bystander")
        if self._failure:
            raise AssertionError(f"the bystander was hurt: {self._failure!r}") from self._failure

    def __enter__(self) -> Bystander:
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.goes_on()
        finally:
            self._stop.set()
            self._thread.join()
        if kind is None and self._failure:
            raise AssertionError(f"the bystander was hurt: {self._failure!r}") from self._failure
