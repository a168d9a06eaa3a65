"""From arguments to a command, and from whatever it raises to one message and an exit code.

A command is a module with `HELP`, `add_arguments(parser)` and `run(arguments) -> int`. It is loaded alone when it is
asked for. What is heavy (event loop, pydantic, cryptography) it imports inside `run`, as `--help` loads every command.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

from ncfast.cli.exitcode import MEANINGS, ExitCode
from ncfast.cli.start import open_standard_descriptors, refuse_plugins

_COMMANDS = (  # as `--help` shows them
    "hub",
    "agent",
    "check",
    "token",
    "status",
    "drain",
    "agents",
    "kick",
    "unlock",
    "demo",
    "examples",
    "schema",
    "completion",
    "version",
)
_EPILOG = "exit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in MEANINGS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Without a command it is `hub`."""
    open_standard_descriptors()
    refuse_plugins()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "hub")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our characters shall not end a command
    command = arguments[0]
    parsed = _parser([command] if command in _COMMANDS else _COMMANDS).parse_args(arguments)
    try:
        return parsed.run(parsed)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # `ncfast status | head`: nobody reads on, and the interpreter shall not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILURE
    except Exception as error:
        code = _known(error)
        if code is None:
            raise  # a defect: its traceback is what a report needs
        print("\n".join(f"ncfast: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return code


def _parser(names: Iterable[str] = _COMMANDS) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ncfast",
        description="A reverse-TCP hub whose flows survive the links they cross. Without a command: hub.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    for name in names:
        module = import_module(f"ncfast.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _known(error: Exception) -> ExitCode | None:
    """The exit code for an error that its message explains; None for a defect of ours."""
    from ncfast.auth import AuthSetupError
    from ncfast.config.problems import ConfigError
    from ncfast.core.errors import LocalError, NcfastError

    if isinstance(error, (ConfigError, AuthSetupError)):
        return ExitCode.CONFIG
    if isinstance(error, LocalError):
        return None
    if isinstance(error, (NcfastError, OSError)):
        return ExitCode.FAILURE
    return None
