"""Sessions that last over all upgrades: a transaction that stays open in psql, and an ssh."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from soak.programs import good, program
from support.process import child_env, require

from .load import Load

PAUSE_SEC = 0.05  # between an answer and the next question


@asynccontextmanager
async def talking(argv: list[str]) -> AsyncIterator[Process]:
    """A program that is talked to over its pipes; it is killed at the end, if it still runs."""
    child = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=child_env())
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def ask(child: Process, question: str) -> str:
    """A line to it, and a line from it. Raises AssertionError when it has ended."""
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    child.stdin.write(question.encode() + b"\n")
    answer = await child.stdout.readline()
    if not answer:
        told = await child.stderr.read()
        raise AssertionError(f"it has ended: {told.decode(errors='replace')[-300:]}")
    return answer.decode().rstrip("\n")


class Psql(Load):
    """One transaction from the beginning to the end: each statement must find the session and the transaction that the
    first one had, and all of them must be there after the COMMIT."""

    name = "psql"
    counted = "statements of one transaction"

    async def run(self) -> None:
        (path,) = require("psql")
        host, port = self.ground.address("postgres")
        argv = [path, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", str(port), "-U", "soak"]
        table = "kept_over_upgrades"
        async with talking([*argv, "postgres"]) as child:
            begin = f"BEGIN; CREATE TABLE {table} (n int); SELECT pg_backend_pid() || ' ' || txid_current();"
            who = await ask(child, begin)
            insert = f"INSERT INTO {table} VALUES (%d) RETURNING n || ' ' || pg_backend_pid() || ' ' || txid_current();"
            while not self.ground.over.is_set():
                with self.timed():
                    answer = await ask(child, insert % self.done)
                assert answer == f"{self.done} {who}", answer
                self.done += 1
                await asyncio.sleep(PAUSE_SEC)
            assert await ask(child, "COMMIT; SELECT 'kept';") == "kept"
        look = f"SELECT count(*) || ' ' || sum(n) FROM {table}; DROP TABLE {table};"
        kept = good(await program([*argv, "-c", look, "postgres"]), "psql").decode().split()
        assert kept == [str(self.done), str(self.done * (self.done - 1) // 2)], kept


class Shell(Load):
    """Lines to a program at the service by ssh, and back."""

    name = "ssh"
    counted = "lines by one ssh"

    async def run(self) -> None:
        async with talking(self.ground.services.ssh.command(self.ground.address("ssh"), "cat")) as child:
            assert await ask(child, "hello") == "hello"  # once the keys are agreed on
            while not self.ground.over.is_set():
                with self.timed():
                    answer = await ask(child, str(self.done))
                assert answer == str(self.done), answer
                self.done += 1
                await asyncio.sleep(PAUSE_SEC)
