"""The token that hubs are shown, as its file has it now."""

from __future__ import annotations

from pathlib import Path

from ncfast.agent.dialer import DialError
from ncfast.agent.ground import Ground


async def read_token(ground: Ground) -> str:
    """What the token file holds now. Raises DialError."""
    path = Path(ground.config.token_file)
    try:
        return (await ground.net.loop.run_in_executor(None, path.read_text)).strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise DialError("token_file", f"cannot read token_file {path}: {type(exc).__name__}") from None
