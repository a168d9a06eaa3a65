"""Answers of the HTTP edges to whom they do not reach any more."""

from __future__ import annotations

import asyncio
import select
import socket
import threading

import aiofastnet
import uvloop

from ncfast.net.request import Response, answer

PATIENCE = 60.0


def test_an_answer_to_whom_it_does_not_reach_any_more_is_no_fault():
    """The client has closed: its kernel answers the first byte with a reset, before our side can be ended."""
    lost = []

    class Door(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            left.set()
            closed = select.poll()
            closed.register(self.transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
            assert closed.poll(PATIENCE * 1000)
            self.timer = answer(self.transport, Response.text(401, "no"), loop.call_later)

        def connection_lost(self, exc):
            self.timer.cancel()
            lost.append(True)
            over.set()

    def fault(_, context):
        faults.append(context)
        over.set()

    def client(port):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert left.wait(PATIENCE)

    async def main():
        nonlocal loop, over
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.set_exception_handler(fault)
        server = await aiofastnet.create_server(loop, Door, "127.0.0.1", 0)
        thread = threading.Thread(target=client, args=server.sockets[0].getsockname()[1:2])
        thread.start()
        await asyncio.wait_for(over.wait(), PATIENCE)
        thread.join()
        server.close()

    loop, over = None, None
    faults, left = [], threading.Event()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert not faults and lost == [True]
