"""The agent's admin edge over real sockets: who may ask, and whether what it answers is so."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families
from support.until import PATIENCE, until

from agent.hubs import World
from ncfast.agent.admin import Admin
from ncfast.agent.metrics import METRICS
from ncfast.agent.standing import Standing
from ncfast.config.agent import AgentAdmin
from ncfast.observe.families import METRICS as HUB_METRICS
from ncfast.observe.labels import FLOWS_CLOSED

SLOW = {"interval_sec": 3600, "fall": 1, "rise": 1}  # the check at the start alone


class Edge:
    """The edge of a world's agent, asked at its port unless it is said otherwise."""

    def __init__(self, admin: Admin, unix: Path) -> None:
        self.admin = admin
        self.unix = unix

    async def ask(self, path: str, *, method: str = "GET", host: str = "localhost", unix: bool = False) -> Any:
        """Status and body, the latter as JSON if it is."""
        if unix:
            reader, writer = await asyncio.open_unix_connection(str(self.unix))
        else:
            name, _, port = self.admin.address.rpartition(":")
            reader, writer = await asyncio.open_connection(name, int(port))
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), json.loads(body) if body and b"application/json" in head else body.decode()

    async def metrics(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Values by sample and the values of its labels."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families((await self.ask("/metrics"))[1]):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
        return found


@asynccontextmanager
async def edge_of(world: World, folder: Path) -> AsyncIterator[Edge]:
    unix = folder / "admin.sock"
    admin = Admin(Standing(world.agent), world.agent.net)
    await admin.start(AgentAdmin.model_validate({"bind": "127.0.0.1:0", "unix": str(unix)}))
    try:
        yield Edge(admin, unix)
    finally:
        admin.close()


def test_ready_while_a_hub_owns_the_agent(play, tmp_path):
    async def scenario(world: World) -> None:
        async with edge_of(world, tmp_path) as edge:
            await world["a"].owner()
            await world["b"].standby()
            await until(lambda: world.agent.tunnels.standby is not None, "the agent's standby")
            code, body = await edge.ask("/readyz")
            assert (code, body) == (
                200,
                {"status": "ready", "reasons": [], "owner": True, "standby": True, "targets": {"echo": "up"}},
            )
            assert await edge.ask("/healthz") == (200, {"status": "ok"})
            status = (await edge.ask("/status"))[1]
            assert status["role"] == "agent" and status["agent_id"] == "canary"
            assert [(one["state"], one["replica"]) for one in status["tunnels"]] == [
                ("owner", "hub-a"),
                ("standby", "hub-b"),
            ]
            metrics = await edge.metrics()
            assert metrics["nowconnect_agent_tunnels"] == {("owner",): 1, ("standby",): 1}
            assert metrics["nowconnect_agent_claims_granted_total"] == {(): 1}
            world.agent.stop()
            code, body = await edge.ask("/readyz")
            assert code == 503 and body["status"] == "draining"

    play(scenario)


def test_not_ready_without_a_hub(play, tmp_path):
    async def scenario(world: World) -> None:
        async with edge_of(world, tmp_path) as edge:
            await until(lambda: world.agent.ground.counts.failed["owner"] >= 2, "two dials that failed")
            code, body = await edge.ask("/readyz")
            assert code == 503 and body["status"] == "not_ready" and body["reasons"] == ["no_owner"]
            last = (await edge.ask("/status"))[1]["dials"]["last_failure"]
            assert (last["hub"], last["role"]) == ("ws://127.0.0.1:1/tunnel", "owner") and last["ago_sec"] >= 0
            failed = (await edge.metrics())["nowconnect_agent_connects_failed_total"]
            assert failed["owner",] >= 2 and failed["standby",] == 0

    play(scenario, "", "", hubs=["ws://127.0.0.1:1/tunnel"])


def test_degraded_without_a_target_or_a_standby(play, tmp_path):
    async def scenario(world: World) -> None:
        async with edge_of(world, tmp_path) as edge:
            await world["a"].owner()
            await until(lambda: not world.agent.services.targets["echo"].healthy, "the target withdrawn")
            code, body = await edge.ask("/readyz")
            assert code == 200 and body["status"] == "degraded" and body["targets"] == {"echo": "down"}
            assert set(body["reasons"]) == {"no_standby", "target_down"}
            assert (await edge.metrics())["nowconnect_agent_target_up"] == {("echo",): 0}

    play(scenario, "a", connector={"health": SLOW | {"expect": "never said", "timeout_sec": 0.01}})


def test_every_series_is_there_from_the_start(play, tmp_path):
    async def scenario(world: World) -> None:
        async with edge_of(world, tmp_path) as edge:
            metrics = await edge.metrics()
            absent = {"nowconnect_agent_token_expires_seconds", "nowconnect_certificate_expires_seconds"}
            assert {metric.name for metric in METRICS} - metrics.keys() == absent  # no JWT, no certificate
            assert metrics["nowconnect_agent_flows_closed_total"] == {(reason,): 0 for reason in FLOWS_CLOSED}
            assert metrics["nowconnect_agent_target_bytes_total"] == {("to",): 0, ("from",): 0}
            assert metrics["process_open_fds"][()] > 0

    play(scenario)


def test_how_long_token_and_certificate_count(play, tmp_path):
    authority = trustme.CA()
    file = tmp_path / "site.pem"

    def issue(days: int) -> None:
        of = authority.issue_cert("site-1", not_after=datetime.now(UTC) + timedelta(days=days))
        file.write_bytes(of.private_key_and_cert_chain_pem.bytes())

    issue(10)

    async def scenario(world: World) -> None:
        world.token_file.write_text(jwt.encode({"sub": "canary", "exp": time.time() + 3000}, "k" * 32))
        await world.agent.token.read()
        async with edge_of(world, tmp_path) as edge:
            metrics = await edge.metrics()
            assert 0 < metrics["nowconnect_agent_token_expires_seconds"][()] <= 3000
            assert 9 * 86400 < metrics["nowconnect_certificate_expires_seconds"]["client",] <= 10 * 86400
            issue(90)
            status = (await edge.ask("/status"))[1]
            assert 89 * 86400 < status["certificates"]["client"] <= 90 * 86400
            world.token_file.write_text(jwt.encode({"sub": "another", "exp": time.time() + 3000}, "k" * 32))
            await world.agent.token.read()
            body = (await edge.ask("/readyz"))[1]
            assert "token_unfit" in body["reasons"]
            assert "sub is another" in (await edge.ask("/status"))[1]["token"]["fault"]

    play(scenario, tls={"cert_file": str(file), "key_file": str(file)})


def test_it_answers_nothing_else_and_no_page(play, tmp_path):
    async def scenario(world: World) -> None:
        async with edge_of(world, tmp_path) as edge:
            for unix in (False, True):
                assert (await edge.ask("/healthz?x=1", unix=unix))[0] == 200
                assert (await edge.ask("/healthz", method="HEAD", unix=unix)) == (200, "")
                assert (await edge.ask("/drain", method="POST", unix=unix))[0] == 404
                assert (await edge.ask("/status", method="POST", unix=unix))[0] == 405
            assert (await edge.ask("/status", host="rebound.example"))[0] == 421
            assert (await edge.ask("/status", host="[::1]:9410"))[0] == 200
            assert stat.S_IMODE(edge.unix.stat().st_mode) == 0o600

    play(scenario)


def test_nothing_stays_open_when_one_cannot_be_bound(play, tmp_path):
    async def scenario(world: World) -> None:
        (tmp_path / "taken").write_text("no socket")
        admin = Admin(Standing(world.agent), world.agent.net)
        with pytest.raises(OSError, match=r"admin\.unix"):
            await admin.start(AgentAdmin.model_validate({"bind": "127.0.0.1:0", "unix": str(tmp_path / "taken")}))
        name, _, port = admin.address.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(name, int(port))

    play(scenario)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({}, "neither bind nor unix"),
        ({"bind": "0.0.0.0:9410"}, "others than this machine"),
        ({"bind": ":9410"}, "others than this machine"),
        ({"bind": "10.0.0.7:9410"}, "others than this machine"),
    ],
)
def test_an_edge_that_others_would_reach_is_refused(section, says):
    with pytest.raises(ValueError, match=says):
        AgentAdmin.model_validate(section)


def test_names_say_whose_they_are():
    """An agent's series beside a hub's in one Prometheus: only what both mean alike is called alike."""
    both = {metric.name for metric in METRICS} & {metric.name for metric in HUB_METRICS}
    assert both == {
        "nowconnect_agent_token_expires_seconds",
        "nowconnect_certificate_expires_seconds",
        "nowconnect_otlp_records_total",
    }
    assert all(re.match("nowconnect_(agent|certificate|otlp)_", metric.name) for metric in METRICS)
