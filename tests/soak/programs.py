"""Clients that are programs of others: ldapsearch, curl, redis-benchmark, redis-cli, pgbench, psql, iperf3."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from support.ldap import command as ldapsearch_of
from support.process import child_env, require
from support.script import pattern
from support.until import PATIENCE

from .clients import Kind, Run
from .installation import MIB
from .ledger import LIMIT_SEC, Corrupt, Lost

PEOPLE = 20  # entries asked for in one search
BUSY = "the server is busy"  # iperf3 serves one test at a time
RESET = "Connection reset by peer"
ROWS = 100_000


@dataclass(frozen=True)
class Ended:
    """A program's end."""

    code: int
    out: bytes
    err: str


async def program(argv: list[str], stdin: bytes = b"") -> Ended:
    """Run a client to its end; it is killed, by its own id, when the trial is given up."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe, env=child_env())
    try:
        out, err = await child.communicate(stdin)
    except BaseException:
        if child.returncode is None:
            child.kill()
            await child.communicate()  # its end is told only when its pipes have been read to theirs
        raise
    assert child.returncode is not None
    return Ended(child.returncode, out, err.decode(errors="replace").strip()[-300:])


def good(ended: Ended, what: str) -> bytes:
    """Its output; raise unless it ended well."""
    if ended.code:
        raise Lost(f"{what} ended with {ended.code}: {ended.err}")
    return ended.out


async def ldapsearch(run: Run) -> None:
    """A bind and a search."""
    uids = {f"user{n}" for n in run.random.sample(range(1000), PEOPLE)}
    wanted = "(|" + "".join(f"(uid={uid})" for uid in sorted(uids)) + ")"
    async with run.ledger.trial("ldapsearch", run.somewhere(), "ldap", LIMIT_SEC) as trial:
        out = good(
            await program(ldapsearch_of(run.site.cluster.address(trial.hub, "ldap"), wanted, "uid")), "ldapsearch"
        )
        found = {line[5:] for line in out.decode().splitlines() if line.startswith("uid: ")}
        if found != uids:
            raise Corrupt(f"{len(found & uids)} of {PEOPLE} people, and {found - uids}")


async def curl(run: Run) -> None:
    """A download, as fast as it goes or slowly, compared by its SHA-256."""
    (path,) = require("curl")
    rate = run.random.choice((1, 4, 16))
    seconds = 16 / rate
    async with run.ledger.trial("curl", run.somewhere(), "http", seconds + LIMIT_SEC) as trial:
        host, port = run.site.cluster.address(trial.hub, "http")
        ended = await program([path, "-sS", "--limit-rate", f"{rate}M", f"http://{host}:{port}/file"])
        trial.received = len(ended.out)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(good(ended, "curl")).hexdigest())
        if digest != run.site.file_sha256:
            raise Corrupt(f"a wrong file of {len(ended.out)} bytes")


async def redis_benchmark(run: Run) -> None:
    """Some thousand requests over a few connections. Where it loses them all it waits for ever, hence the limit."""
    (path,) = require("redis-benchmark")
    async with run.ledger.trial("redis-benchmark", run.somewhere(), "redis", PATIENCE) as trial:
        host, port = run.site.cluster.address(trial.hub, "redis")
        load = ["-c", "4", "-n", "4000", "-t", "set,get", "--csv"]
        out = good(await program([path, "-h", host, "-p", str(port), *load]), "redis-benchmark").decode()
        if not all(f'"{name}"' in out for name in ("SET", "GET")):
            raise Lost(f"redis-benchmark says {out[-200:]}")


async def redis_cli(run: Run) -> None:
    """A value set and read again."""
    (path,) = require("redis-cli")
    number = run.random.randrange(1 << 20)
    value = pattern(number, 0, 100_000).hex().encode()
    async with run.ledger.trial("redis-cli", run.somewhere(), "redis", LIMIT_SEC) as trial:
        host, port = run.site.cluster.address(trial.hub, "redis")
        start = [path, "-h", host, "-p", str(port)]
        script = b"SET k%d %s\nGET k%d\nDEL k%d\n" % (number, value, number, number)
        ended = await program(start, script)
        out = good(ended, "redis-cli").split()
        if ended.err:  # it goes on with the next command, over a new connection
            raise Lost(f"redis-cli says {ended.err}")
        if out != [b"OK", value, b"1"]:
            raise Corrupt(f"redis-cli says {[line[:60] for line in out]}")


async def pgbench(run: Run) -> None:
    """Transactions over two sessions."""
    (path,) = require("pgbench")
    seconds = int(run.span(3, 15))
    async with run.ledger.trial("pgbench", run.somewhere(), "postgres", seconds + LIMIT_SEC) as trial:
        host, port = run.site.cluster.address(trial.hub, "postgres")
        load = ["-n", "-c", "2", "-R", "40", "-T", str(seconds)]
        ended = await program([path, *load, "-h", host, "-p", str(port), "-U", "soak", "postgres"])
        if ended.code or "aborted" in ended.err:
            raise Lost(f"pgbench ended with {ended.code}: {ended.err}")


async def psql(run: Run) -> None:
    """COPY of a table that is known."""
    (path,) = require("psql")
    async with run.ledger.trial("psql", run.somewhere(), "postgres", LIMIT_SEC) as trial:
        host, port = run.site.cluster.address(trial.hub, "postgres")
        copy = f"COPY (SELECT n * 7 FROM generate_series(1, {ROWS}) n) TO STDOUT"
        ended = await program([path, "-h", host, "-p", str(port), "-U", "soak", "-c", copy, "postgres"])
        trial.received = len(ended.out)
        if good(ended, "psql") != b"".join(b"%d\n" % (n * 7) for n in range(1, ROWS + 1)):
            raise Corrupt(f"a wrong table of {len(ended.out)} bytes")


def refused(said: dict[str, Any], busy: bool) -> bool:
    """Whether iperf3's server had another test. It says so and resets, and the reset may overtake the word: of a server
    that was ``busy`` a moment ago it is the same answer, as long as no test has begun."""
    error = said.get("error", "")
    return BUSY in error or (busy and RESET in error and not said["start"]["connected"])


async def iperf3(run: Run) -> None:
    """Bytes at a moderate rate, up or down, and not seconds, most of which a fault may take; its server serves one test
    at a time, so busy is no answer."""
    (path,) = require("iperf3")
    load = ["-n", "16M", "-b", "32M", "-J", *run.random.choice(([], ["-R"]))]
    async with run.ledger.trial("iperf3", run.somewhere(), "iperf3", LIMIT_SEC) as trial:
        host, port = run.site.cluster.address(trial.hub, "iperf3")
        ended = await program([path, "-c", host, "-p", str(port), *load])
        busy = False
        while refused(said := json.loads(ended.out or b"{}"), busy):
            busy = True
            await asyncio.sleep(1)
            ended = await program([path, "-c", host, "-p", str(port), *load])
        if ended.code or "error" in said:
            raise Lost(f"iperf3 ended with {ended.code}: {said.get('error', ended.err)}")
        trial.received = said["end"]["sum_received"]["bytes"]
        if trial.received < MIB:
            raise Lost(f"iperf3 has carried {trial.received} bytes")


PROGRAMS = (
    Kind(ldapsearch, 1, 0.5),
    Kind(curl, 2, 2),
    Kind(redis_benchmark, 1, 3),
    Kind(redis_cli, 1, 2),
    Kind(iperf3, 1, 15),
)
POSTGRES = (Kind(pgbench, 1, 1), Kind(psql, 1, 3))
