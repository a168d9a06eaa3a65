"""A flow, or a client that has none yet, between two processes, and many of them as one message says them."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ncfast.net.syscalls import Accepted

Head = dict[str, Any]


@dataclass(slots=True)
class Parcel:
    """A client between two processes. Whoever drops it closes its socket by a reset, if it is the last to have it."""

    head: Head  # as JSON holds it
    record: bytes  # of the flow; b"" if there is none yet
    unsent: bytes  # what the socket has not taken
    sock: socket.socket | Accepted | None  # None: a flow whose client is gone, and of which an end is still owed

    def close(self) -> None:
        """The other process has it."""
        if self.sock is not None:
            with self.sock:
                pass


def packed(parcels: Iterable[Parcel]) -> tuple[list[Head], list[bytes], list[int]]:
    """What a message says of them: heads, payload, descriptors."""
    heads: list[Head] = []
    payload: list[bytes] = []
    fds: list[int] = []
    for one in parcels:
        heads.append({**one.head, "size": [len(one.record), len(one.unsent)], "sock": one.sock is not None})
        payload += (one.record, one.unsent)
        if one.sock is not None:
            fds.append(one.sock.fileno())
    return heads, payload, fds


def unpacked(heads: list[Head], payload: bytes, fds: Iterable[int]) -> Iterator[Parcel]:
    """The parcels of a message. Raises ValueError, KeyError or TypeError for what is none."""
    at = 0
    left = iter(fds)
    view = memoryview(payload)
    for head in heads:
        record, unsent = head["size"]
        sock = Accepted(next(left)) if head["sock"] else None
        yield Parcel(head, bytes(view[at : at + record]), bytes(view[at + record : at + record + unsent]), sock)
        at += record + unsent
