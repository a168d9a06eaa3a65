"""OpenLDAP's own client in a loop, and in one long conversation, while a test breaks things."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Self

from bench.ldap.directory import ADMIN, PASSWORD, PEOPLE
from support.peer import Address
from support.process import child_env, require
from support.until import PATIENCE, wait_until

CANNOT_CONTACT = (255, 254)  # exit codes of ldapsearch when the connection failed, at the bind or after it
PAUSE = 0.05  # a user beside the test, not a load
OPERATION = PATIENCE  # seconds after which an operation counts as hung


def command(address: Address, *arguments: str) -> list[str]:
    """An ldapsearch of the people, bound as the administrator."""
    (path,) = require("ldapsearch")
    host, port = address
    bind = ["-H", f"ldap://{host}:{port}", "-x", "-D", ADMIN, "-w", PASSWORD, "-LLL", "-o", "ldif-wrap=no"]
    return [path, *bind, "-b", PEOPLE, *arguments]


class LdapLoop:
    """A bind and a search over a connection of its own, again and again; an answer may be late, never wrong.

    With ``may_fail`` connections that are refused or reset are counted in ``failed``; otherwise they fail the test.
    """

    def __init__(self, address: Address, name: str = "", *, may_fail: bool = False) -> None:
        self.name = name
        self.done = 0
        self.failed = 0
        self._may_fail = may_fail
        self._address = address
        self._stop = threading.Event()
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"ldap {name}")

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set() and self._failure is None:
            number += 1
            uids = {f"user{(number + n * 97) % 1000}" for n in range(20)}
            filter_ = "(|" + "".join(f"(uid={uid})" for uid in sorted(uids)) + ")"
            try:
                done = subprocess.run(
                    command(self._address, filter_, "uid"),
                    capture_output=True,
                    text=True,
                    timeout=OPERATION,
                    env=child_env(),
                )
            except subprocess.TimeoutExpired:
                self._failure = f"no end after {OPERATION} s"
                return
            found = {line[5:] for line in done.stdout.splitlines() if line.startswith("uid: ")}
            if done.returncode == 0 and found == uids:
                self.done += 1
            elif done.returncode in CANNOT_CONTACT and self._may_fail and found <= uids:
                self.failed += 1
            else:
                self._failure = f"code {done.returncode}, {len(found)} of {len(uids)}: {done.stderr.strip()}"
            self._stop.wait(PAUSE)

    def goes_on(self, count: int = 3) -> None:
        """Fail unless so many more searches get their right answer."""
        goal = self.done + count
        wait_until(lambda: self._failure or self.done >= goal, f"{count} more searches of {self.name}")
        self._check()

    def _check(self) -> None:
        assert self._failure is None, f"ldapsearch through {self.name} after {self.done} good ones: {self._failure}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.goes_on(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.goes_on()
        finally:
            self._stop.set()
            self._thread.join(OPERATION + 5)
        if kind is None:
            self._check()


class LdapConversation:
    """One ldapsearch that asks one question after the other over the same connection."""

    def __init__(self, address: Address, directory: Path, name: str = "") -> None:
        (unbuffered,) = require("stdbuf")
        self.name = name
        self._asked = 0
        self._errors = (directory / f"conversation-{id(self)}.err").open("wb+")
        self._child = subprocess.Popen(
            [unbuffered, "-oL", *command(address, "-f", "-", "(uid=%s)", "mail")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=child_env(),
        )

    def ask(self) -> None:
        """One more question; fail unless its answer is right. Waits for it as long as the test may run."""
        assert self._child.stdin and self._child.stdout
        uid = f"user{(self._asked * 389) % 1000}"
        self._asked += 1
        self._child.stdin.write(uid + "\n")
        self._child.stdin.flush()
        want = f"mail: {uid}@example.net\n"
        for line in self._child.stdout:
            if line == want:
                return
            assert line == "\n" or line.startswith("dn: uid="), f"conversation through {self.name}: {line!r}"
        self._errors.seek(0)
        raise AssertionError(f"conversation through {self.name} ended: {self._errors.read().decode()}")

    def __enter__(self) -> Self:
        self.ask()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._child.stdin and self._child.stdout
        try:
            if kind is None:
                self.ask()
                self._child.stdin.close()
                assert self._child.wait(OPERATION) == 0, f"conversation through {self.name}"
        finally:
            self._child.kill()
            self._child.wait()
            for stream in (self._child.stdin, self._child.stdout, self._errors):
                stream.close()
