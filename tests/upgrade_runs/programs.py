"""Programs of others that are run again and again: ldapsearch, the LDAP load of `bench.ldap`, pgbench, rsync."""

from __future__ import annotations

import asyncio
import filecmp
import getpass
import shlex
import shutil
import time
from pathlib import Path

from soak.programs import program
from support.ldap import command as ldapsearch_of
from support.process import require
from support.script import CHUNK, pattern
from support.until import PATIENCE

from bench.ldap.load import Load as LdapLoad
from bench.ldap.load import read

from .load import Ground, Load

FIELD_TIME = 2  # pgbench(1), per-transaction logging: microseconds, from when it was due
PEOPLE = 20  # entries asked for in one search
LATE_SEC = 2 * PATIENCE  # after which an LDAP operation counts as lost
WATCH_SEC = 0.02  # between two looks at the files that rsync writes


class Connects(Load):
    """A connection for each search: connect, bind, search, unbind, by a timetable."""

    name = "connects"
    counted = "connects"
    steady = False
    CLIENTS = 200  # at once, at most

    async def run(self) -> None:
        size = self.ground.size
        load = LdapLoad(
            size.connects, size.round_sec, {"search": 100}, self.CLIENTS, once=True, limit_sec=LATE_SEC, warm_sec=0
        )
        while not self.ground.over.is_set():
            argv = await asyncio.to_thread(load.command, [self.ground.address("ldap")])  # compiles it, the first time
            ended = await program(argv)
            assert not ended.code, ended.err
            felt = read(load, ended.out)
            self.done += felt.asked - felt.failed
            self.longest = max(self.longest, felt.every.max / 1e6)
            if felt.failed or any(felt.dropped.values()):
                self.lost.append(f"{felt.failed} of {felt.asked} connects: {felt.why}; dropped {felt.dropped}")


class Ldapsearch(Load):
    """OpenLDAP's own client, two of them, each in a loop."""

    name = "ldapsearch"
    counted = "runs of ldapsearch"

    async def run(self) -> None:
        await asyncio.gather(self._loop(1), self._loop(2))

    async def _loop(self, number: int) -> None:
        while not self.ground.over.is_set():
            number += 2
            uids = {f"user{(number + n * 97) % 1000}" for n in range(PEOPLE)}
            wanted = "(|" + "".join(f"(uid={uid})" for uid in sorted(uids)) + ")"
            with self.timed():
                ended = await program(ldapsearch_of(self.ground.address("ldap"), wanted, "uid"))
            found = {line[5:] for line in ended.out.decode().splitlines() if line.startswith("uid: ")}
            if ended.code or found != uids:
                self.lost.append(f"ldapsearch: {ended.code}, {len(found & uids)} of {PEOPLE} people, {ended.err}")
            else:
                self.done += 1
            await asyncio.sleep(0.1)


class Pgbench(Load):
    """Its simple updates, which wait for no row of each other's, over so many sessions."""

    name = "pgbench"
    counted = "transactions"
    steady = False
    RATE = 100  # transactions a second

    async def run(self) -> None:
        (path,) = require("pgbench")
        host, port = self.ground.address("postgres")
        size, log = self.ground.size, self.ground.directory / "pgbench"
        log.mkdir()
        load = f"-n -N -c {size.sessions} -R {self.RATE} -T {size.round_sec} -l --log-prefix={log}/log".split()
        while not self.ground.over.is_set():
            ended = await program([path, *load, "-h", host, "-p", str(port), "-U", "soak", "postgres"])
            times = [int(line.split()[FIELD_TIME]) for file in log.iterdir() for line in file.read_text().splitlines()]
            for file in log.iterdir():
                file.unlink()
            self.done += len(times)
            self.longest = max([self.longest, *(time / 1e6 for time in times)])
            if ended.code or "aborted" in ended.err or b"failed transactions: 0 (" not in ended.out:
                self.lost.append(f"pgbench: {ended.code}, {ended.err}, {ended.out.decode()[-300:]}")


class Rsync(Load):
    """A tree of files over ssh, to the service and from it, in turn."""

    name = "rsync"
    steady = False
    FILES = 5

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._rounds = 0

    @property
    def amount(self) -> str:
        return f"{self._rounds} trees by rsync ({self.done / (1 << 20):,.0f} MiB)"

    async def run(self) -> None:
        (path,) = require("rsync")
        size, home = self.ground.size, self.ground.directory / "rsync"
        source, goal = home / "source", home / "goal"
        await asyncio.to_thread(self._write, source)
        shell, host = self._shell()
        away = f"{getpass.getuser()}@{host}:"
        while not self.ground.over.is_set():
            ways = (f"{source}/", f"{away}{goal}"), (f"{away}{source}/", str(goal))
            options = ["-a", "--inplace", f"--bwlimit={size.rsync_rate // 1024}", "-e", shell]
            watching = asyncio.create_task(self._watch(goal))
            try:
                ended = await program([path, *options, *ways[self._rounds % 2]])
            finally:
                watching.cancel()
            names = [str(number) for number in range(self.FILES)]
            if ended.code:
                self.lost.append(f"rsync: {ended.code}, {ended.err}")
            else:
                same, *others = await asyncio.to_thread(filecmp.cmpfiles, source, goal, names, False)
                if any(others):
                    self.lost.append(f"rsync: other files at the end: {others}")
                self.done += size.rsync // self.FILES * len(same)
                self._rounds += 1
            await asyncio.to_thread(shutil.rmtree, goal, True)

    def _shell(self) -> tuple[str, str]:
        """What rsync is to call, and the host that it names."""
        argv = self.ground.services.ssh.command(self.ground.address("ssh"))
        return shlex.join(argv[:-1]), argv[-1]

    def _write(self, source: Path) -> None:
        source.mkdir(parents=True)
        each = self.ground.size.rsync // self.FILES
        for number in range(self.FILES):
            with (source / str(number)).open("wb") as file:
                for offset in range(0, each, CHUNK):
                    file.write(pattern(number, offset, min(CHUNK, each - offset)))

    async def _watch(self, goal: Path) -> None:
        """How long what has arrived does not grow, from its first byte on."""
        size, since = 0, time.monotonic()
        while True:
            await asyncio.sleep(WATCH_SEC)
            now = time.monotonic()
            grown = sum(file.stat().st_size for file in goal.iterdir()) if goal.exists() else 0
            if grown != size:
                if size:
                    self.longest = max(self.longest, now - since)
                size, since = grown, now
