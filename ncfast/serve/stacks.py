"""SIGUSR1: where the process is. The stacks of its threads go to standard error at once, from a handler that needs
neither the loop nor the interpreter, so that a process that stands still tells them too; those of its tasks go to the
log as soon as the loop turns."""

from __future__ import annotations

import asyncio
import faulthandler
import signal

from ncfast.net.seam import Net
from ncfast.observe import diag, log
from ncfast.observe.slices import spread

STDERR = 2

_log = log.get("serve")


def tell_stacks(net: Net) -> None:
    """From now on, whenever the signal comes."""
    net.loop.add_signal_handler(signal.SIGUSR1, lambda: net.spawn(_tell_tasks(), "stacks"))
    faulthandler.register(signal.SIGUSR1, file=STDERR, all_threads=True, chain=True)  # then the loop's


async def _tell_tasks() -> None:
    found = await spread(diag.stacks())
    for one in found["tasks"]:
        _log.info("task_stack", task=one["task"], count=one["count"], trace=one["stack"])


def forget_stacks(loop: asyncio.AbstractEventLoop) -> None:
    """Before the loop is closed."""
    faulthandler.unregister(signal.SIGUSR1)
    loop.remove_signal_handler(signal.SIGUSR1)
