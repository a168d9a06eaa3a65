"""Faults of a hub's own process, and of its machine."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

from support.process import PACKAGE_ROOT, TESTS
from support.until import PATIENCE

from .fault import fault
from .stage import MIB, Stage

BUDGET = 16 * MIB
FILES = 400  # so that the reserve of 64 is less than a fifth
CLIENTS = 380
# No way is known to make a hub lose count: the defect is planted, in the process that counts.
FORGETFUL = """\
from ncfast.observe.stats import ListenerStats

closed, forgotten = ListenerStats.closed, []

def forgetful(self, *what):
    if forgotten:
        closed(self, *what)
    forgotten.append(what)

ListenerStats.closed = forgetful
"""


@fault(NcfastMemory=("memory", "HELD"))
def slow_readers(stage: Stage) -> Iterator[None]:
    """Clients of a hub with a budget of 16 MiB do not read what they have asked for."""
    _, _, third = stage.settle()
    limits = {"limits": {"memory_bytes": BUDGET}}
    with stage.restarted(third, limits), ExitStack() as clients:
        stage.settle()
        for _ in range(60):
            clients.callback(stage.pull(third, 64 * MIB, read=False).close)
        yield


@fault(
    NcfastListenerPaused=("client_shed",),
    NcfastDegraded=("degraded",),
    NcfastDescriptors=("process_open_fds", "process_max_fds"),
)
def few_descriptors(stage: Stage) -> Iterator[None]:
    """A hub may have 400 descriptors, and 380 clients come."""
    _, _, third = stage.settle()
    with stage.restarted(third, max_files=FILES), ExitStack() as clients:
        stage.settle()
        for _ in range(CLIENTS):
            clients.enter_context(socket.create_connection(stage.address(third), timeout=PATIENCE))
        yield


@fault(NcfastLoopLag=("loop_lag_seconds",))
def starved(stage: Stage) -> Iterator[None]:
    """A hub gets no CPU for a quarter of a second, again and again (SIGSTOP)."""
    _, _, third = stage.settle()
    program = stage.cluster.hubs[third].program

    def starve() -> None:
        program.signal(signal.SIGSTOP)
        time.sleep(0.25)
        program.signal(signal.SIGCONT)

    with stage.again(starve, pause=0.5):
        yield


@fault(NcfastFlowsUnaccounted=("flows_unaccounted",))
def miscounted(stage: Stage) -> Iterator[None]:
    """A hub forgets to count the end of one flow. *No fault is known that does this: the defect was planted*."""
    _, _, third = stage.settle()
    planted = stage.directory / "planted"
    planted.mkdir(exist_ok=True)
    (planted / "sitecustomize.py").write_text(FORGETFUL)
    path = os.pathsep.join(map(str, (planted, PACKAGE_ROOT, TESTS)))
    with stage.restarted(third, env=[f"PYTHONPATH={path}"]):
        stage.settle()
        stage.visit(third)
        yield
