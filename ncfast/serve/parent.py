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

PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36  # linux/prctl.h
SI_KERNEL = 0x80  # sigaction(2): by the kernel, as the terminal's signals are, which the child has got itself
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
WATCHED = (*PASSED_ON, signal.SIGCHLD)
LEAVING = b"ncfast-leaving"  # as ps(1) has it; 15 bytes at most


def adopt() -> None:
    """Children's children become this process's when their parent ends, not those of the first of the machine."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0)))


def leave() -> None:
    """What this process has served is its child's from now on, and signals are, too."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, LEAVING)


def hold() -> int:
    """Signals that come from now on are kept for `become`, to whatever thread: what has come until now is in the loop's
    own pipe."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def become(held: int) -> NoReturn:
    """This process, which has called `adopt` and `hold`, is the parent of its children from now on, and nothing
    else."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, str(held)])


def exit_code(code: int) -> int:
    """Of Python's, where a signal is a negative number: as shells tell of it."""
    return code if code >= 0 else 128 - code


class Child(NamedTuple):
    started: int  # in ticks since the machine's
    pid: int


def children(of: int) -> list[Child]:
    """Of a process, and those that it has taken in, the oldest first; those, too, that have ended and are not taken
    note of. The youngest is its successor: it has no other, and is older. What else the first process of a container
    takes in (of a shell that was opened there) is of another session."""
    found, session = [], os.getsid(0)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it has just ended
                continue
            if (int(fields[1]), int(fields[3])) == (of, session):
                found.append(Child(int(fields[19]), int(name)))  # proc_pid_stat(5): starttime
    return sorted(found)


def serving() -> int:
    """The one below this process that serves: the youngest child, or its own if it is leaving. 0: none."""
    pid = 0
    below = children(os.getpid())
    while below:
        pid = below[-1].pid
        try:
            with open(f"/proc/{pid}/comm", "rb") as file:
                below = children(pid) if file.read().strip() == LEAVING else []
        except OSError:  # it has just ended
            below = children(os.getpid())
    return pid


class Parent:
    """Of the process that serves now, and of those before it that linger over their last bytes."""

    def __init__(self) -> None:
        self._youngest = Child(0, 0)
        self._last = 1  # the exit code of the last that has served
        self.code: int | None = None  # set when that is ours

    def reap(self) -> None:
        """Takes note of all that have ended."""
        while self.code is None:
            self._look()
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.code = self._last
                return
            if pid == 0:
                return
            if pid == self._youngest.pid:
                self._last = exit_code(os.waitstatus_to_exitcode(status))
                self._look()
                if pid == self._youngest.pid and self._last != 0:
                    self.code = self._last  # nobody serves; who is to start the next does not wait for who lingers

    def _look(self) -> None:
        self._youngest = max([self._youngest, *children(os.getpid())])


def pass_on(number: int) -> bool:
    """A signal, to the one that serves; whether there is one."""
    pid = serving()
    if pid:
        try:
            os.kill(pid, number)
        except ProcessLookupError:  # it is about to be taken note of
            pass
    return pid > 0


def main(held: int) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    parent = Parent()
    parent.reap()
    try:
        early = os.read(held, 4096)
    except BlockingIOError:
        early = b""
    for number in early:
        if number in PASSED_ON:
            pass_on(number)
    while parent.code is None:
        told = signal.sigwaitinfo(WATCHED)
        parent.reap()
        if told.si_signo in PASSED_ON and told.si_code != SI_KERNEL and parent.code is None:
            pass_on(told.si_signo)
    return parent.code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
