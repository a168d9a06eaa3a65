"""Check a hub's or an agent's file, and the keys, certificates, secrets and tokens that it names as far as they are
on this machine: print what it was understood to say, or everything wrong with it. A certificate that has ended is
refused, one that ends within 14 days is warned of.

With --strict it is also held against the check list of docs/hardening.md, and a warning is exit code 78.
With --quiet only what is wrong is printed, and warnings.
With --connect the way is tried, too: of an agent each hub, as a standby that claims nothing, and each target; of a hub
its ports, Redis, the issuer's keys, and its peers. The exit code is 1 if a step fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncfast.cli.exitcode import ExitCode

if TYPE_CHECKING:
    from ncfast.config.agent import AgentConfig
    from ncfast.config.hub import HubConfig, Jwt

HELP = "check a configuration file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a hub's or an agent's YAML file")
    parser.add_argument("--all", action="store_true", help="show the defaults of keys that the file leaves out, too")
    parser.add_argument("--quiet", action="store_true", help="print warnings and mistakes alone")
    parser.add_argument("--strict", action="store_true", help="what hardens an installation, too; exit 78 on warnings")
    parser.add_argument("--no-env", action="store_true", help="take nothing from the environment: no NC_*, no ${NAME}")
    parser.add_argument("--connect", action="store_true", help="try the way to all that the file names")


def run(arguments: argparse.Namespace) -> int:
    from ncfast.cli.certificates import certificates, ended, ends_soon, holding
    from ncfast.cli.contents import unusable
    from ncfast.cli.table import table
    from ncfast.config.exposed import exposed
    from ncfast.config.hardening import advice
    from ncfast.config.hub import HubConfig
    from ncfast.config.loader import load_any
    from ncfast.config.problems import ConfigError, Problem
    from ncfast.config.warnings import warnings

    env = {} if arguments.no_env else os.environ
    config = load_any(arguments.file, env)
    jwt = _jwt(config, env) if isinstance(config, HubConfig) else None
    values = list(_flat(config.model_dump(by_alias=True)))
    off = isinstance(config, HubConfig) and not config.ha.enabled
    named = certificates((key, value) for key, value in values if not (off and key.startswith("ha.")))
    if faults := [*unusable(config, jwt), *ended(named, time.time())]:
        raise ConfigError([Problem(arguments.file, 0, 0, "", "", text, "") for text in faults])
    if not arguments.quiet:
        kind = "a hub" if isinstance(config, HubConfig) else "an agent"
        said = _flat(config.model_dump(mode="json", by_alias=True, exclude_unset=not arguments.all))
        print(f"{arguments.file}: the configuration of {kind}, nothing wrong with it\n")
        print("\n".join(table(("KEY", "VALUE"), [*said, *holding(named)])))
    notes = [*warnings(config), *exposed(config), *_absent_files(values), *ends_soon(named, time.time())]
    if isinstance(config, HubConfig) and jwt is None:
        notes.append("auth: not in the file; the hub starts only with NC_JWT_KEY_FILE or NC_JWKS_URL set")
    if arguments.strict:
        notes += advice(config)
    if notes and not arguments.quiet:
        print()
    for note in notes:
        print(f"warning: {note}")
    if notes and arguments.strict:
        print(f"ncfast: {arguments.file}: {len(notes)} warnings, and --strict takes none", file=sys.stderr)
        return ExitCode.CONFIG
    return _connect(config, env, spaced=bool(notes) or not arguments.quiet) if arguments.connect else ExitCode.OK


def _jwt(config: HubConfig, env: Mapping[str, str]) -> Jwt | None:
    """What tokens are checked with; None if neither file nor environment says."""
    from ncfast.config.auth import named_in, resolve_auth

    return resolve_auth(config, env) if config.auth is not None or named_in(env) else None


def _connect(config: HubConfig | AgentConfig, env: Mapping[str, str], *, spaced: bool) -> int:
    from ncfast.cli.precheck import try_agent, try_hub
    from ncfast.config.auth import resolve_auth
    from ncfast.config.hub import HubConfig

    if spaced:
        print(flush=True)
    if isinstance(config, HubConfig):
        return try_hub(config, resolve_auth(config, env))
    return try_agent(config)


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


def _absent_files(values: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Files that are named and not here; only a warning, as the file may be checked on another machine."""
    for key, value in values:
        # not Path.is_file, which raises where a directory is closed; the socket is the hub's own to make
        if isinstance(value, Path) and key != "admin.unix" and not os.path.isfile(value):
            yield f"{key}: there is no file {value} on this machine, or not for this user"
