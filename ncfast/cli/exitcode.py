"""Exit codes, the same for every command; those above 2 are BSD's sysexits(3)."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    FAILURE = 1
    USAGE = 2
    UNAVAILABLE = 69
    CONFIG = 78
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "done; for hub and agent: drained after SIGTERM or SIGINT",
    ExitCode.FAILURE: (
        "failed while running; the message says at what. For check --connect and agent --dry-run: a step failed; "
        "for conformance: a rule is broken"
    ),
    ExitCode.USAGE: "wrong arguments",
    ExitCode.UNAVAILABLE: (
        "no hub answers at the admin edge (status, drain, agents); a program is missing (demo --cluster)"
    ),
    ExitCode.CONFIG: (
        "the configuration, or a certificate, key, token or password file that it names, cannot be used. "
        "For check --strict: there are warnings"
    ),
    ExitCode.INTERRUPTED: "ended by Ctrl-C (status --watch, demo)",
}
