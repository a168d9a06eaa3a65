"""A connection with TLS that has had its share of a turn: what its transport has taken from the socket by then, and not
told, is read on in the next one."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading

import aiofastnet
import pytest
import trustme
from net.test_turns import LATE, Rig
from support.until import until

from ncfast.core.link import Link
from ncfast.net.carrier import ReceiveBuffer
from ncfast.net.raw import RawCarrier


@pytest.mark.parametrize("count", [5000, 50_000], ids=["less than the transport holds", "more"])
def test_all_of_it_arrives(count: int) -> None:
    authority = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(theirs)
    ours = ssl.create_default_context()
    authority.configure_trust(ours)
    near, far = socket.socketpair()
    go, over = threading.Event(), threading.Event()

    def send() -> None:
        with theirs.wrap_socket(far, server_side=True) as stream:
            go.wait()
            try:
                stream.sendall(LATE * count)
            except OSError:
                return  # the near end has given up, which the test sees
            over.wait()

    async def scenario() -> None:
        loop, rig = asyncio.get_running_loop(), Rig(raw=True)
        carrier = RawCarrier(None, loop.call_later, ReceiveBuffer())
        await aiofastnet.create_connection(loop, lambda: carrier, sock=near, ssl=ours, server_hostname="localhost")
        end = rig.end
        link = Link(
            rig.handler,
            carrier,
            end.context,
            end.turns.call_soon,
            end.turns.call_later,
            max_inflight=end.max_inflight,
            queue_depth=end.queue_depth,
        )
        carrier.start(link)
        go.set()
        await until(
            lambda: rig.handler.ended or link.counters()[0].get("M_DATA") == count,
            lambda: f"{count} frames, {link.counters()[0]} so far",
        )
        assert not rig.handler.ended

    sending = threading.Thread(target=send)
    sending.start()
    try:
        asyncio.run(scenario())
    finally:
        near.close()
        go.set()
        over.set()
        sending.join()
