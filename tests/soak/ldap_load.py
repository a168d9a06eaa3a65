"""The load of `bench.ldap` in the soak: some seconds of it through one hub, again and again."""

from __future__ import annotations

import asyncio

from bench.ldap.load import Felt, Load, read

from .clients import Kind, Run
from .ledger import LIMIT_SEC, CleanEnd, Corrupt, Lost
from .programs import good, program

RATE = 20  # operations a second
MIX = {"bind": 10, "search": 80, "modify": 8, "unbind": 2}
CONNECTIONS = 10
SPAN_SEC = (5, 20)


async def ldap_load(run: Run) -> None:
    """Over connections that are kept, or one for each operation."""
    once = run.random.random() < 0.5
    kind = "LDAP load, a connection each" if once else "LDAP load, connections kept"
    load = Load(RATE, run.span(*SPAN_SEC), MIX, CONNECTIONS, once=once, limit_sec=LIMIT_SEC, warm_sec=0)
    async with run.ledger.trial(kind, run.somewhere(), "ldap", load.sec + LIMIT_SEC) as trial:
        address = run.site.cluster.address(trial.hub, "ldap")
        argv = await asyncio.to_thread(load.command, [address])  # which compiles it, the first time
        felt = read(load, good(await program(argv), "the LDAP load"))
        run.ledger.felt(kind, felt)
        judge(felt)


def judge(felt: Felt) -> None:
    """Raise unless every operation was answered, and every connection held."""
    bad = {why: felt.failures[why] + felt.dropped[why] for why in felt.failures}
    told = (
        f"of {felt.asked} operations {felt.failed} failed ({felt.why}), {sum(felt.dropped.values())} connections lost"
    )
    if bad["wrong"] or bad["result"]:
        raise Corrupt(told)
    if bad["closed"]:
        raise CleanEnd(told)
    if any(bad.values()):
        raise Lost(told)


LDAP = (Kind(ldap_load, 2, 1),)
