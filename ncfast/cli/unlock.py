"""Let an agent in again that `ncfast kick` has locked out: at all hubs of the cluster."""

from __future__ import annotations

import argparse

from ncfast.cli import kick

HELP = "let a locked agent in again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kick.add_agent(parser)


def run(arguments: argparse.Namespace) -> int:
    return kick.ask(arguments, "/agents/unlock", {})
