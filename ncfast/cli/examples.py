"""Print a file to begin with: configurations, units of systemd, alerts of Prometheus, a dashboard of Grafana.

Without a name the names are listed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

HELP = "print an example: a configuration, unit, alerts, a dashboard"
_REFUSED = "bad"  # in a clone: files for the tests, each with a mistake


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="one of those listed, as hub.yaml")
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    from ncfast.cli.shared import shared

    found = dict(_files(shared("examples")))
    if arguments.name is None:
        print("\n".join(sorted(found)))
    elif arguments.name in found:
        print(found[arguments.name].read_text(encoding="utf-8"), end="")
    else:
        arguments.usage_error(f"there is no example {arguments.name}; `ncfast examples` lists them")
    return 0


def _files(directory: Traversable, above: str = "") -> Iterator[tuple[str, Traversable]]:
    """The files below a directory, by their paths."""
    for one in directory.iterdir():
        if one.name.startswith("."):  # of other tools' concern; a wheel does not have them
            continue
        if one.is_file():
            yield above + one.name, one
        elif one.name != _REFUSED:
            yield from _files(one, f"{above}{one.name}/")
