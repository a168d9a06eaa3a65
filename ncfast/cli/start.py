"""What a process puts right before anything else, whatever it was started by."""

from __future__ import annotations

import os
import signal
import sys


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


def ignore_hangup() -> None:
    """Until the handler stands that reloads: `systemctl reload` right after the start must not end what starts. What
    there is to reload is read after this anyway."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
