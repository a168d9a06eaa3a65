"""Development mode: what a hub without a file needs, made up at its start and gone at its end."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ncfast.auth import mint
from ncfast.config import HubConfig, development_hub

_AGENT = "dev-agent"
_TOKEN_SEC = 86_400  # the longest that a hub accepts: a working day without a new paste


@contextmanager
def development() -> Iterator[HubConfig]:
    """A loopback hub with a random key, and the files it needs, which no other user can read.

    Prints how to use it; the token stands in a file, never on a command line.
    """
    with tempfile.TemporaryDirectory(prefix="ncfast-", dir=os.environ.get("XDG_RUNTIME_DIR")) as directory:
        key = secrets.token_hex(32)
        config = development_hub(write_private(Path(directory, "jwt.key"), key))
        token = mint(key.encode(), _AGENT, [each.connector for each in config.listeners], ttl=_TOKEN_SEC)
        print(_welcome(config, write_private(Path(directory, "token"), token)), flush=True)
        yield config


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _welcome(config: HubConfig, token_file: Path) -> str:
    ncfast = [sys.executable, "-m", "ncfast"]
    agent = [*ncfast, "agent", "--hub", f"ws://{config.edge.bind}/tunnel", "--agent-id", _AGENT]
    agent += ["--token-file", str(token_file)]
    for listener in config.listeners:
        agent += ["--connector", f"{listener.connector}=127.0.0.1:389"]
    status = [*ncfast, "status", "--url", f"http://{config.admin.bind}"]
    clients = ", ".join(f"{listener.bind} (connector {listener.connector})" for listener in config.listeners)
    return f"""\
Development mode: loopback only; key and token are random and end with this process.

  clients connect to   {clients}
  start an agent       {shlex.join(agent)}
  look at the hub      {shlex.join(status)}
"""
