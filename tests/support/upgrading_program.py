"""A hub that SIGUSR2 makes hand over to a successor of its own, without what `ncfast upgrade` does around it.

upgrading_program CONFIG                the parent of them all, which passes signals on and ends with the last
upgrading_program CONFIG first          a hub
upgrading_program CONFIG DESCRIPTOR     its successor; DESCRIPTOR is of the channel between them
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from ncfast.config.auth import resolve_auth
from ncfast.config.loader import load_hub
from ncfast.hub.giving import HandoverFailed
from ncfast.hub.hub import Hub
from ncfast.hub.taking import Heritage
from ncfast.net.channel import Channel, Message
from ncfast.net.seam import Net
from ncfast.observe import log
from ncfast.observe.watchdog import freeze
from ncfast.serve.process import network, prepare, run

_log = log.get("program")


async def inherited(net: Net, descriptor: int) -> tuple[Channel, Heritage]:
    """The channel to the predecessor, its doors taken in."""
    heritage = net.loop.create_future()
    doors: list[tuple[str, list[socket.socket]]] = []

    def heard(message: Message) -> None:
        left = list(message.fds)
        for key, count in message.body.get("doors", ()):
            doors.append((key, [socket.socket(fileno=left.pop(0)) for _ in range(count)]))
        if message.kind == "heritage":
            heritage.set_result(message.body)

    sock = socket.socket(fileno=descriptor)
    channel = Channel(net, sock, heard, lambda reason: os._exit(3))
    channel.send("ready", {})
    body = await heritage
    net.inherit(doors)
    return channel, Heritage.read(body)


def die_at(channel: Channel, kind: str) -> None:
    """Ends this process before it hears the first message of this kind."""
    hear = channel.on_message

    def hear_or_die(message: Message) -> None:
        if message.kind == kind:
            os._exit(3)
        hear(message)

    channel.on_message = hear_or_die


async def successor(net: Net, argv: list[str]) -> Channel:
    """Starts it, and waits until it is ready."""
    ready = asyncio.Event()
    failed = asyncio.Event()
    ours, theirs = socket.socketpair()
    child = subprocess.Popen([*argv, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    channel = Channel(net, ours, lambda message: ready.set(), lambda reason: failed.set())
    await asyncio.wait([asyncio.ensure_future(one.wait()) for one in (ready, failed)], return_when="FIRST_COMPLETED")
    if failed.is_set():
        raise HandoverFailed("it died")
    _log.info("successor_ready", pid=child.pid)
    return channel


async def main(path: str, descriptor: int | None) -> int:
    config = load_hub(path)
    net = network()
    channel = heritage = None
    if descriptor is not None:
        channel, heritage = await inherited(net, descriptor)
    hub = Hub(config, resolve_auth(config), net, heritage=heritage)
    upgrade = asyncio.Event()
    net.loop.add_signal_handler(signal.SIGUSR2, upgrade.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        net.loop.add_signal_handler(number, hub.request_drain)
    await hub.start()
    if channel is not None:
        hub.take_over(channel)
        die_at(channel, Path(path).with_suffix(".dies").read_text())
    freeze()
    drain = asyncio.ensure_future(hub.drain_requested.wait())
    while True:
        asked = asyncio.ensure_future(upgrade.wait())
        await asyncio.wait([drain, asked], return_when="FIRST_COMPLETED")
        asked.cancel()
        if drain.done():
            await hub.drain()
            return 0
        upgrade.clear()
        try:
            begun = time.monotonic()
            await hub.hand_over(await successor(net, [sys.executable, *sys.argv[:2]]))
        except HandoverFailed as exc:
            _log.warning("hand_over_failed", detail=str(exc))
            continue
        await hub.stop()
        _log.info("predecessor_over", passed=hub.stats.flows_passed, duration_sec=round(time.monotonic() - begun, 3))
        return 0


def children() -> list[int]:
    """Of this process, those that it has adopted too."""
    pid = os.getpid()
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def parent() -> int:
    """Its exit code is that of the last hub."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER, linux/prctl.h
    subprocess.Popen([sys.executable, *sys.argv, "first"])

    def pass_on(number: int, frame: object) -> None:
        for pid in children()[:1]:
            os.kill(pid, signal.SIGKILL if number == signal.SIGUSR1 else number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, pass_on)
    while True:
        _, status = os.waitpid(-1, 0)
        if not children():
            return os.waitstatus_to_exitcode(status)
        print('{"event": "succeeded"}', file=sys.stderr, flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit(parent())
    loaded = load_hub(sys.argv[1])
    prepare(loaded.logging, loaded.limits.fd_reserve)
    sys.exit(run(main(sys.argv[1], None if sys.argv[2] == "first" else int(sys.argv[2]))))
