"""`python -m tests.upgrades`: upgrades hubs and agents under load, and reports. Exit code 1 if anything was lost."""

from __future__ import annotations

import argparse
import asyncio
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .load import FULL
from .play import Seen, play
from .report import render
from .services import services
from .sites import CASES, Case

NUMBER = 20  # upgrades of a case


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.upgrades", description=__doc__)
    parser.add_argument("--only", metavar="NUMBER,…", help="only these cases; a wrong number lists all")
    parser.add_argument("--number", type=int, default=NUMBER, metavar="N", help=f"upgrades of a case ({NUMBER})")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="where the page goes (standard output); with --only the other rows stay",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="logs and files stay there (thrown away)")
    arguments = parser.parse_args()
    numbers = [str(number) for number in range(1, len(CASES) + 1)]
    wanted = arguments.only.split(",") if arguments.only else numbers
    if set(wanted) - set(numbers):
        sys.exit("\n".join(f"{number}: {case.name}" for number, case in zip(numbers, CASES, strict=True)))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    directory = arguments.keep or Path(tempfile.mkdtemp(prefix="upgrades-"))
    directory.mkdir(parents=True, exist_ok=True)
    before = arguments.report.read_text() if arguments.only and arguments.report and arguments.report.exists() else ""
    seen: list[Seen] = []

    def write() -> None:  # after each, so that what was seen stays, should it be broken off
        if arguments.report:
            arguments.report.write_text(render(seen, before))

    try:
        cases = [CASES[int(number) - 1] for number in wanted]
        asyncio.run(_play(directory, cases, arguments.number, seen, write))
    except asyncio.CancelledError:
        sys.exit("broken off")
    except pytest.skip.Exception as missing:
        sys.exit(f"cannot upgrade: {missing}")
    finally:
        if not arguments.keep:
            shutil.rmtree(directory, ignore_errors=True)
    if not arguments.report:
        print(render(seen))
    return 0 if all(one.passed for one in seen) else 1


async def _play(directory: Path, cases: list[Case], number: int, seen: list[Seen], write: Callable[[], None]) -> None:
    """All of them; Ctrl-C or SIGTERM breaks it off in good order."""
    task = asyncio.current_task()
    assert task is not None
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, task.cancel)
    with services(directory) as behind:
        for count, case in enumerate(cases, 1):
            tell(f"{case.name} ({count} of {len(cases)})")
            seen.append(await play(case, behind, directory / str(count), FULL, number, tell))
            for failure in seen[-1].lost:
                tell(f"  {failure}")
            write()


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
