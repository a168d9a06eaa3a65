"""Print the versions of ncfast and of the parts that carry its traffic."""

from __future__ import annotations

import argparse

from ncfast import __version__

HELP = "print the version"
_PARTS = ("uvloop", "aiofastnet", "websockets")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(arguments: argparse.Namespace) -> int:
    import platform
    from importlib import metadata

    parts = [f"{platform.python_implementation()} {platform.python_version()}"]
    parts += [f"{name} {metadata.version(name)}" for name in _PARTS]
    print(f"ncfast {__version__} ({', '.join(parts)})")
    return 0
