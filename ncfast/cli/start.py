"""What a process puts right before anything else, whatever it was started by."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_DUMPABLE = 4  # prctl(2)


def open_standard_descriptors() -> None:
    """Opens on /dev/null those that are closed. Otherwise the first socket or file would be standard input or error:
    strangers' lines would go into it, and libuv aborts rather than close one (its issue 4558)."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, and those below are taken
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:  # the interpreter found it closed
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # as long as the process


def refuse_plugins() -> None:
    """pydantic would look through every package that is installed for plugins, and load those that it finds into a
    process that holds keys."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


@contextmanager
def collect_later() -> Iterator[None]:
    """What is loaded at the start stays, and the collector would walk it again and again: a tenth of the start. It is
    off until `watchdog.freeze`, or the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def add_stay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stay-parent",
        action="store_true",
        help="stay as the parent of the next process when this one is upgraded, for a supervisor that knows it by its"
        " number (as the first process of a container does by itself)",
    )


def ignore_early() -> None:
    """Until the handlers stand that reload and upgrade: `systemctl reload` right after the start must not end what
    starts, nor `pkill -USR2` the successor that it has just asked for. What there is to reload is read after this
    anyway, and what starts is what is installed now."""
    for number in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def forbid_core_dumps() -> None:
    """Before anything secret is read: a core holds keys, tokens and what flows carry, and so does the memory that any
    process of the same user could attach to. `NC_CORE_DUMPS=1` leaves both to the system; it is not a key of the file,
    as secrets are read together with that.

    The limit alone would not do, as kernels that pipe cores to a program do not ask it. Not to be dumpable makes the
    process's files in /proc root's, and needs CAP_SYS_PTRACE of debuggers and profilers; a program that it starts is
    dumpable again. Raises OSError when a sandbox does not let it.
    """
    if os.environ.get("NC_CORE_DUMPS") == "1":
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        zero = ctypes.c_ulong(0)
        if libc.prctl(PR_SET_DUMPABLE, zero, zero, zero, zero):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) is refused; NC_CORE_DUMPS=1 does without")
