"""The collector of config/otel: whole in itself, and of one mind with the product about the names of attributes.

With a collector at hand (`otelcol-contrib` or `otelcol` in the PATH, or its path in $OTELCOL) it runs, and makes of a
real hub's log what the hub itself sends.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.collector import Record, collector
from support.peer import Peer, byte_exact, run_flow
from support.process import Program
from support.topology import Topology
from support.until import PATIENCE, wait_until

from bench.ports import free_port
from ncfast.config.agent import AgentAdmin
from ncfast.config.hub import Admin
from ncfast.observe.otlp.attributes import HEAD, NAMES, PLACES, PREFIX

CONFIG = Path(__file__).parents[2] / "config" / "otel" / "collector.yaml"
KINDS = ("receivers", "processors", "exporters")


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(CONFIG.read_text())


def test_pipelines_are_made_of_what_is_there(config: dict[str, Any]) -> None:
    used: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for pipeline in config["service"]["pipelines"].values():
        for kind in KINDS:
            used[kind] |= set(pipeline[kind])
    assert used == {kind: set(config[kind]) - {"filelog/ncfast"} for kind in KINDS}  # in the place of the journal


def test_the_names_are_those_of_our_own_records(config: dict[str, Any]) -> None:
    text = CONFIG.read_text()
    named = re.findall(r'set\(log\.attributes\["([\w.]+)"\], log\.attributes\["ncfast"\]\["(\w+)"\]\)', text)
    places = {field: f"{place}.address" for field, place in PLACES.items()}
    assert {field: name for name, field in named} == NAMES | places
    assert set(re.findall(r'set\(log\.attributes\["([\w.]+)\.port"\]', text)) == set(PLACES.values())
    deleted = [set(words.split("|")) for words in re.findall(r'delete_matching_keys\(.*"\^\((.*)\)\$"\)', text)]
    assert deleted == [HEAD, NAMES.keys() | PLACES.keys()]
    assert f'Concat(["{PREFIX}", ' in text


def test_metrics_are_scraped_where_they_are(config: dict[str, Any]) -> None:
    jobs = {
        job["job_name"]: job["static_configs"][0]["targets"]
        for job in config["receivers"]["prometheus/ncfast"]["config"]["scrape_configs"]
    }
    shown = re.search(r"127\.0\.0\.1:\d+", AgentAdmin.model_fields["bind"].description or "")
    assert shown is not None
    assert jobs == {"ncfast": [str(Admin().bind)], "ncfast-agent": [shown[0]]}


def test_lines_are_read_alike_from_journal_and_files(config: dict[str, Any]) -> None:
    journal, files = (config["receivers"][name]["operators"][-1] for name in ("journald/ncfast", "filelog/ncfast"))
    assert journal == files and journal["type"] == "json_parser"


@pytest.fixture
def otelcol() -> str:
    found = os.environ.get("OTELCOL") or shutil.which("otelcol-contrib") or shutil.which("otelcol")
    if found is None:
        pytest.skip("no OpenTelemetry Collector on this machine")
    return found


def test_a_real_collector_makes_of_the_log_what_the_hub_sends(
    config: dict[str, Any], otelcol: str, tmp_path: Path
) -> None:
    service = Peer(tmp_path)
    with collector() as sent, collector() as read:
        every = {"endpoint": sent.endpoint, "events": ["*"], "interval_sec": 0.05, "flush_sec": PATIENCE}
        made = Topology(tmp_path, {"peer": service.address}, hub={"otlp": every})
        logs = tmp_path / "logs"
        logs.mkdir()
        (logs / "ncfast-hub.log").symlink_to(made.hub.program.err_path)
        config["receivers"]["filelog/ncfast"]["include"] = [f"{logs}/*.log"]
        config["receivers"]["otlp"]["protocols"]["http"]["endpoint"] = f"127.0.0.1:{free_port()}"
        hub, _ = config["receivers"]["prometheus/ncfast"]["config"]["scrape_configs"]
        hub |= {"scrape_interval": "1s", "static_configs": [{"targets": ["%s:%d" % made.hub.admin]}]}
        config["service"]["pipelines"]["logs/lines"]["receivers"] = ["filelog/ncfast"]
        config["service"]["telemetry"] = {"metrics": {"level": "none"}}
        path = tmp_path / "collector.yaml"
        path.write_text(yaml.safe_dump(config))
        env = {"OTLP_ENDPOINT": read.endpoint.removesuffix("/v1/logs")}
        done = subprocess.run(
            [otelcol, "validate", "--config", str(path)], env=os.environ | env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        program = Program("otelcol", [otelcol, "--config", str(path)], tmp_path, env=env)
        try:
            script: list[Any] = [["send", 10], ["fin"], ["drain"]]
            for _ in range(3):
                both = asyncio.run(
                    run_flow(service, made.address("peer"), seed=service.next_seed(), client=script, service=script)
                )
                byte_exact(both.client, 10)
            wait_until(lambda: b"nowconnect_build_info" in read.raw, program.tail)
            made.check()
            lines = len(made.hub.log.events())
            wait_until(lambda: len(read.of("ncfast-hub")) == lines, program.tail)
        finally:
            program.stop()
            made.close()
            service.stop()
    assert sorted(map(_comparable, read.of("ncfast-hub"))) == sorted(map(_comparable, sent.of("ncfast-hub")))


def _comparable(record: Record) -> str:
    attributes = {name: value for name, value in sorted(record.attributes.items()) if value is not None}
    return repr((record.at_ns, record.scope, record.event, record.body, record.severity, attributes))
