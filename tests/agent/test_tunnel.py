"""The states of a tunnel at the agent."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from ncfast.agent.tunnel import AgentTunnel, TunnelState
from ncfast.core.errors import LocalError

T = TunnelState
EDGES = {
    (T.DIALLED, T.GREETING),
    (T.DIALLED, T.CLAIMING),
    (T.GREETING, T.STANDBY),
    (T.STANDBY, T.CLAIMING),
    (T.CLAIMING, T.OWNER),
} | {(state, T.ENDED) for state in T if state is not T.ENDED}


@pytest.mark.parametrize(("before", "after"), [*itertools.product(T, T)], ids=lambda state: state.value)
def test_the_table_has_these_edges_and_no_others(before, after):
    tunnel = AgentTunnel(SimpleNamespace(clock=lambda: 0.0), None, None, "ws://hub.example.net/tunnel")
    tunnel.state = before
    if (before, after) in EDGES:
        tunnel._move(after)
        assert tunnel.state is after
    else:
        with pytest.raises(LocalError):
            tunnel._move(after)
        assert tunnel.state is before
