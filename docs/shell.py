"""Writes what a shell's users have of the commands, from argparse's tree: man pages, and completions by shtab.

    python -m docs.shell

The pages are made here: argparse-manpage puts all commands on one page, and what it takes from argparse's own help is
worded otherwise from one Python to the next. tests/house/test_shell.py sees to it that all files are current.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import shtab

from ncfast import __version__
from ncfast.cli import completion, program
from ncfast.cli.exitcode import MEANINGS

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "man"
COMPLETIONS = ROOT / "ncfast" / "share" / "completions"
ELLIPSIS = r"\&.\|.\|."
Commands = dict[str, argparse.ArgumentParser]


def _roff(text: str) -> str:
    """Text as it is: no escape of its own, no request at the start of a line."""
    return re.sub(r"^(?=[.'])", r"\\&", text.replace("\\", r"\e").replace("-", r"\-"), flags=re.MULTILINE)


def _bold(text: str) -> str:
    return rf"\fB{_roff(text)}\fR"


def _commands(parser: argparse.ArgumentParser) -> tuple[Commands, dict[str, str]]:
    """The parsers below this one, and what the list of them says of each."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices), {one.dest: one.help or "" for one in action._choices_actions}
    return {}, {}


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a command takes, but for --help and commands of its own."""
    return [one for one in parser._actions if not isinstance(one, (argparse._HelpAction, argparse._SubParsersAction))]


def _value(option: argparse.Action) -> str:
    """The word for an option's value, or for an argument; empty for a switch."""
    if option.option_strings and option.nargs == 0:
        return ""
    words = "|".join(option.choices) if option.choices else option.metavar or option.dest.upper()
    return rf"[\fI{_roff(str(words))}\fR]" if option.nargs == "?" else rf"\fI{_roff(str(words))}\fR"


def _usage(parser: argparse.ArgumentParser) -> str:
    words = [_bold(parser.prog)]
    for one in _options(parser):
        word = " ".join(filter(None, [_bold(one.option_strings[0]) if one.option_strings else "", _value(one)]))
        more = f" {ELLIPSIS}" if isinstance(one, argparse._AppendAction) else ""
        words.append(word + more if one.required or not one.option_strings else f"[{word}{more}]")
    return " ".join(words)


def _paragraphs(text: str) -> str:
    """Prose, parted by empty lines."""
    return "\n.PP\n".join(_roff(part.strip()) for part in text.strip().split("\n\n"))


def _listed(rows: list[tuple[str, str]]) -> Iterator[str]:
    for term, text in rows:
        yield f".TP\n{term}\n{_roff(text)}"


def _described(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    rows = []
    for one in _options(parser):
        term = ", ".join(map(_bold, one.option_strings))
        rows.append((" ".join(filter(None, [term, _value(one)])), (one.help or "") % vars(one)))
    return rows


def page(name: str, summary: str, parser: argparse.ArgumentParser, others: list[str]) -> str:
    """The page of one command, or of all together. `others` are the pages that it refers to."""
    commands, summaries = _commands(parser)
    whole = name == parser.prog  # its commands have pages of their own; those of one command are on its page
    usages = [rf"{_bold(name)} [\fIcommand\fR] [{ELLIPSIS}]"] if whole else map(_usage, [parser, *commands.values()])
    lines = [
        f'.TH {_roff(name.upper())} 1 "" "ncfast {__version__}" "ncfast"',
        f".SH NAME\n{_roff(name)} \\- {_roff(summary)}",
        ".SH SYNOPSIS\n" + "\n.br\n".join(usages),
        f".SH DESCRIPTION\n{_paragraphs(parser.description or '')}",
    ]
    if whole:
        lines.append(".SH COMMANDS")
        lines += _listed([(_bold(below), summaries[below]) for below in commands])
    parsers = [parser] if whole else [parser, *commands.values()]
    rows = dict(row for one in parsers for row in _described(one))
    if rows:
        lines.append(".SH OPTIONS")
        lines += _listed(list(rows.items()))
    lines.append(".SH EXIT STATUS")
    lines += _listed([(_bold(str(int(code))), text) for code, text in MEANINGS.items()])
    lines.append(".SH SEE ALSO\n" + ",\n".join(rf"{_bold(other)}(1)" for other in others))
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """Every file that is written here, as it should be."""
    parser = program._parser()
    commands, summaries = _commands(parser)
    names = [f"ncfast-{command}" for command in commands]
    made = {PAGES / "ncfast.1": page("ncfast", "a reverse-TCP hub whose flows survive the links", parser, names)}
    for name, (command, below) in zip(names, commands.items(), strict=True):
        made[PAGES / f"{name}.1"] = page(name, summaries[command], below, ["ncfast"])
    _complete_files(parser)
    for shell, file in completion.FILES.items():
        made[COMPLETIONS / file] = shtab.complete(parser, shell)
    return made


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """What is called FILE is completed by the files that there are."""
    for one in _options(parser):
        if one.metavar == "FILE":
            one.complete = shtab.FILE
    for below in _commands(parser)[0].values():
        _complete_files(below)


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
