"""What nobody has ended is let go of whole, as where a loop is closed over connections that live."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys

import uvloop
from support.process import child_env

from ncfast.net.transport import Poller

# A thread, since its stack is as small as we say. Of each chunk inside the one before it would take 16 bytes and more.
HOLDING = """
import gc, threading
from core.raw import hub_and_peer

def hold(count):
    _, _, peer = hub_and_peer(max_inflight=1 << 30)
    flow, client = peer.open(limit=1 << 30)
    for _ in range(count):
        client.send(b"x")
        peer.taken()
    return flow.snd_nxt - flow.snd_una

def main():
    global held
    held = hold(60_000)
    gc.collect()

held = 0
threading.stack_size(512 * 1024)
thread = threading.Thread(target=main)
thread.start()
thread.join()
print(held)
"""


def test_a_flow_takes_no_stack_for_what_it_holds():
    done = subprocess.run([sys.executable, "-c", HOLDING], env=child_env(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "60000\n"


def test_a_socket_that_was_asked_for_closes_its_descriptor_alone():
    """Closed by the transport as well, it might be another connection's by the second time."""

    async def adopted(near):
        transport = Poller(asyncio.get_running_loop()).adopt(near, asyncio.Protocol())
        return transport.get_extra_info("socket")

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        near, _ = server.accept()
        near.setblocking(False)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            asked_for = runner.run(adopted(near))
        del runner
        gc.collect()  # loop, poller and transport lead to each other
        with asked_for:
            os.fstat(asked_for.fileno())
