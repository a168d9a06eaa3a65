"""The command line: `python -m ncfast`, or `ncfast`."""

from ncfast.cli.program import main

__all__ = ["main"]
