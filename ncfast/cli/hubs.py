"""Which hub a command talks to."""

from __future__ import annotations

import argparse


def add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        type=_admin_url,
        default="http://127.0.0.1:9400",
        help="the hub's admin edge (default: %(default)s)",
    )


def _admin_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("must start with http:// or https://")
    return text.rstrip("/")
