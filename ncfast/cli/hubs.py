"""Which hub, or agent, a command talks to, and what it shows there."""

from __future__ import annotations

import argparse
from pathlib import Path

from ncfast.observe.adminclient import Place

DEFAULT = "http://127.0.0.1:9400"
AGENT = "http://127.0.0.1:9410"  # as the documentation has an agent's admin.bind


def add_url(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """`again`: the parser of an action, whose command takes the same before it."""
    unsaid = argparse.SUPPRESS if again else None
    parser.add_argument(
        "--url",
        type=_admin_url,
        default=unsaid or DEFAULT,
        help=f"the hub's admin edge; unix:/path for its socket (default: {DEFAULT})",
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", default=unsaid, help="the secret of admin.token_file"
    )
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", default=unsaid, help="who signed the certificate of an https:// edge"
    )


def place(arguments: argparse.Namespace) -> Place:
    """The admin edge that the arguments name. Raises OSError for authorities that cannot be used."""
    if not arguments.url.startswith("https://"):
        return Place(arguments.url, arguments.token_file)
    from ncfast.net.tls import unreadable, web_context

    try:
        return Place(arguments.url, arguments.token_file, web_context(arguments.ca_file))
    except OSError as exc:
        raise unreadable("--ca-file", exc) from None


def _admin_url(text: str) -> str:
    if not text.startswith(("http://", "https://", "unix:/")):
        raise argparse.ArgumentTypeError("must start with http://, https:// or unix:/")
    return text.rstrip("/")
