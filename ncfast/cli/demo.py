"""See it work on this machine: a hub, an agent, a small service, its clients, and a tunnel that is cut.

Data flows both ways while the tunnel is cut again and again; SHA-256 shows that nothing was lost.
It ends by itself.
"""

from __future__ import annotations

import argparse

HELP = "see flows survive a tunnel that is cut under them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", type=_positive, default=256, metavar="MIB", help="to move each way (default: 256)"
    )
    parser.add_argument(
        "--cuts", type=_positive, default=5, metavar="N", help="cuts of the tunnel (default: 5)"
    )
    parser.add_argument("--stay", action="store_true", help="keep everything up afterwards, to play with")


def run(arguments: argparse.Namespace) -> int:
    import asyncio
    import sys

    from ncfast.demo import scenario

    try:
        whole = asyncio.run(
            scenario.run(sys.stdout, megabytes=arguments.size, cuts=arguments.cuts, stay=arguments.stay)
        )
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    return 0 if whole else 1


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number, 1 or more")
    return int(text)
