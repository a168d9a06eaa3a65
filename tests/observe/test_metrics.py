"""Metrics: right numbers, valid exposition, bounded series, and a page of documentation that is true."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.fake_hub import FakeHub, whole

from ncfast.mesh.states import LinkState
from ncfast.observe import exposition, labels, metrics
from ncfast.observe.families import METRICS
from ncfast.observe.histogram import Histogram
from ncfast.observe.metrics import LABEL_CAP, OTHER, PEER_CAP, Metrics
from ncfast.observe.readings import LINK_STATES
from ncfast.observe.stats import ListenerStats, Stats

DOCS = Path(__file__).parents[2] / "docs"


def scrape(exposition: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels; a second one of the same would be an error to Prometheus."""
    samples = {}
    for family in text_string_to_metric_families(asyncio.run(exposition.exposition()).decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, key
            samples[key] = sample.value
    return samples


def value(samples, name, **labels):
    return samples[f"nowconnect_{name}", tuple(sorted(labels.items()))]


PAIRS = {"mesh_drops", "shadow_decisions", "shadow_clients"}  # counted by two labels
SHOWN_OTHERWISE = {"listeners", "config_refused"}  # a table, and a flag


def test_every_counter_of_stats_reaches_the_exposition():
    """Each field gets its own number; every number must be found again."""
    hub = FakeHub()
    expected = {}
    fields = [(hub.stats, field.name) for field in dataclasses.fields(Stats) if field.name not in SHOWN_OTHERWISE]
    fields += [(hub.stats.listener("l0"), field.name) for field in dataclasses.fields(ListenerStats)]
    for number, (stats, name) in enumerate(fields, start=1001):
        current = getattr(stats, name)
        if isinstance(current, Histogram):
            for _ in range(number):
                current.observe(0.001)
        elif isinstance(current, int):
            setattr(stats, name, number)
        else:
            current[("some", "other") if name in PAIRS else "some"] = number
        expected[name] = float(number)
    one = hub.stats.listener("l0")  # its bytes come by way of the totals, with those of flows that are open
    hub.bytes["listeners"] = {"l0": {"in": one.bytes_in, "out": one.bytes_out}}
    found = set(scrape(Metrics(hub)).values())
    assert not {name for name, number in expected.items() if number not in found}


def test_numbers():
    hub = FakeHub(listeners=2, agents=3, connectors=2)
    hub.stats.flows_opened = 10
    hub.stats.listener("l0").flows_closed.update(fin=6, reset=1)
    hub.stats.config_refused = True
    hub.active = 3
    hub.links["frames_in"]["M_DATA"] = 5
    hub.stats.listener("l1").open_latency.observe(0.001)
    hub.stats.listener("l1").open_latency.observe(0.3)
    hub.bytes["listeners"] = {"l0": {"in": 7, "out": 8}}
    hub.listeners[1]["accepting"] = False
    samples = scrape(Metrics(hub))
    assert value(samples, "flows_opened_total") == 10
    assert value(samples, "flows_closed_total", listener="l0", reason="fin") == 6
    assert value(samples, "flows_closed_total", listener="l1", reason="closed") == 0
    assert value(samples, "client_in_bytes_total", listener="l0") == 7
    assert value(samples, "client_out_bytes_total", listener="l0") == 8
    assert value(samples, "config_refused") == 1
    assert value(samples, "cluster_info", cluster="ncfast", replica="hub-a") == 1
    assert value(samples, "mode", mode="off") == 1 and value(samples, "mode", mode="active") == 0
    assert value(samples, "listener_agents", listener="l0") == 3
    assert value(samples, "flows_active") == 3
    assert value(samples, "flows_unaccounted") == 0
    assert value(samples, "frames_total", direction="in", type="M_DATA") == 5
    assert value(samples, "open_latency_seconds_bucket", listener="l1", le="0.001") == 1
    assert value(samples, "open_latency_seconds_bucket", listener="l1", le="+Inf") == 2
    assert value(samples, "open_latency_seconds_count", listener="l1") == 2
    assert value(samples, "open_latency_seconds_count", listener="l0") == 0
    assert value(samples, "open_latency_seconds_sum", listener="l1") == pytest.approx(0.301)
    assert value(samples, "connector_agents", connector="c0") == 2
    assert value(samples, "tunnel_inflight_bytes") == 300
    assert value(samples, "listener_accepting", listener="l1") == 0
    assert value(samples, "state", state="serving") == 1
    assert value(samples, "readiness", status="ready") == 1
    assert samples["process_resident_memory_bytes", ()] > 0
    assert samples["process_open_fds", ()] > 0


def test_numbers_of_a_cluster():
    hub = FakeHub(agents=3, connectors=1, peers=2)
    hub.stats.mesh_rtt.observe(0.0002)
    hub.stats.mesh_drops["peer-1", "queue"] = 4
    hub.stats.mesh_reconnects = 5
    hub.stats.mesh_errors = 6
    hub.stats.shadow_decisions["mesh", "no"] = 7
    hub.stats.claims["redis"] = 8
    hub.stats.epochs_refused = 9
    hub.links["duplicates"] = 10
    hub.mesh_frames["in"]["M_DATA"] = 11
    hub.rows[2]["standby"] = True
    hub.cluster["mesh"][1]["state"] = "backoff"
    hub.cluster["replicas"][2]["linked"] = False
    samples = scrape(Metrics(hub))
    assert value(samples, "mesh_links", peer="peer-0", state="up") == 1
    assert value(samples, "mesh_links", peer="peer-1", state="up") == 0
    assert value(samples, "mesh_links", peer="peer-1", state="backoff") == 1
    assert value(samples, "mesh_frames_total", dir="in", type="M_DATA") == 11
    assert value(samples, "mesh_rtt_seconds_bucket", le="0.00025") == 1
    assert value(samples, "owner_epoch_mismatch_total") == 9
    assert value(samples, "cid_dedup_dropped_total") == 10
    assert value(samples, "mesh_backpressure_drops_total", peer="peer-1", reason="queue") == 4
    assert value(samples, "mesh_link_reconnects_total") == 5
    assert value(samples, "mesh_link_errors_total") == 6
    assert value(samples, "mesh_link_queued_frames", peer="peer-0") == 3
    assert value(samples, "mesh_link_inflight_bytes", peer="peer-0") == 4096
    assert value(samples, "shadow_decisions_total", decision="mesh", agrees="no") == 7
    assert value(samples, "ownership_claims_total", result="redis") == 8
    assert value(samples, "agents") == 2 and value(samples, "agents_standby") == 1
    assert value(samples, "connector_agents", connector="c0") == 2
    assert value(samples, "registry_healthy") == 1 and value(samples, "registry_view_age_seconds") == 0.25
    assert value(samples, "registry_breaker", state="closed") == 1
    assert value(samples, "registry_breaker", state="open") == 0
    assert value(samples, "cluster_replicas", linked="yes") == value(samples, "cluster_replicas", linked="no") == 1


@pytest.mark.parametrize("absent", [True, False])
def test_a_hub_without_a_cluster_has_no_series_of_one(absent):
    hub = FakeHub()
    totals = whole(hub.totals())
    for key in ("cluster", "mesh_frames") if absent else ():
        del totals[key]
    if absent:
        del totals["flows"]["by_path"], totals["flows"]["relayed"]

    def given():
        yield
        return totals

    hub.totals = given
    samples = scrape(Metrics(hub))
    names = {name for name, _ in samples}
    gauges = {m.name for m in METRICS if m.kind == "gauge" and ("registry" in m.name or "mesh_link" in m.name)}
    assert gauges and not gauges & names
    assert value(samples, "agents") == 1 and value(samples, "flows_relayed") == 0


def test_the_registry_in_memory_has_no_view_to_grow_old():
    hub = FakeHub(peers=1)
    hub.cluster["registry"]["view_age_sec"] = None
    names = {name for name, _ in scrape(Metrics(hub))}
    assert "nowconnect_registry_healthy" in names and "nowconnect_registry_view_age_seconds" not in names


def test_states_of_links_are_those_of_the_mesh():
    assert list(LINK_STATES) == [state.value for state in LinkState]


def test_the_names_that_were_agreed():
    agreed = {
        "nowconnect_mesh_links": ("peer", "state"),
        "nowconnect_mesh_frames_total": ("dir", "type"),
        "nowconnect_mesh_rtt_seconds": (),
        "nowconnect_owner_epoch_mismatch_total": (),
        "nowconnect_cid_dedup_dropped_total": (),
        "nowconnect_mesh_backpressure_drops_total": ("peer", "reason"),
        "nowconnect_mesh_link_reconnects_total": (),
        "nowconnect_mesh_link_errors_total": (),
        "nowconnect_shadow_decisions_total": ("decision", "agrees"),
    }
    there = {metric.name: metric.labels for metric in METRICS}
    assert {name: there.get(name) for name in agreed} == agreed


def test_a_lost_flow_shows():
    hub = FakeHub()
    hub.stats.flows_opened = 2
    hub.active = 1
    assert value(scrape(Metrics(hub)), "flows_unaccounted") == 1


def test_a_lost_relay_shows():
    hub = FakeHub(peers=1)
    hub.stats.relays_opened, hub.stats.relays_resumed, hub.stats.relays_ended = 3, 2, 4
    assert value(scrape(Metrics(hub)), "relays_unaccounted") == 1


def test_syntax_and_naming_as_promtool_wants_them():
    hub = FakeHub()
    hub.links["frames_in"]["M_DATA"] = 1
    text = whole(Metrics(hub).render()).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name]
        assert family.type == metric.kind
        assert family.documentation == metric.help and metric.help.endswith(".")
    for metric in (*METRICS, metrics.OVERFLOW):
        assert re.fullmatch(r"nowconnect_[a-z][a-z0-9_]*[a-z0-9]", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.name.endswith("_seconds") or metric.kind != "histogram"
        assert not set(metric.labels) & {"le", "quantile"}
        assert not set(metric.labels) & {"cid", "agent", "agent_id", "client", "remote", "sub", "tenant"}
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert text.endswith("\n")


def test_hostile_label_values_stay_one_sample_each():
    hub = FakeHub()
    texts = ['a"b', "a\nb", "a\\b", "\ud800", "x" * 500, "", '"} 1\nnowconnect_forged 1']
    for text in texts:
        hub.stats.protocol_errors[text] = 1
    samples = scrape(Metrics(hub))
    reasons = {
        dict(labels)["reason"]: v for (name, labels), v in samples.items() if name == "nowconnect_protocol_errors_total"
    }
    assert sum(reasons.values()) == len(texts)
    assert reasons['a"b'] == reasons["a\nb"] == reasons["a\\b"] == 1
    assert not [name for name, _ in samples if name == "nowconnect_forged"]


def test_series_stay_bounded_whatever_is_counted():
    """100,000 reasons, 10,000 connectors and as many agents, 1,000 peers: a bounded answer, and no sum is lost."""
    hub = FakeHub(listeners=300, agents=10_000, connectors=10_000, peers=1000)
    for number in range(100_000):
        hub.stats.listener("l0").shed[f"reason-{number}"] = 1
    exposition = Metrics(hub)
    for _ in range(2):
        text = whole(exposition.render())
        samples = scrape(exposition)
        assert len(samples) <= 17_000 and len(text) <= 3 << 20
        shed = {labels: v for (name, labels), v in samples.items() if name == "nowconnect_accept_shed_total"}
        others = value(samples, "accept_shed_total", listener="l0", reason=OTHER)
        assert sum(shed.values()) == 100_000 and others >= 100_000 - LABEL_CAP
        assert value(samples, "label_overflow", label="reason") == others
        assert value(samples, "flows_closed_total", listener="l0", reason="internal") == 0  # not crowded out
        assert value(samples, "label_overflow", label="listener") == 100
        assert value(samples, "label_overflow", label="peer") == 1000 - PEER_CAP
        assert value(samples, "mesh_links", peer=OTHER, state="up") == 1000 - PEER_CAP
        assert value(samples, "connector_agents", connector="c0") == 1
    assert b"canary" not in text and b"198.51.100" not in text  # no agent, no address


def test_configured_connectors_keep_their_series_when_agents_announce_many():
    hub = FakeHub(listeners=3, agents=1000, connectors=1000)
    hub.listeners[2]["connector"] = "c999"
    exposition = Metrics(hub)
    assert value(scrape(exposition), "connector_agents", connector="c999") == 1


def offers(hub: FakeHub, *connectors: str) -> None:
    """One agent does, and no other is there."""
    hub.rows = [{**hub.rows[0], "connectors": list(connectors)}]


def test_connectors_that_are_gone_give_their_series_back():
    """An agent announces 250 names, again and again; then another has one of its own."""
    hub = FakeHub()
    exposition = Metrics(hub)
    for number in range(4):
        offers(hub, *(f"round-{number}-{name}" for name in range(250)))
        scrape(exposition)  # in which those of the round before are missed
        samples = scrape(exposition)
        assert value(samples, "connector_agents", connector=f"round-{number}-0") == 1
        assert value(samples, "connector_agents", connector=OTHER) == 251 - LABEL_CAP  # one is a listener's
    offers(hub, "honest")
    scrape(exposition)
    samples = scrape(exposition)
    assert value(samples, "connector_agents", connector="honest") == 1
    assert value(samples, "label_overflow", label="connector") == 0


def test_a_scrape_that_nobody_waited_for_gives_nothing_back():
    hub = FakeHub()
    offers(hub, *(f"c{number}" for number in range(2 * LABEL_CAP)))
    exposition = Metrics(hub)
    before = scrape(exposition)
    given_up = exposition.render()
    next(given_up)
    given_up.close()
    assert value(before, "connector_agents", connector="c7") == 1
    assert value(scrape(exposition), "connector_agents", connector="c7") == 1


def test_a_listener_that_comes_later_has_its_own_series():
    hub = FakeHub(listeners=2)
    offers(hub, *(f"c{number}" for number in range(2 * LABEL_CAP)))
    exposition = Metrics(hub)
    scrape(exposition)
    hub.listeners[1]["connector"] = f"c{2 * LABEL_CAP - 1}"
    samples = scrape(exposition)
    assert value(samples, "connector_agents", connector=f"c{2 * LABEL_CAP - 1}") == 1
    assert value(samples, "connector_agents", connector=OTHER) == LABEL_CAP  # the agent's; c0 is a listener's as well


def test_a_family_is_cut_and_stays_one(monkeypatch):
    """Listeners times reasons are thousands of samples: not all in one slice, and under one head."""
    hub = FakeHub(listeners=50)
    most = 0

    def counted(collector):
        nonlocal most
        most = max(most, *(len(family.samples) for family in collector.collect()), 0)
        return generate_latest(collector)

    monkeypatch.setattr(exposition, "generate_latest", counted)
    text = whole(Metrics(hub).render()).decode()
    heads = [line for line in text.splitlines() if line.startswith("# TYPE nowconnect_flows_closed_total ")]
    assert len(heads) == 1 and most == metrics.SAMPLES
    assert text.count("\nnowconnect_flows_closed_total{") == 50 * len(labels.FLOWS_CLOSED)


def test_what_a_counter_has_added_up_under_other_stays_there():
    """Room that gauges give back is not for it: its sum would go back."""
    hub = FakeHub(listeners=LABEL_CAP)
    for number in range(LABEL_CAP):
        hub.stats.listener(f"l{number}").accepted = 1
    late = [hub.stats.listener(f"late-{number}") for number in range(10)]
    for one in late:
        one.accepted = 5
    exposition = Metrics(hub)
    assert value(scrape(exposition), "accepted_total", listener=OTHER) == 50
    del hub.listeners[50:]
    for one in late:
        one.accepted = 10
    for _ in range(3):
        assert value(scrape(exposition), "accepted_total", listener=OTHER) == 100


def test_counters_never_go_back_between_scrapes():
    hub = FakeHub(listeners=300)
    exposition = Metrics(hub)
    before = {}
    for round_number in range(5):
        for number in range(300):
            hub.stats.listener(f"l{(number + 37 * round_number) % 300}").accepted += 1
        now = {key: v for key, v in scrape(exposition).items() if key[0] == "nowconnect_accepted_total"}
        assert all(now[key] >= v for key, v in before.items())
        before = now
    assert sum(before.values()) == 1500


def test_histogram_bounds_are_inclusive():
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.100001, 1.0, 5.0):
        histogram.observe(seconds)
    assert histogram.cumulative() == [("0.1", 2), ("1.0", 4), ("+Inf", 5)]


def test_stats_refuse_a_misspelt_counter():
    with pytest.raises(AttributeError):
        Stats().flow_opened = 1


def test_the_documentation_page_is_what_the_table_says():
    page = (DOCS / "metrics.md").read_text()
    assert page == metrics.document(), "python -m ncfast.observe.metrics > docs/metrics.md"
