"""When the system's authorities are read."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import uvloop

from ncfast.agent import trust
from ncfast.agent.trust import Trust
from ncfast.net.seam import Net


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLContext]:
    """The contexts made so far."""
    made: list[ssl.SSLContext] = []

    def client_context(tls):
        made.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return made[-1]

    monkeypatch.setattr(trust, "client_context", client_context)
    return made


def run(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_an_agent_of_hubs_without_tls_reads_them_when_a_dial_asks(read):
    async def main():
        trusted = Trust(None, secure=False, net=Net(asyncio.get_running_loop()))
        await trusted.refresh()
        assert not read
        assert [await trusted.context(), await trusted.context()] == [read[0]] * 2 and len(read) == 1

    run(main)


def test_an_agent_of_a_hub_with_tls_reads_them_before_its_first_dial(read):
    async def main():
        trusted = Trust(None, secure=True, net=Net(asyncio.get_running_loop()))
        assert read == [await trusted.context()]

    run(main)
