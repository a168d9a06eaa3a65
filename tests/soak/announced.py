"""What the documents announce that clients may lose, each with the words that say so.

Whatever else is lost is a failure of the soak; `test_soak.py` checks that the words are still there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ledger import Fault, Trial

Covers = Callable[["Fault", "Trial", frozenset[str]], bool]

REFUSALS = frozenset({"no_agent", "hold_timeout", "not_owner", "stale_epoch"})
AGENT_GONE = frozenset({"agent_restarted", "link_lost", "draining", "target_reset", "unknown_flow"})
HOLD_SEC = 10.0  # `hold_sec` as operators get it, and `open_timeout_sec`
WAITED = frozenset({"hold_timeout", "open_timeout"})  # the latter if the agent went away while it was asked
HOPE_SEC = 30.0  # `flow_grace_sec`: after this long nobody is held for an agent any more


@dataclass(frozen=True)
class Announcement:
    """``words`` of ``page``; ``covers`` says whether they are about this loss: the fault, the trial that was lost, and
    the reasons that its origin has logged (none, if the origin died or never accepted)."""

    page: str
    words: str
    covers: Covers


def meets(fault: Fault, trial: Trial) -> bool:
    """Whether the trial was on its way while the fault lasted."""
    return trial.began <= fault.over and trial.ended >= fault.began


def _its_origin(fault: Fault, trial: Trial, reasons: frozenset[str]) -> bool:
    return trial.hub == fault.target and meets(fault, trial)


def _its_draining_origin(fault: Fault, trial: Trial, reasons: frozenset[str]) -> bool:
    had_its_time = trial.ended >= fault.began + fault.patience
    return _its_origin(fault, trial, reasons) and (not trial.received or had_its_time)


def _its_agent(fault: Fault, trial: Trial, reasons: frozenset[str]) -> bool:
    was_there = trial.began <= fault.struck and trial.ended >= fault.began
    return trial.connector in fault.connectors and was_there and bool(reasons & AGENT_GONE)


def _held_in_vain(fault: Fault, trial: Trial, reasons: frozenset[str]) -> bool:
    """Nobody else serves it, and its agent was away for as long as the trial waited, which was `hold_sec`."""
    waited = min(trial.ended, fault.over) - max(trial.began, fault.began)
    return trial.connector in fault.alone and waited >= HOLD_SEC and not trial.received and bool(reasons & WAITED)


def _given_up(fault: Fault, trial: Trial, reasons: frozenset[str]) -> bool:
    gone = min(trial.ended, fault.over) - fault.began >= HOPE_SEC and trial.began <= fault.over
    return trial.connector in fault.alone and gone and not trial.received and "no_agent" in reasons


def _its_agent_away(fault: Fault, trial: Trial, reasons: frozenset[str]) -> bool:
    return _held_in_vain(fault, trial, reasons) or _given_up(fault, trial, reasons)


def _refused(fault: Fault, trial: Trial, reasons: frozenset[str]) -> bool:
    return meets(fault, trial) and not trial.received and bool(reasons & REFUSALS)


ORIGIN_KILLED = Announcement(
    "README.md", "the **hub that holds the client's socket** dies | that flow ends", _its_origin
)
ORIGIN_DRAINED = Announcement(
    "README.md", "a hub's own clients may finish for `drain.timeout_sec`", _its_draining_origin
)
AGENT_RESTARTED = Announcement("README.md", "its flows end: the sockets to the services were its own", _its_agent)
AGENT_AWAY = Announcement(
    "README.md",
    "New clients are held for `hold_sec` (10 s) at most; 30 s after the loss they are refused at once",
    _its_agent_away,
)
MODE_SHADOW = Announcement("docs/high-availability.md", "| `shadow` | this hub's agents |", _refused)
ALL = (ORIGIN_KILLED, ORIGIN_DRAINED, AGENT_RESTARTED, AGENT_AWAY, MODE_SHADOW)
