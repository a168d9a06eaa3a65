"""Counters are born with every value that the code can count: the words of `ncfast.observe.labels` are the code's."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from support.fake_hub import FakeHub, whole

from ncfast.auth.errors import REASONS
from ncfast.hub.claims import BROKEN
from ncfast.hub.level import EVENTS
from ncfast.hub.shadow import SERVED
from ncfast.net.names import OUTCOMES
from ncfast.observe import labels
from ncfast.observe.families import METRICS
from ncfast.observe.metrics import Metrics
from ncfast.registry.redis.connection import DENIED, TROUBLES

NCFAST = Path(__file__).parents[2] / "ncfast"


def words(pattern: str, *files: str) -> set[str]:
    """What the pattern's groups find in files of the package."""
    found: set[str] = set()
    for file in files:
        for match in re.finditer(pattern, (NCFAST / file).read_text()):
            found.update(word for word in match.groups() if word)
    assert found, (pattern, files)
    return found


def mesh_files() -> list[str]:
    return [str(path.relative_to(NCFAST)) for path in sorted((NCFAST / "mesh").glob("*.py"))]


HTTP = words(r'BadRequest\(HTTPStatus\.\w+, "(\w+)"', "net/request.py") - {"bytes_after_request"}  # of the admin edge
REFUSED = r'(?:refuse|refused|Refused|_refuse_http)\(\s*"(\w+)"'


def test_clients_that_are_turned_away():
    said = words(
        r'(?:shed|refuse|_refuse)\(\s*"(\w+)"|return "(\w+)"|refuse, "(\w+)"', "hub/listener.py", "hub/entrance.pyx"
    )
    assert set(labels.SHED) == said | words(r'_on_shed\("(\w+)"\)', "net/acceptor.py") | {"draining"}
    refusals = words(r"_refuse\(flow, Reason\.(\w+)|else Reason\.(\w+) if|Reason\.(\w+) if hopeful", "hub/routing.py")
    refusals |= words(r"locked else Reason\.(\w+)\)", "hub/routing.py")
    assert set(labels.OPENS_REFUSED) == {word.lower() for word in refusals}
    assert set(labels.PROBES) == words(r'FirstByte\([^"\n]*"(\w+)"\)', "hub/listener.py")


def test_agents_that_are_turned_away():
    said = words(r'_refused\("(\w+)"|_refuse\(\s*\d+, "(\w+)"', "hub/edge.py") | {"fd"}
    shown = words(r'Refused\("(\w+)"', "mesh/trust.py") - {"no_client_certificate"}  # then a token may do without
    assert set(labels.HANDSHAKES_REFUSED) == said | HTTP | shown
    assert set(labels.AUTH_FAILED) == set(REASONS) | {"missing"}
    assert set(labels.PROTOCOL_ERRORS) == {reason.label for reason in BROKEN}


def test_hubs_that_are_turned_away():
    assert set(labels.MESH_REFUSED) == words(REFUSED, *mesh_files()) | HTTP | {"fd", "tls"}
    assert set(labels.MESH_DROPS) == words(r'peer\.replica_id, "(\w+)"\)', "mesh/accounts.py")


def test_what_the_registry_says():
    files = [f"registry/redis/{name}.py" for name in ("backend", "connection", "courier", "sentinel")]
    said = words(r'BackendError\("(\w+)"|return "(\w+)"', *files) - {"memory", "redis"}
    said |= {reason for _, reason in TROUBLES} | set(DENIED.groupindex) | words(r'BackendError\(\s*"(\w+)"', *files)
    assert set(labels.REGISTRY_ERRORS) == said
    assert set(labels.CLAIMS) == words(r'claims\["(\w+)"\]', "registry/redis/registry.py", "registry/memory.py")
    assert set(labels.TAKEOVERS) == words(r'takeovers\["(\w+)"\]', "hub/claims.py")


def test_the_other_words():
    assert set(labels.LEVEL_MOVES) == {"asked", *EVENTS}
    assert set(labels.RELOADS) == words(r'config_reloads\["(\w+)"\]', "serve/hub.py")
    assert labels.LOOKUP_OUTCOMES == OUTCOMES
    assert set(labels.DECISIONS) == words(r'decision = "(\w+)"(?: if .* else "(\w+)")?', "hub/shadow.py")
    assert set(labels.SERVED) == set(SERVED.values())


def series(hub: FakeHub) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    families = text_string_to_metric_families(whole(Metrics(hub).render()).decode())
    return {(one.name, tuple(sorted(one.labels.items()))) for family in families for one in family.samples}


def test_every_counter_is_there_before_anything_has_happened():
    hub = FakeHub(listeners=2, peers=1)
    found = series(hub)
    for metric in METRICS:
        if metric.kind == "counter":
            assert any(name == metric.name for name, _ in found), metric.name
            assert len(metric.known) == len(metric.labels), metric.name
    for listener in ("l0", "l1"):
        assert ("nowconnect_flows_closed_total", (("listener", listener), ("reason", "link_lost"))) in found
        assert ("nowconnect_open_latency_seconds_count", (("listener", listener),)) in found
    assert ("nowconnect_mesh_backpressure_drops_total", (("peer", "peer-0"), ("reason", "queue"))) in found


def test_what_happens_adds_no_series():
    hub = FakeHub(listeners=1, peers=1)
    before = series(hub)
    counts = hub.stats.listener("l0")
    counts.flows_closed["link_lost"] += 1
    counts.shed["fd"] += 1
    hub.stats.mesh_drops["peer-0", "away"] += 1
    hub.stats.registry_errors["timeout"] += 1
    hub.stats.shadow_decisions["mesh", "no"] += 1
    hub.mesh_frames["in"]["M_DATA"] = 1
    hub.stats.config_reloads["refused"] += 1
    assert series(hub) == before


def test_a_peer_whose_name_is_not_known_yet_takes_no_place():
    """Until it has said its name it is shown by its URL, and a counter's label is for ever."""
    hub = FakeHub(peers=1)
    hub.cluster["mesh"][0] |= {"state": "dialling", "peer": "tcp://10.0.0.9:1"}
    assert not [labelled for name, labelled in series(hub) if name == "nowconnect_mesh_backpressure_drops_total"]
