"""Print the JSON Schema of configuration files, by which editors complete keys and mark what is wrong.

A file names it in its first line: # yaml-language-server: $schema=ncfast.schema.json
"""

from __future__ import annotations

import argparse

HELP = "print the JSON Schema of configuration files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(arguments: argparse.Namespace) -> int:
    from ncfast.config.schema import schema_text

    print(schema_text(), end="")
    return 0
