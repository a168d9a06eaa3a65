"""Development mode: a hub without a file. What it needs is made up at its start and gone at its end."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from ncfast.auth import mint
from ncfast.config.development import development_hub
from ncfast.config.hub import HubConfig
from ncfast.serve import hub as serve

_AGENT = "dev-agent"
_TOKEN_SEC = 86_400  # the longest that a hub accepts: a working day without a new paste
_TARGET = "127.0.0.1:389"  # only an example, in the command to paste


def run_hub() -> int:
    """Runs a loopback hub with a random key, and prints how to use it once it serves; returns the exit code.

    Key and token stand in files that no other user can read, never on a command line.
    """
    with tempfile.TemporaryDirectory(prefix="ncfast-", dir=os.environ.get("XDG_RUNTIME_DIR")) as directory:
        key = secrets.token_hex(32)
        config = development_hub(_write_private(Path(directory, "jwt.key"), key))
        token = mint(key.encode(), _AGENT, [each.connector for each in config.listeners], ttl=_TOKEN_SEC)
        token_file = _write_private(Path(directory, "token"), token)
        return serve.run_hub(config, on_ready=lambda hub: print(_welcome(hub, config, token_file), flush=True))


def _write_private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _welcome(hub: Any, config: HubConfig, token_file: Path) -> str:
    ncfast = [sys.executable, "-m", "ncfast"]
    agent = [*ncfast, "agent", "--hub", f"ws://{hub.edge.address}/tunnel", "--agent-id", _AGENT]
    for listener in config.listeners:
        agent += ["--connector", f"{listener.connector}={_TARGET}"]
    agent += ["--token-file", str(token_file)]
    status = [*ncfast, "status", "--url", f"http://{hub.admin_address}"]
    clients = ", ".join(f"{each.address} (connector {each.config.connector})" for each in hub.listeners.values())
    return f"""\
Development mode: loopback only; key and token are random and end with this process.

  clients connect to   {clients}
  start an agent       {shlex.join(agent)}
  look at the hub      {shlex.join(status)}
"""
