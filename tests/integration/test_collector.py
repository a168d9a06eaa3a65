"""Flows as OTLP log records: what a collector is sent of real hubs and agents, and that nothing depends on it."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.collector import Collector, Record, collector
from support.ncfast_process import Hub, merged
from support.peer import Peer, byte_exact, run_flow
from support.topology import MakeTopology, Topology
from support.until import PATIENCE, wait_until

from ncfast.observe.otlp.attributes import attributes, nanoseconds

RECORDS = "nowconnect_otlp_records_total"
FAST = {"interval_sec": 0.05, "flush_sec": PATIENCE}


def flows(made: Topology, peer: Peer, count: int, size: int = 10) -> None:
    """One after the other, each seen to the end."""
    script: list[Any] = [["send", size], ["fin"], ["drain"]]
    for _ in range(count):
        both = asyncio.run(run_flow(peer, made.address("peer"), seed=peer.next_seed(), client=script, service=script))
        byte_exact(both.client, size)


def results(hub: Hub) -> dict[str, int]:
    return {key[0]: int(value) for key, value in hub.metric_by(RECORDS).items()}


def arrived(at: Collector, service: str, count: int) -> list[Record]:
    wait_until(lambda: len(at.of(service)) >= count, lambda: f"{count} records of {service}: {at.taken}")
    assert len(at.of(service)) == count
    return at.of(service)


def test_a_collector_is_sent_the_access_log(topology: MakeTopology, peer: Peer, tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("Authorization: Bearer of-the-test\n\nX-Scope-OrgID: tenant-1\n")
    headers.chmod(0o600)
    with collector() as at:
        otlp = {"otlp": {"endpoint": at.endpoint, "headers_file": str(headers), **FAST}}
        made = topology({"peer": peer.address}, hub=otlp, agent=otlp)
        flows(made, peer, 3)
        sent = arrived(at, "ncfast-hub", 3)
        by_agent = arrived(at, "ncfast-agent", 3)
        assert (at.headers["authorization"], at.headers["x-scope-orgid"]) == ("Bearer of-the-test", "tenant-1")
        wait_until(lambda: results(made.hub) == {"exported": 3, "dropped": 0, "failed": 0}, "the hub's count")
        lines = made.hub.access_lines()
        for record, line in zip(sent, lines, strict=True):
            assert (record.scope, record.event, record.body) == ("access", "ncfast.flow_closed", "flow_closed")
            assert record.severity == (9, "info")
            assert (record.at_ns, record.attributes) == (nanoseconds(line["ts"]), attributes(line))
            host, _, port = line["client"].rpartition(":")
            assert (record.attributes["client.address"], record.attributes["client.port"]) == (host, int(port))
            assert record.attributes["ncfast.bytes_out"] == 10 < record.attributes["ncfast.bytes_in"]
            assert record.attributes["ncfast.agent_id"] == "site-1"
        assert {one.attributes["ncfast.cid"] for one in by_agent} == {line["cid"] for line in lines}
        assert by_agent[0].resource["service.instance.id"] == "site-1"
        made.check()  # while the collector is there


def test_what_the_log_masks_is_masked(topology: MakeTopology, peer: Peer) -> None:
    with collector() as at:
        masked = {
            "logging": {"mask": "truncate", "mask_agents": "truncate"},
            "otlp": {"endpoint": at.endpoint, "events": ["*"], **FAST},
        }
        made = topology({"peer": peer.address}, hub=masked, agent=masked)
        flows(made, peer, 1)
        made.agent.stop()
        made.hub.log.wait("agent_disconnected")
        made.check()
        (closed,) = [record for record in at.of("ncfast-hub") if record.event == "ncfast.flow_closed"]
        assert closed.attributes["client.address"] == "127.0.0.0/24" and "client.port" not in closed.attributes
        assert {one.resource["service.instance.id"] for one in at.of("ncfast-agent")} == {"sit…"}
        lines = Counter(line["event"] for line in made.hub.log.events())
        assert Counter(record.body for record in at.of("ncfast-hub")) == lines
        assert b"site-1" not in at.raw and f"127.0.0.1:{peer.address[1]}".encode() not in at.raw


@pytest.mark.parametrize("trouble", ["http_500", "unreachable"])
def test_a_collector_that_fails_costs_records_alone(topology: MakeTopology, peer: Peer, trouble: str) -> None:
    with collector() as at, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        endpoint = at.endpoint
        if trouble == "unreachable":
            endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/logs"
        else:
            at.status = int(trouble.removeprefix("http_"))
        otlp = {"otlp": {"endpoint": endpoint, "timeout_sec": 0.5, **FAST, "flush_sec": 0}}
        made = topology({"peer": peer.address}, hub=otlp, agent=otlp)
        flows(made, peer, 5, size=1 << 20)
        wait_until(lambda: results(made.hub)["failed"] == 5, lambda: f"five given up: {results(made.hub)}")
        assert results(made.hub) == {"exported": 0, "dropped": 0, "failed": 5}
        made.hub.log.wait("otlp_failed", reason=trouble)
        made.hub.check_conservation()  # a line of the log for each
        said = [line["event"] for line in made.hub.log.events() if line["logger"] in ("otlp", "library")]
        assert said == ["otlp_failed"], "once, and the library says nothing besides"
        if trouble == "http_500":
            at.status = 200
            flows(made, peer, 1)
            made.hub.log.wait("otlp_back")
            assert len(arrived(at, "ncfast-hub", 1)) == 1


def test_what_does_not_fit_is_dropped_and_counted(topology: MakeTopology, peer: Peer) -> None:
    """And an end that would have to wait for the collector does not."""
    with collector(gate=threading.Event()) as at:
        slow = {"endpoint": at.endpoint, "batch_max": 1, "queue_max": 3, "timeout_sec": 300, **FAST, "flush_sec": 0}
        made = topology({"peer": peer.address}, hub={"otlp": slow})
        flows(made, peer, 1)
        wait_until(lambda: at.asked, "the first request")
        flows(made, peer, 9)
        wait_until(lambda: results(made.hub)["dropped"] == 6, lambda: f"six dropped: {results(made.hub)}")
        assert results(made.hub) == {"exported": 0, "dropped": 6, "failed": 0}
        made.check()
        assert made.hub.log.events("otlp_unsent")[0]["count"] == 3
        assert not at.taken


def test_an_orderly_end_sends_what_waits(topology: MakeTopology, peer: Peer) -> None:
    with collector() as at:
        otlp = {"otlp": {"endpoint": at.endpoint, "interval_sec": 300, "batch_max": 4, "flush_sec": PATIENCE}}
        made = topology({"peer": peer.address}, hub=otlp, agent=otlp)
        flows(made, peer, 10)
        assert not at.asked
        made.check()
        assert (len(at.of("ncfast-hub")), len(at.of("ncfast-agent")), at.asked) == (10, 10, 6)


def test_a_reload_begins_moves_and_ends_it(topology: MakeTopology, peer: Peer, tmp_path: Path) -> None:
    with collector() as first, collector() as second:
        made = topology({"peer": peer.address})
        hub, plain = made.hub, dict(made.hub.config)
        flows(made, peer, 1)
        assert hub.reload(merged(plain, {"otlp": {"endpoint": first.endpoint, **FAST}}))
        flows(made, peer, 1)
        arrived(first, "ncfast-hub", 1)
        assert hub.reload(merged(plain, {"otlp": {"endpoint": second.endpoint, **FAST}}))
        flows(made, peer, 1)
        arrived(second, "ncfast-hub", 1)
        no_header = tmp_path / "headers"
        no_header.write_text("of-the-test\n")
        no_header.chmod(0o600)
        refused = {"endpoint": first.endpoint, "headers_file": str(no_header), **FAST}
        assert not hub.reload(merged(plain, {"otlp": refused}))
        problem = hub.log.events("config_refused")[0]["problems"][0]
        assert "otlp.headers_file" in problem and "line 1" in problem and "of-the-test" not in problem
        hub.expected_errors = frozenset({"config_refused"})
        flows(made, peer, 1)
        arrived(second, "ncfast-hub", 2)
        assert hub.reload(plain)
        agent = made.agent
        agent.config_path.write_text(yaml.safe_dump(agent.config | {"otlp": {"endpoint": first.endpoint, **FAST}}))
        agent.program.signal(signal.SIGHUP)
        agent.log.wait("config_reloaded")
        flows(made, peer, 1)
        made.check()
        assert (len(first.of("ncfast-hub")), len(second.of("ncfast-hub"))) == (1, 2)
        assert (len(first.of("ncfast-agent")), len(second.of("ncfast-agent"))) == (1, 0)
        assert not hub.log.events("restart_needed")
