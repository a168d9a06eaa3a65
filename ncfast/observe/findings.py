"""What was tried before anything starts, and what came of it: a row for each step, for whoever has to mend it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple


class Verdict(enum.Enum):
    PASS = "PASS"
    FAIL = "FAIL"
    SKIP = "SKIP"  # not asked for, or not reached


class Finding(NamedTuple):
    """`remedy` says what to do about a FAIL."""

    subject: str  # a hub's URL, a connector and its target, a key of the file
    step: str
    verdict: Verdict
    detail: str
    remedy: str = ""


class Findings:
    """The rows, in the order in which they were found."""

    def __init__(self) -> None:
        self.rows: list[Finding] = []

    def passed(self, subject: str, step: str, detail: str = "") -> None:
        self.rows.append(Finding(subject, step, Verdict.PASS, detail))

    def failed(self, subject: str, step: str, detail: str, remedy: str) -> None:
        self.rows.append(Finding(subject, step, Verdict.FAIL, detail, remedy))

    def skipped(self, subject: str, steps: Sequence[str], detail: str = "not reached") -> None:
        self.rows.extend(Finding(subject, step, Verdict.SKIP, detail) for step in steps)

    @property
    def well(self) -> bool:
        """Whether nothing has failed."""
        return all(row.verdict is not Verdict.FAIL for row in self.rows)
