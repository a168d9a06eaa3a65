"""Our own agent and hub in this very process, for the scripted ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.until import PATIENCE

from ncfast.agent.agent import Agent
from ncfast.config.agent import AgentConfig
from ncfast.config.hub import HubConfig
from ncfast.conformance.stage import Launched, Places
from ncfast.core.errors import Reason
from ncfast.hub.hub import Hub
from ncfast.net.seam import Net


@asynccontextmanager
async def our_agent(places: Places) -> AsyncIterator[Launched]:
    config = AgentConfig.model_validate(
        {
            "hubs": [places["hub"], places["other_hub"]],
            "agent_id": places["agent_id"],
            "token_file": places["token_file"],
            "connectors": [{"name": places["connector"], "target": places["target"]}],
            "http_proxy": places["proxy"] or "off",
            "tls": {"ca_file": places["ca_file"]},
            "reconnect": {"min_sec": 0.05, "connect_timeout_sec": PATIENCE},
            "drain": {"timeout_sec": PATIENCE},
        }
    )
    agent = Agent(config, Net(asyncio.get_running_loop()))
    running = asyncio.create_task(agent.run())
    try:
        yield Launched(stop=agent.stop)
    finally:
        agent.stop()
        for flow in list(agent.flows.values()):
            flow.reset(Reason.DRAINING)
        await running


@asynccontextmanager
async def our_hub(places: Places) -> AsyncIterator[Launched]:
    """Of a cluster, where there is to be one; with TLS, where there is to be that."""
    files = {"cert_file": "tls_cert_file", "key_file": "tls_key_file", "client_ca_file": "client_ca_file"}
    tls = "tls_cert_file" in places and {"tls": {key: places[place] for key, place in files.items()}}
    mesh = "mesh" in places and {
        "ha": {
            "enabled": True,
            "mode": "active",
            "cluster": places["cluster"],
            "replica_id": places["replica_id"],
            "mesh": {"listen": places["mesh"], "require_mtls": False, "secret_file": places["secret_file"]},
        }
    }
    config = HubConfig.model_validate(
        {
            "listeners": [{"name": "clients", "bind": places["listener"], "connector": places["connector"]}],
            "edge": {"bind": places["edge"], **(tls or {})},
            "admin": {"bind": "127.0.0.1:0"},
            "auth": {"jwt": {"algorithms": ["HS256"], "key_file": places["key_file"]}},
            "drain": {"delay_sec": 0, "timeout_sec": 60},
            **(mesh or {}),
        }
    )
    assert config.auth is not None
    hub = Hub(config, config.auth.jwt, Net(asyncio.get_running_loop()))
    await hub.start()
    draining: list[asyncio.Task[None]] = []
    try:
        yield Launched(stop=lambda: draining.append(asyncio.create_task(hub.drain())))
    finally:
        for task in draining:
            task.cancel()
        await hub.stop()
