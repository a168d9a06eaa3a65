"""`python -m tests.upgrade_runs`: upgrades hubs and agents under load, and reports. Exit code 1 if anything is lost."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from support.longrun import Report, cases_parser, folder, tell
from support.process import open_many

from .load import FULL
from .play import Seen, play
from .report import render
from .services import services
from .sites import CASES, Case

NUMBER = 20  # upgrades of a case


def main() -> int:
    parser = cases_parser("python -m tests.upgrade_runs", __doc__, "NUMBER")
    parser.add_argument("--number", type=int, default=NUMBER, metavar="N", help=f"upgrades of a case ({NUMBER})")
    arguments = parser.parse_args()
    numbers = [str(number) for number in range(1, len(CASES) + 1)]
    wanted = arguments.only.split(",") if arguments.only else numbers
    if set(wanted) - set(numbers):
        sys.exit("\n".join(f"{number}: {case.name}" for number, case in zip(numbers, CASES, strict=True)))
    open_many()
    report: Report[Seen] = Report(arguments, render)
    cases = [CASES[int(number) - 1] for number in wanted]
    try:
        with folder(arguments.keep, "upgrades-") as directory:
            asyncio.run(_play(directory, cases, arguments.number, report))
    except asyncio.CancelledError:
        sys.exit("broken off")
    except pytest.skip.Exception as missing:
        sys.exit(f"cannot upgrade: {missing}")
    report.show()
    return 0 if all(one.passed for one in report.seen) else 1


async def _play(directory: Path, cases: list[Case], number: int, report: Report[Seen]) -> None:
    """All of them; Ctrl-C or SIGTERM breaks it off in good order."""
    task = asyncio.current_task()
    assert task is not None
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, task.cancel)
    with services(directory) as behind:
        for count, case in enumerate(cases, 1):
            tell(f"{case.name} ({count} of {len(cases)})")
            seen = await play(case, behind, directory / str(count), FULL, number, tell)
            for failure in seen.lost:
                tell(f"  {failure}")
            report.add(seen)


if __name__ == "__main__":
    sys.exit(main())
