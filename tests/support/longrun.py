"""What programs that play for long have in common: arguments, a folder for logs, and a page that grows."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

Seen = TypeVar("Seen")


def cases_parser(prog: str, says: str | None, case: str) -> argparse.ArgumentParser:
    """Of a program that plays cases one after the other, each called as `case` says."""
    parser = argparse.ArgumentParser(prog=prog, description=says)
    parser.add_argument("--only", metavar=f"{case},…", help="only these; a wrong one lists all")
    add_report(parser, "where the page goes (standard output); with --only the other rows stay")
    return parser


def add_report(parser: argparse.ArgumentParser, says: str) -> None:
    parser.add_argument("--report", type=Path, metavar="FILE", help=says)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="logs and files stay there (thrown away)")


@contextmanager
def folder(keep: Path | None, prefix: str) -> Iterator[Path]:
    """For logs and files, which are thrown away unless there is a place to `keep` them."""
    directory = keep or Path(tempfile.mkdtemp(prefix=prefix))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


class Report(Generic[Seen]):
    """The page of what was `seen`, by `render(seen, before)`; with --only the other rows stay as they were before."""

    def __init__(self, arguments: argparse.Namespace, render: Callable[[list[Any], str], str]) -> None:
        self.seen: list[Seen] = []
        self._file: Path | None = arguments.report
        self._render = render
        known = arguments.only and self._file is not None and self._file.exists()
        self._before = self._file.read_text() if known and self._file is not None else ""

    def add(self, *seen: Seen) -> None:
        """Written after each, so that what was seen stays, should the rest be broken off."""
        self.seen += seen
        if self._file is not None:
            self._file.write_text(self._render(self.seen, self._before))

    def show(self) -> None:
        """All was seen: where no file has it, it is printed."""
        if self._file is None:
            print(self._render(self.seen, ""))


def tell(line: str) -> None:
    """Progress, for who waits."""
    print(line, file=sys.stderr, flush=True)
