"""What the flows of a batch of clients have to say at once leaves behind the batch."""

from __future__ import annotations

import pytest

from core.ends import Agent, Hub, Tunnel
from core.virtual import Time


@pytest.fixture
def tunnels():
    time = Time()
    hub = Hub(time)
    both = [Tunnel(hub, Agent(time)) for _ in range(2)]
    for tunnel in both:
        tunnel.settle()
    hub.context.cork()
    for tunnel in both:
        hub.sessions = [tunnel.session]
        for _ in range(3):
            hub.connect()
        assert not tunnel.near.size
    return both


def test_in_one_write_for_each_link(tunnels):
    tunnels[0].hub.context.uncork()
    assert [len(tunnel.near.borders) for tunnel in tunnels] == [1, 1]
    for tunnel in tunnels:
        tunnel.settle()
        assert len(tunnel.agent.dials) == 3


@pytest.mark.parametrize("failing", [0, 1])
def test_also_if_that_of_another_link_fails(tunnels, failing, monkeypatch):
    def fails(lines):
        raise MemoryError

    monkeypatch.setattr(tunnels[failing].near, "writelines", fails, raising=False)
    with pytest.raises(MemoryError):
        tunnels[0].hub.context.uncork()
    well = tunnels[1 - failing]
    well.settle()
    assert len(well.agent.dials) == 3


def test_a_link_that_has_ended_meanwhile_is_no_matter(tunnels):
    tunnels[0].cut()
    tunnels[0].hub.turns.run()
    tunnels[0].hub.context.uncork()
    tunnels[1].settle()
    assert not tunnels[0].session.up and len(tunnels[1].agent.dials) == 3
