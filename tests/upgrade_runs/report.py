"""What was seen of every case, as a page."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator

from support.report import NO, prose, table, wrapped

from .load import FULL, Timer
from .play import LOADS, Seen
from .programs import Pgbench
from .sites import CASES

KEY = 3  # columns that name a case

HEAD = f"""\
A hub, or an agent, upgraded again and again under the clients of real services, by `ncfast upgrade`: each time another
process takes over. `make upgrades` does it anew and writes this page (`UPGRADES="--only NUMBER,…"` for some cases; a
wrong number lists all).

Clients and services of each case, all at once: a transfer of {FULL.transfer >> 20} MiB each way over one connection,
compared byte by byte and by its SHA-256, which lasts until the last upgrade is over; {FULL.connects:g} connects a
second to OpenLDAP, each with a bind, a search and an unbind (`bench/ldap/clients.c`); two loops of `ldapsearch`;
`pgbench -N -c {FULL.sessions} -R {Pgbench.RATE}` on PostgreSQL; a `psql` with one transaction that stays open over all
upgrades, and is committed after the last; an `ssh` whose lines come back; trees of files to and fro by `rsync` over
`ssh`, compared at the end. The next upgrade comes when each of them has gone on after the last one.

*lost* counts what was lost, repeated or out of order, transactions that failed, connects that were refused, and all
else that clients or services tell of, or an error in the logs of hubs and agents; it has to be 0. A flow that both ends
are done with may still be logged as `link_lost` where the last acknowledgement of its end met an upgrade; *done* says
how many were. Columns of clients have the longest time in
milliseconds that one of them has waited: for the next bytes (transfer, rsync), or for an answer (all others; a connect
and a transaction from when they were due, `ldapsearch` from its start). *timer* is a timer of 10 ms beside them, which
tells what the machine and the test itself add; all of it runs on the same few cores. *flow* is the longest pause of a
flow as the hubs themselves tell it. The row *nothing* is the same load without an upgrade. In the cluster clients come
to the hub that has no tunnel of the agent (*origin*), so that their flows cross the mesh to the one that has (*owner*).
Rows may be of several runs. On a machine with much other work they show that nothing is lost, and by their *timer* what
the machine was like; how long a pause is on a quiet one is what `python -m bench.upgrade` tells.
"""


def render(seen: Iterable[Seen], before: str = "") -> str:
    """The whole page; of a page as it was `before` the rows of cases that were not seen now."""
    every = list(seen)
    titles = ["topology", "tunnels", "upgraded", "upgrades", "flows passed", "lost"]
    head, rule, *rows = table([*titles, *(load.name for load in LOADS), "flow", "seconds", "done"], _rows(every))
    now = {_case(row): row for row in filter(None, rows)}
    kept = {_case(row): row for row in before.splitlines() if row.startswith(("| single hub", "| three hubs"))}
    order = [(case.topology, case.tunnels, case.upgraded) for case in CASES]
    now = dict(sorted((kept | now).items(), key=lambda pair: order.index(pair[0])))
    good = sum(NO not in row for row in now.values())
    failures = [f"- {one.case.name}: {failure}" for one in every for failure in one.lost]
    lines = [
        "# Upgrades",
        "",
        *prose(HEAD),
        f"**{good} of {len(now)}** cases without a loss. Python {platform.python_version()}.",
        "",
        *(head, rule, *now.values()),
        "",
        *(["## Failures", "", *failures, ""] if failures else []),
    ]
    return "\n".join(part for line in lines for part in wrapped(line)).rstrip() + "\n"


def _case(row: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in row.split("|")[1 : KEY + 1])


def _rows(every: list[Seen]) -> Iterator[tuple[str, ...]]:
    for one in every:
        yield (
            one.case.topology,
            one.case.tunnels,
            one.case.upgraded,
            str(one.upgrades if one.case.upgraded != "nothing" else 0),
            f"{one.flows:,}",
            "0" if one.passed else f"{NO}: {len(one.lost)}",
            *(f"{one.loads[load.name].longest * 1e3:,.0f}" if one.loads else "" for load in LOADS),
            f"{one.pause * 1e3:,.0f}" if one.pause else "",
            f"{one.lasted:.0f}",
            ", ".join(
                [
                    *(load.amount for name, load in one.loads.items() if name != Timer.name),
                    *(f"{count} flows logged as `{reason}`" for reason, count in one.otherwise.items()),
                ]
            ),
        )
