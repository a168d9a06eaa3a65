"""Lines of the log as records: names, times, any line that there can be; and what a process says without the extra."""

from __future__ import annotations

import io
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.collector import collector
from support.until import wait_until

from ncfast.config.otlp import Otlp
from ncfast.observe import log
from ncfast.observe.log.fields import FIELDS
from ncfast.observe.otlp import Outlet, Wish
from ncfast.observe.otlp.attributes import NAMES, PLACES, attributes, nanoseconds

ROOT = Path(__file__).parents[2]
LINE = {"ts": "2026-11-27T06:31:09.123Z", "level": "info", "event": "flow_closed", "logger": "access"}


def wish(endpoint: str, **keys: Any) -> Wish:
    config = Otlp.model_validate({"endpoint": endpoint, "interval_sec": 0.05, **keys})
    return Wish(config, (), "ncfast-hub", "hub-a", "none")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("192.0.2.7:389", {"client.address": "192.0.2.7", "client.port": 389}),
        ("[2001:db8::7]:389", {"client.address": "2001:db8::7", "client.port": 389}),
        ("192.0.2.7", {"client.address": "192.0.2.7"}),
        ("2001:db8::7", {"client.address": "2001:db8::7"}),
        ("192.0.2.0/24", {"client.address": "192.0.2.0/24"}),
        ("2001:db8::/48", {"client.address": "2001:db8::/48"}),
        ("0123456789ab", {"client.address": "0123456789ab"}),
        ("", {"client.address": ""}),
        (None, {}),
    ],
)
def test_an_address_is_parted_from_its_port(shown, expected):
    assert attributes({"client": shown}) == expected


def test_other_fields_keep_their_names():
    line = {"ts": "", "level": "info", "event": "e", "logger": "l", "error": "OSError(EIO)", "epoch": 2**64 - 1}
    assert attributes(line | {"cid": "0a", "held_ms": None, "replica": ["a", 2**63]}) == {
        "error.type": "OSError(EIO)",
        "ncfast.epoch": "18446744073709551615",
        "ncfast.cid": "0a",
        "ncfast.replica": ["a", "9223372036854775808"],
    }
    assert {*PLACES, *NAMES} <= FIELDS


def test_a_time_keeps_its_milliseconds():
    assert [nanoseconds(f"2026-11-27T06:31:09.{ms:03}Z") for ms in range(1000)] == [
        1795761069_000_000_000 + ms * 1_000_000 for ms in range(1000)
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([2**63, 2**64 - 1]) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUES, max_size=4), min_size=1, max_size=4))
def test_any_line_can_be_sent(several):
    """With all that is in it: the library leaves out what it cannot encode."""
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

    from ncfast.observe.otlp.client import Client

    lines: list[dict[str, Any]] = []
    log.setup("debug", "json", stream=io.StringIO(), clock=iter(range(1000)).__next__)
    log.also(lines.append)
    try:
        for fields in several:
            log.get("test").info("said", **fields)
    finally:
        log.also(None)
        log.setup()
    client = Client(wish("http://127.0.0.1:4318/v1/logs"))
    (of_resource,) = encode_logs([client._record(line) for line in lines]).resource_logs
    (of_scope,) = of_resource.scope_logs
    for line, record in zip(lines, of_scope.log_records, strict=True):
        assert [one.key for one in record.attributes] == list(attributes(line))
    assert len(lines) == len(several) and all(orjson.dumps(line) for line in lines)  # as they were


def test_the_queue_follows_to_another_collector():
    """What waits for one that is away goes to the one that is named instead."""
    outlet = Outlet()
    with collector(status=400) as wrong, collector() as right:
        outlet.follow(wish(wrong.endpoint))
        outlet.put(LINE)
        wait_until(lambda: outlet.results["failed"] == 1)
        outlet.follow(wish(right.endpoint, interval_sec=300))
        outlet.put(LINE | {"event": "tunnel_up"})  # not asked for
        outlet.put(LINE)
        outlet.follow(wish(right.endpoint, flush_sec=300))
        wait_until(lambda: outlet.results["exported"] == 1)
        outlet.follow(None)
        outlet.put(LINE)
        outlet.close()
    assert outlet.results == {"exported": 1, "dropped": 0, "failed": 1}
    assert (len(wrong.taken), [record.body for record in right.taken]) == (0, ["flow_closed"])


def test_tls_is_proven_both_ways(tmp_path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")  # which requests would ask before the file's word
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours = ca.issue_cert("hub-a")
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in ours.cert_chain_pems))
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    named = {name: str(tmp_path / f"{name.removesuffix('_file')}.pem") for name in ("ca_file", "cert_file", "key_file")}
    outlet = Outlet()
    with collector(tls=context) as at:
        for number, tls in enumerate(({}, {"ca_file": named["ca_file"]})):  # not trusted by us; not trusting us
            outlet.follow(wish(at.endpoint, tls=tls, timeout_sec=0.5))
            outlet.put(LINE)
            wait_until(lambda n=number: outlet.results["failed"] == n + 1)
        assert not at.asked
        outlet.follow(wish(at.endpoint, tls=named, timeout_sec=300, flush_sec=300))
        outlet.put(LINE)
        outlet.close()
    assert outlet.results == {"exported": 1, "dropped": 0, "failed": 2}


def test_a_defect_costs_its_batch_alone():
    outlet = Outlet()
    with collector() as at:
        outlet.follow(wish(at.endpoint, flush_sec=300))
        outlet.put(LINE | {"ts": "never"})
        wait_until(lambda: outlet.results["failed"] == 1)
        outlet.put(LINE)
        outlet.close()
    assert outlet.results == {"exported": 1, "dropped": 0, "failed": 1}


@pytest.fixture
def without_library(tmp_path):
    """Runs a command where the extra is not installed."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        hides = "import sys; sys.modules['opentelemetry'] = None; from ncfast.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", hides, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("kind", ["hub", "agent"])
def test_without_the_extra_a_configuration_is_refused(without_library, tmp_path, kind):
    path = tmp_path / f"{kind}.yaml"
    base = yaml.safe_load((ROOT / "config" / f"{kind}.yaml").read_text())
    path.write_text(yaml.safe_dump(base | {"otlp": {"endpoint": "http://127.0.0.1:4318/v1/logs"}}))
    for arguments in ([kind, "--config", str(path)], ["check", str(path)]):
        done = without_library(*arguments)
        assert done.returncode == 78, done
        assert re.search(
            r": otlp: OpenTelemetry's exporter is not installed; pip install 'ncfast\[otlp\]'", done.stderr
        )
    path.write_text(yaml.safe_dump(base))
    assert "OpenTelemetry" not in without_library("check", str(path)).stderr
