"""Check a hub's or an agent's file, and the keys, certificates, secrets and tokens that it names as far as they are
on this machine: print what it was understood to say, or everything wrong with it.

With --strict it is also held against the check list of docs/hardening.md, and a warning is exit code 1.
With --quiet only what is wrong is printed, and warnings.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ncfast.cli.exitcode import ExitCode

HELP = "check a configuration file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a hub's or an agent's YAML file")
    parser.add_argument("--all", action="store_true", help="show the defaults of keys that the file leaves out, too")
    parser.add_argument("--quiet", action="store_true", help="print warnings and mistakes alone")
    parser.add_argument("--strict", action="store_true", help="what hardens an installation, too; exit 1 on warnings")


def run(arguments: argparse.Namespace) -> int:
    from ncfast.cli.contents import unusable
    from ncfast.cli.table import table
    from ncfast.config.exposed import exposed
    from ncfast.config.hardening import advice
    from ncfast.config.hub import HubConfig
    from ncfast.config.loader import load_any
    from ncfast.config.problems import ConfigError, Problem
    from ncfast.config.warnings import warnings

    config = load_any(arguments.file)
    if faults := [Problem(arguments.file, 0, 0, "", "", text, "") for text in unusable(config)]:
        raise ConfigError(faults)
    if not arguments.quiet:
        kind = "a hub" if isinstance(config, HubConfig) else "an agent"
        values = config.model_dump(mode="json", by_alias=True, exclude_unset=not arguments.all)
        print(f"{arguments.file}: the configuration of {kind}, nothing wrong with it\n")
        print("\n".join(table(("KEY", "VALUE"), list(_flat(values)))))
    notes = [*warnings(config), *exposed(config), *_absent_files(config.model_dump(by_alias=True))]
    if isinstance(config, HubConfig) and config.auth is None:
        notes.append("auth: not in the file; the hub starts only with NC_JWT_KEY_FILE or NC_JWKS_URL set")
    if arguments.strict:
        notes += advice(config)
    if notes and not arguments.quiet:
        print()
    for note in notes:
        print(f"warning: {note}")
    if notes and arguments.strict:
        print(f"ncfast: {arguments.file}: {len(notes)} warnings, and --strict takes none", file=sys.stderr)
        return ExitCode.FAILURE
    return ExitCode.OK


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with their keys as `listeners[0].bind`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{key}[{index}]")
    elif isinstance(value, list):
        yield key, ", ".join(map(str, value)) or "(none)"
    elif isinstance(value, bool):
        yield key, str(value).lower()
    else:
        yield key, value


def _absent_files(values: dict[str, Any]) -> Iterator[str]:
    """Files that are named and not here; only a warning, as the file may be checked on another machine."""
    for key, value in _flat(values):
        # not Path.is_file, which raises where a directory is closed; the socket is the hub's own to make
        if isinstance(value, Path) and key != "admin.unix" and not os.path.isfile(value):
            yield f"{key}: there is no file {value} on this machine, or not for this user"
