"""Print what makes a shell complete commands and options of ncfast.

In ~/.bashrc: . <(ncfast completion bash). For zsh into a file _ncfast of a directory of $fpath, for fish into
~/.config/fish/completions/ncfast.fish. Packages of a distribution bring them along.
"""

from __future__ import annotations

import argparse

HELP = "print the completion for a shell"
FILES = {"bash": "ncfast.bash", "zsh": "_ncfast", "fish": "ncfast.fish"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=tuple(FILES), help="whose completion")


def run(arguments: argparse.Namespace) -> int:
    from ncfast.cli.shared import shared

    print((shared("completions") / FILES[arguments.shell]).read_text(encoding="utf-8"), end="")
    return 0
