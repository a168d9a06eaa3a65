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
from typing import NamedTuple, NoReturn

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SI_KERNEL = 0x80  # sigaction(2): by the kernel, as the terminal's signals are, which the child has got itself
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
WATCHED = (*PASSED_ON, signal.SIGCHLD)


def adopt() -> None:
    """Children's children become this process's when their parent ends, not those of the first of the machine."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0)))


def become() -> NoReturn:
    """This process, which has called `adopt`, is the parent of its children from now on, and nothing else. Signals that
    come meanwhile wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__])


def exit_code(code: int) -> int:
    """Of Python's, where a signal is a negative number: as shells tell of it."""
    return code if code >= 0 else 128 - code


class Child(NamedTuple):
    started: int  # in ticks since the machine's
    pid: int


def children() -> list[Child]:
    """Of this process, and those that it has taken in, the oldest first; those, too, that have ended and are not taken
    note of. The youngest is the one that serves: a process has one child, its successor, and is older. What else the
    first process of a container takes in (of a shell that was opened there) is of another session."""
    found, session = [], os.getsid(0)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it has just ended
                continue
            if (int(fields[1]), int(fields[3])) == (os.getpid(), session):
                found.append(Child(int(fields[19]), int(name)))  # proc_pid_stat(5): starttime
    return sorted(found)


class Parent:
    """Of the process that serves now, and of those before it that linger over their last bytes."""

    def __init__(self) -> None:
        self.serves = Child(0, 0)
        self.last = 1  # the exit code of the last that has served
        self.code: int | None = None  # set when that is ours

    def reap(self) -> None:
        """Takes note of all that have ended."""
        while self.code is None:
            self._look()
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.code = self.last
                return
            if pid == 0:
                return
            if pid == self.serves.pid:
                self.last = exit_code(os.waitstatus_to_exitcode(status))
                self._look()
                if pid == self.serves.pid and self.last != 0:
                    self.code = self.last  # nobody serves; who is to start the next does not wait for who lingers

    def _look(self) -> None:
        self.serves = max([self.serves, *children()])

    def pass_on(self, number: int) -> None:
        try:
            os.kill(self.serves.pid, number)
        except ProcessLookupError:  # it is about to be taken note of
            pass


def main() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    parent = Parent()
    parent.reap()
    while parent.code is None:
        told = signal.sigwaitinfo(WATCHED)
        parent.reap()
        if told.si_signo in PASSED_ON and told.si_code != SI_KERNEL and parent.code is None:
            parent.pass_on(told.si_signo)
    return parent.code


if __name__ == "__main__":
    sys.exit(main())
