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
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from ncfast.cli.exitcode import MEANINGS, ExitCode
from ncfast.cli.start import open_standard_descriptors, refuse_plugins

_COMMANDS = (  # as `--help` shows them
    "hub",
    "agent",
    "check",
    "token",
    "status",
    "flows",
    "diag",
    "drain",
    "upgrade",
    "agents",
    "kick",
    "unlock",
    "demo",
    "conformance",
    "examples",
    "schema",
    "completion",
    "version",
)
_WITHOUT_COMMAND = ("-h", "--help", "--version")
_EPILOG = "exit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in MEANINGS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Without a command it is `hub`."""
    open_standard_descriptors()
    refuse_plugins()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in _WITHOUT_COMMAND):
        arguments.insert(0, "hub")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our characters shall not end a command
    command = arguments[0]
    if command not in _COMMANDS and command not in _WITHOUT_COMMAND:
        print(f"ncfast: error: {_unknown(command)}", file=sys.stderr)
        return ExitCode.USAGE
    try:
        parsed = _parser([command] if command in _COMMANDS else _COMMANDS).parse_args(arguments)
        return parsed.run(parsed)
    except ModuleNotFoundError as error:
        if not _lacks_setup(error):
            raise
        print(f"ncfast: {error} ({sys.executable}); in a clone: make build, then . .venv/bin/activate", file=sys.stderr)
        return ExitCode.FAILURE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # `ncfast status | head`: nobody reads on, and the interpreter shall not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILURE
    except Exception as error:
        code = _known(error)
        if code is None:
            raise  # a defect: its traceback is what a report needs
        said = isinstance(error, OSError) and error.filename is None and error.strerror  # by us, and needs no number
        print("\n".join(f"ncfast: {line}" for line in (said or str(error)).splitlines()), file=sys.stderr)
        return code


def _lacks_setup(error: ModuleNotFoundError) -> bool:
    """Whether a package that we need is not installed, or a module of ours not compiled, for this Python; anything else
    is a defect."""
    package, *inner = (error.name or "").split(".")
    return package != "ncfast" or Path(__file__).parents[1].joinpath(*inner).with_suffix(".pyx").exists()


def _unknown(command: str) -> str:
    said = f"there is no command {command!r}"
    if command.endswith((".yaml", ".yml")):
        return f"{said}; did you mean: ncfast hub --config {command}"
    near = get_close_matches(command, _COMMANDS, n=1)
    return f"{said}; did you mean: {near[0]}" if near else f"{said}; ncfast --help lists them"


class _Version(argparse.Action):
    """As the command `version`."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        import_module("ncfast.cli.version").run(namespace)
        parser.exit()


def _parser(names: Iterable[str] = _COMMANDS) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ncfast",
        description="A reverse-TCP hub whose flows survive the links they cross. Without a command: hub.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, as the command of that name")
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
    from ncfast.config.files import Unusable
    from ncfast.config.problems import ConfigError
    from ncfast.core.errors import LocalError, NcfastError
    from ncfast.observe.adminclient import Unavailable

    if isinstance(error, Unavailable):
        return ExitCode.UNAVAILABLE
    if isinstance(error, (ConfigError, AuthSetupError, Unusable)):
        return ExitCode.CONFIG
    if isinstance(error, LocalError):
        return None
    if isinstance(error, (NcfastError, OSError)):
        return ExitCode.FAILURE
    return None
