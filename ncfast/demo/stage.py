"""What both demos stand on: the files of hub and agent, the signals that end a demo, words for what went wrong."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Protocol

from ncfast.core.errors import NcfastError
from ncfast.demo.clients import Address

START_SEC = 60  # some two seconds are usual
AGENT, CONNECTOR = "demo-agent", "demo"
ANYWHERE = "127.0.0.1:0"

_HUB_FILE = """\
listeners:
  - {{ name: demo, bind: '{clients}', connector: {connector} }}
edge: {{ bind: '{edge}' }}
admin: {{ bind: '{admin}' }}
auth:
  jwt: {{ algorithms: [HS256], key_file: {key_file} }}
drain: {{ delay_sec: 0, timeout_sec: {drain_sec} }}
{more}"""

_AGENT_FILE = """\
hubs: [{hubs}]
agent_id: {agent}
token_file: {token_file}
connectors:
  - {{ name: {connector}, target: '{target}' }}
http_proxy: 'off'
drain: {{ timeout_sec: 1 }}
{more}"""


class Performance(Protocol):
    """A demo as `perform` runs it."""

    async def start(self, stack: AsyncExitStack) -> None:
        """Bring everything up; `stack` takes it down again. Raises `ChildEnded` if a child fails."""

    async def play(self) -> bool:
        """True when every byte arrived."""

    async def linger(self) -> None:
        """Keep everything up until a signal."""


async def perform(performance: Performance, *, stay: bool) -> bool:
    """The whole of a demo; True when every byte arrived.

    SIGINT or SIGTERM ends it early with CancelledError, and ends a demo that stays in good order. Raises
    `NcfastError` if something does not start.
    """
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(START_SEC):
                await performance.start(stack)
        except TimeoutError as error:
            raise NcfastError(str(error) or f"not everything was up within {START_SEC} s") from None
        whole = await performance.play()
        if stay:
            with suppress(asyncio.CancelledError):
                await performance.linger()
    return whole


def hub_file(
    path: Path,
    key_file: str,
    *,
    clients: str = ANYWHERE,
    edge: str = ANYWHERE,
    admin: str = ANYWHERE,
    drain_sec: int = 1,
    more: str = "",
) -> str:
    """Writes a hub's configuration, `more` at its end; the path as text."""
    text = _HUB_FILE.format(
        connector=CONNECTOR, key_file=key_file, clients=clients, edge=edge, admin=admin, drain_sec=drain_sec, more=more
    )
    return write(path, text)


def agent_file(path: Path, hubs: list[str], token_file: str, target: Address, *, more: str = "") -> str:
    """Writes the agent's configuration, for hubs given as `host:port`, `more` at its end; the path as text."""
    urls = ", ".join(f"'ws://{hub}/tunnel'" for hub in hubs)
    text = _AGENT_FILE.format(
        hubs=urls, agent=AGENT, token_file=token_file, connector=CONNECTOR, target="{}:{}".format(*target), more=more
    )
    return write(path, text)


def write(path: Path, text: str) -> str:
    """Write a file that nobody else may read, since some hold secrets; the path as text."""
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


def address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


def first(group: BaseException) -> BaseException:
    """What is at the bottom of an exception group."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
