"""What a process becomes when its successor serves and its number must not go: the first of a container, or one that a
supervisor follows by its number alone (runit, supervisord; `--stay-parent`).

A program of its own, of a few megabytes, that imports nothing of ours: it passes signals on to the process that serves
now, takes in those that are left by processes that end, the next successor for one, and ends with the exit code of the
last.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SI_KERNEL = 0x80  # sigaction(2): by the kernel, as the terminal's signals are, which the child has got itself
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
WATCHED = (*PASSED_ON, signal.SIGCHLD)


def become(pid: int) -> NoReturn:
    """This process is the parent of `pid` from now on, and nothing else. Signals that come meanwhile wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, str(pid)])


def children() -> list[int]:
    """Of this process, and those that it has taken in, the oldest first; those, too, that have ended and are not taken
    note of."""
    found: list[tuple[int, int]] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(fields[1]) == os.getpid():
                found.append((int(fields[19]), int(name)))  # proc_pid_stat(5): starttime
    return [pid for _, pid in sorted(found)]


class Parent:
    """Of the process that serves now."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None  # set when the last has ended

    def reap(self) -> None:
        """Takes note of all that have ended."""
        while self.code is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.code = 1
                return
            if pid == 0:
                return
            if pid == self.pid:
                left = children()
                if left:
                    self.pid = left[-1]  # its successor; it has no other children
                else:
                    code = os.waitstatus_to_exitcode(status)
                    self.code = code if code >= 0 else 128 - code  # as shells tell of a signal

    def pass_on(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:  # it is about to be taken note of
            pass


def main(pid: int) -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    parent = Parent(pid)
    parent.reap()
    while parent.code is None:
        told = signal.sigwaitinfo(WATCHED)
        if told.si_signo == signal.SIGCHLD:
            parent.reap()
        elif told.si_code != SI_KERNEL:
            parent.pass_on(told.si_signo)
    return parent.code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
