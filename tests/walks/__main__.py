"""`python -m tests.walks`: clones, walks, and tells the minutes of each. Exit code 1 if one did not come to its end."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.namespaces import Namespaces
from support.process import child_env
from support.reader import CLUSTERS, README, ROOT, first_use, mutual_tls
from support.report import NO, prose, table, wrapped
from support.walk import Walk, blocks

# Of those on call, ten that are unlike each other; the others are for `make alerts`.
FAULTS = (
    *("hub_killed", "site_down", "token_ended", "one_id_twice", "certificate_ends_soon"),
    *("link_cut", "redis_frozen", "few_descriptors", "slow_readers", "wrong_file"),
)
WORDS_A_MINUTE = 200  # of one who reads to understand
BY_HAND = "\n## By hand\n"  # what somebody has written of a walk without the program: it stays
HEAD = f"""\
What a new user needs, in a fresh clone, with nothing but README and docs: the commands are taken from the pages as they
stand there, and typed by a program (`make walks`, which writes this page). Minutes of the machine are those that the
commands took, on a machine that may have had other work; of the reader, the words of the pages up to there at
{WORDS_A_MINUTE} a minute.
"""


@dataclass(frozen=True)
class Walked:
    """One walk. Minutes."""

    what: str
    by: str
    machine: float
    reader: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.walks", description=__doc__)
    parser.add_argument("--report", type=Path, metavar="FILE", help="where the page goes (standard output)")
    parser.add_argument("--without-faults", action="store_true", help="the first two walks alone")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="walks-"))
    try:
        walked, alerts = _walk(directory, not arguments.without_faults)
    except pytest.skip.Exception as missing:
        sys.exit(f"cannot walk: {missing}")
    except AssertionError as error:
        sys.exit(f"the walk has ended: {error}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    lines = [
        "# Walks",
        "",
        *prose(HEAD),
        *table(
            ("from a fresh clone to", "by", "machine, min", "reader, min"),
            ((one.what, one.by, f"{one.machine:.1f}", f"{one.reader:.1f}" if one.reader else "") for one in walked),
        ),
        *alerts,
    ]
    text = "\n".join(part for line in lines for part in wrapped(line)).rstrip() + "\n"
    if arguments.report and arguments.report.exists():
        _, heading, by_hand = arguments.report.read_text().partition(BY_HAND)
        text += heading + by_hand
    if arguments.report:
        arguments.report.write_text(text)
    else:
        print(text)
    return 1 if NO in text else 0


def _walk(directory: Path, faults: bool) -> tuple[list[Walked], list[str]]:
    clone = directory / "ncfast"
    made = _minutes(lambda: _clone(clone))
    searched = _minutes(lambda: _with(clone, directory / "first", first_use))
    clustered = _minutes(lambda: _with(clone, directory / "tls", mutual_tls))
    before = _words(README.partition("\n## Install\n")[0])
    install = _words(README.partition("\n## Install\n")[2].partition("\n## First use")[0])
    first = _words(_section(README, "First use: LDAP"))
    walked = [
        Walked("a demo that has passed", "README, See it", made, before),
        Walked("the first LDAP search", "README, First use", made + searched, before + install + first),
        Walked(
            "three hubs with mutual TLS, and a search through each",
            "docs/high-availability.md, Setting up",
            made + clustered,
            before + _words(_section(CLUSTERS, "Setting up")),
        ),
    ]
    if not faults:
        return walked, []
    tell("ten faults")
    report = clone / "build" / "alerts.md"
    report.parent.mkdir(exist_ok=True)
    line = f"make alerts ALERTS='--only {','.join(FAULTS)} --report {report}'"
    env = {name: value for name, value in child_env().items() if name != "PYTHONPATH"}
    took = _minutes(lambda: subprocess.run(["sh", "-c", line], cwd=clone, env=env, stdout=sys.stderr))
    walked.append(Walked("ten faults, each from its alert to the page that names it", "runbooks", took, 0))
    return walked, _of_alerts(report.read_text())


def _clone(clone: Path) -> None:
    """As README says under "See it"."""
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    tell("make demo")
    walk = Walk(clone, [], os.environ)
    try:
        assert "Nothing was lost, repeated or reordered." in walk.type(blocks(README, "See it")[0][0])
    finally:
        walk.close()


def _with(clone: Path, folder: Path, to: Callable[[Walk, Path], None]) -> None:
    """A walk on a machine on which no port is taken."""
    tell(to.__name__)
    folder.mkdir()
    with _reader(clone) as walk:
        to(walk, folder)


@contextmanager
def _reader(clone: Path) -> Iterator[Walk]:
    spaces = Namespaces()
    env = {name: value for name, value in child_env({"PYTHONUNBUFFERED": "1"}).items() if name != "PYTHONPATH"}
    walk = Walk(clone, spaces.prefix("reader"), env)
    try:
        yield walk
    finally:
        walk.close()
        spaces.close()


def _of_alerts(page: str) -> list[str]:
    """Result and table of the other page."""
    head, _, rest = page.partition("\n| alert ")
    return [head[head.index("**") :].replace("\n", " "), "", *f"| alert {rest}".splitlines()]


def _section(page: str, heading: str) -> str:
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def _words(text: str) -> float:
    return len(re.findall(r"\S+", text)) / WORDS_A_MINUTE


def _minutes(of: Callable[[], object]) -> float:
    began = time.monotonic()
    of()
    took = (time.monotonic() - began) / 60
    tell(f"{took:.1f} minutes")
    return took


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
