"""The page for people, as text: what it shows, what it bounds, and that no name in it becomes anything but text. How it
looks is seen in a browser (tests/browser)."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_hub import FakeHub, whole

from ncfast.hub.page import page
from ncfast.observe import log
from ncfast.observe.log.notable import KEPT, LONGEST, Notable
from ncfast.observe.page.findings import findings
from ncfast.observe.page.hubs import hubs
from ncfast.observe.page.layout import SECURITY_POLICY
from ncfast.observe.page.view import ORDERS, ROWS, View

VOID = {"meta", "input", "br"}


class Tags(HTMLParser):
    """Collects tags with attributes, and the text; raises for tags that are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def shown(hub: FakeHub, **asked) -> str:
    return whole(page(hub, View(**asked))).decode()


def text_of(hub: FakeHub, **asked) -> str:
    return Tags(shown(hub, **asked)).text


def with_talkers(hub: FakeHub, *changes) -> FakeHub:
    usual = {
        "cid": "00ff", "path": "local", "listener": "l0", "client": "192.0.2.0/24", "agent_id": "site", "age_sec": 5.0,
        "bytes_in": 1, "bytes_out": 2, "held_bytes": 3,
    }  # fmt: skip

    def talkers():
        yield
        return [usual | change for change in changes]

    hub.talkers = talkers
    return hub


@pytest.fixture
def events():
    """What the log has said, told by the page."""
    log.setup(stream=io.StringIO(), format="json")
    log.get("hub").warning("jwks_refresh_failed", reason="timeout")
    log.get("hub").info("hub_ready", edge="127.0.0.1:1")


# the whole


def test_the_page_shows_the_hub_without_outside_help(events):
    text = shown(FakeHub(listeners=2, agents=3))
    tags = Tags(text)
    for word in ("hub-a", "ready", "127.0.0.1:10001", "agent-canary-2", "jwks_refresh_failed", "reason=timeout"):
        assert word in tags.text
    assert not {"img", "link", "iframe", "object"} & set(tags.tags) and tags.tags.count("script") == 1
    links = [value for name, value in tags.attributes if name in ("href", "src", "action")]
    assert links and all(re.match(r"[/#](?!/)", link) for link in links)
    assert not {name for name, _ in tags.attributes if name == "style" or name.startswith("on")}
    for tag in ("style", "script"):
        code = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in SECURITY_POLICY
    assert "default-src 'none'" in SECURITY_POLICY and "unsafe" not in SECURITY_POLICY


def test_it_is_live_or_stands_still():
    live, still = shown(FakeHub()), shown(FakeHub(), live=False)
    assert "<noscript><meta http-equiv=refresh" in live and "<script>" in live
    assert "http-equiv=refresh" not in still and "<script>" not in still
    assert "refresh=off" in live and "Follow" in still


def test_ids_are_given_once_and_what_is_named_by_id_is_there():
    attributes = Tags(shown(with_talkers(FakeHub(2, 3, 2, peers=2), {}))).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for name, value in attributes if name in ("aria-labelledby", "for")} <= set(ids)


def hostile(value, text):
    """The same structure with every string value replaced."""
    if isinstance(value, dict):
        return {key: hostile(entry, text) for key, entry in value.items()}
    if isinstance(value, list):
        return [hostile(entry, text) for entry in value]
    return text if isinstance(value, str) else value


class Hostile(FakeHub):
    """Every name and word of its document is the attack."""

    attack = ""

    def totals(self):
        document = yield from super().totals()
        if not self.attack:
            return document
        states = {"ready": document["ready"], "state": document["state"]}
        return hostile(document, self.attack) | states

    def agents(self, take):
        yield from super().agents(lambda rows: take(hostile(rows, self.attack) if self.attack else rows))

    def cluster_agents(self, take):
        yield from super().cluster_agents(lambda rows: take(hostile(rows, self.attack) if self.attack else rows))


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "'\"><img src=x onerror=y()>", "</style></title><b>", "\ud800", "</svg><a>"]
)
def test_the_page_escapes_every_string(text):
    hub = with_talkers(Hostile(2, 3, 2, peers=2), {})
    hub.readiness.fd_pressure = True  # there is something to be told of
    plain = Tags(shown(hub))
    hub.attack = text
    with_talkers(hub, hostile({"cid": "", "client": "", "listener": "", "agent_id": "", "path": ""}, text))
    tags = Tags(shown(hub, filter=text.encode("utf-8", "replace").decode()))
    assert set(tags.tags) <= set(plain.tags)
    assert {name for name, _ in tags.attributes} <= {name for name, _ in plain.attributes}


# what matters


def found(hub: FakeHub) -> list[tuple[str, str]]:
    return [tuple(one) for one in findings(whole(hub.totals()))]


def test_nothing_is_said_when_nothing_is_wrong():
    assert found(FakeHub(agents=3, peers=2)) == []
    assert "Nothing needs attention" in text_of(FakeHub())


def test_the_gravest_stands_first():
    hub = FakeHub(listeners=3, agents=2, peers=2)
    hub.readiness.fd_pressure = True
    hub.listeners[1]["agents"] = 0
    hub.listeners[2]["accepting"] = False
    hub.cluster["mesh"][1] |= {"state": "backoff"}
    hub.stats.config_refused = True
    hub.rows[1]["token_expires_sec"] = 60
    told = text_of(hub)
    said = [
        "Descriptors are used up",
        "Without an agent: listener l1 (c0)",
        "No link to hub peer-1",
        "Not accepting: listener l2",
        "The token ends soon of agent agent-canary-1 in 1 min 0 s",
        "The last configuration was refused",
    ]
    places = [told.index(one) for one in said]
    assert places == sorted(places)
    assert "degraded" in told and "Nothing needs attention" not in told


def test_tokens_and_certificates_that_end_soon_are_told():
    hub = FakeHub(agents=9)
    for number, row in enumerate(hub.rows):
        row["token_expires_sec"] = 10 * number
    told = text_of(hub)
    assert "The token has ended of agent agent-canary-0." in told
    assert "8 agents: agent-canary-1 in 10 s, agent-canary-2 in 20 s, agent-canary-3 in 30 s and 5 more" in told
    document = whole(hub.totals()) | {"certificates": {"edge": 15 * 86400.0, "mesh": 13 * 86400.0, "admin": -1.0}}
    assert [one.said for one in findings(document)] == [
        "The certificate of admin has ended.",
        "The certificate of mesh ends in 13 d 0 h.",
    ]


# the cluster


def test_the_page_shows_the_cluster():
    hub = FakeHub(agents=2, peers=2)
    hub.rows[1]["standby"] = True
    hub.cluster["mesh"][1] |= {"peer": "tls://192.0.2.3:9500", "state": "backoff", "rtt_ms": None, "carrier": None}
    hub.cluster["registry"] |= {"healthy": False, "fresh": False, "breaker": "half_open"}
    hub.history.links = {"peer-0": 3 << 20}
    told = text_of(hub)
    for word in ("Registry in redis: unhealthy, its view is stale, breaker half open", "this hub", "0.25 ms", "peer-1",
                 "tls://192.0.2.3:9500", "backoff", "standby", "Agents of the cluster", "3.0 MiB/s"):  # fmt: skip
        assert word in told
    assert [(row["name"], row["self"], bool(row["link"])) for row in hubs(hub.cluster)] == [
        ("hub-a", True, False),
        ("peer-0", False, True),
        ("peer-1", False, False),
        ("tls://192.0.2.3:9500", False, True),
    ]
    assert "Cluster" not in text_of(FakeHub())


def test_a_link_is_as_wide_as_its_traffic_and_a_broken_one_is_marked():
    hub = FakeHub(peers=2)
    hub.cluster["mesh"][1] |= {"state": "backoff", "last_error": "connection_lost"}

    def links() -> list[tuple[str, float]]:
        return [
            (kind, float(width))
            for kind, width in re.findall(r"<path class='(link[^']*)' [^>]*stroke-width=([\d.]+)", shown(hub))
        ]

    (idle_kind, idle), (broken_kind, _) = links()
    assert (idle_kind, broken_kind) == ("link", "link bad")
    hub.history.links = {"peer-0": 10e6}
    busy = links()[0][1]
    hub.history.links = {"peer-0": 1e15}
    assert idle < busy < links()[0][1] <= 10


@pytest.mark.parametrize(("agents", "most"), [(0, 0), (1, 1), (48, 48), (5000, 48)])
def test_dots_are_few_however_many_agents_there_are(agents, most):
    text = shown(FakeHub(agents=agents, peers=0))
    assert text.count("<circle class='agent") <= most and (agents == 0) == ("<circle" not in text)
    assert ("A dot is 107 agents" in text) == (agents == 5000)


@pytest.mark.parametrize(("misknown", "verdict"), [(None, "Ready for active."), (3, "Not ready for active: ldap")])
def test_the_page_says_whether_shadow_is_ready_for_active(misknown, verdict):
    hub = FakeHub(peers=1)
    assert "Shadow" not in text_of(hub)
    hub.cluster["shadow"] = [{"connector": "ldap", "here": 1, "mesh": 2, "nobody": 1, "misknown_sec": misknown}]
    told = text_of(hub)
    assert "What active would have done" in told and "75 %" in told and verdict in told


# curves


def test_curves_are_drawn_and_told():
    hub = FakeHub()
    assert "now –; at most nothing" in shown(hub)
    hub.history.add([3.0, 1024.0, 2048.0, 0.5, 0.0123, float("nan"), 4096.0])
    text = shown(hub)
    for word in ("3", "1.0 KiB/s", "2.0 KiB/s", "0.5/s", "12.3 ms", "4.0 KiB"):
        assert f">{word}<" in text
    assert "Bytes, the last 15 minutes: from clients now 1.0 KiB/s; to clients now 2.0 KiB/s" in text
    assert "Slowest mesh link" not in text and "Slowest mesh link" in shown(FakeHub(peers=0))
    assert "nan" not in text.lower().replace("canary", "")


# agents


def names(text: str) -> list[str]:
    part = text.partition("id=agents data-live")[2].partition("</table>")[0]
    return re.findall(r"<tr><td>([^<]*)</td>", part)


def test_agents_are_shown_a_page_at_a_time():
    hub = FakeHub(agents=5000, peers=2)
    text = shown(hub)
    assert len(names(text)) == ROWS and "1 to 50 of 5,000" in text and "50 of 5,000" in text
    assert len(text) < 250_000
    seen = [name for number in range(1, 101) for name in names(shown(hub, page=number))]
    assert sorted(seen) == sorted(row["agent_id"] for row in hub.rows)
    assert names(shown(hub, page=999)) == names(shown(hub, page=100))


def test_agents_are_found_by_a_part_of_their_name_their_connector_or_state():
    hub = FakeHub(agents=300, connectors=3)
    hub.rows[7]["standby"] = True
    assert names(shown(hub, filter="CANARY-299")) == ["agent-canary-299"]
    assert len(names(shown(hub, filter="c1", page=1))) == 50 == len(names(shown(hub, filter="c1", page=2)))
    assert names(shown(hub, filter="standby")) == ["agent-canary-7"]
    text = shown(hub, filter="nobody")
    assert "the filter finds none" in text and "filtered from 300" in text and names(text) == []
    assert "no agent is connected" in shown(FakeHub(agents=0))


@pytest.mark.parametrize("sort", ORDERS)
def test_agents_are_sorted_by_each_column_both_ways(sort):
    hub = FakeHub(agents=3)
    for number, row in enumerate(hub.rows):
        at = (number * 2) % 3  # 0, 2, 1
        row |= {
            "agent_id": f"agent-{at}", "remote": f"192.0.2.{at}:1", "rtt_ms": 1.0 + at, "flows": at, "bytes_in": at,
            "bytes_out": at, "connected_sec": float(at), "token_expires_sec": 3000 + at,
            "standby": at == 0, "draining": at == 2,
        }  # fmt: skip
    upward = {"state": [2, 0, 1]}.get(sort, [0, 1, 2])  # draining, standby, up
    down = sort in ("rtt", "flows", "received", "sent", "connected", "token")
    expected = [f"agent-{at}" for at in (upward[::-1] if down else upward)]
    text = shown(hub, sort=sort)
    assert names(text) == expected and f"aria-sort={'descending' if down else 'ascending'}" in text
    assert names(shown(hub, sort=sort, back=True)) == expected[::-1]


@given(st.text(max_size=80), st.sampled_from(list(ORDERS)), st.booleans(), st.integers(1, 99999), st.booleans())
def test_a_link_leads_to_the_view_that_it_is_of(filter, sort, back, number, live):
    view = View.of(View(filter=filter.encode("utf-8", "replace").decode(), sort=sort, back=back, page=number,
                        live=live).query())  # fmt: skip
    assert View.of(view.query()) == view and (view.sort, view.back, view.page, view.live) == (sort, back, number, live)


@given(st.text())
def test_any_query_is_a_view(query):
    View.of(query)
    View.of("page=" + query)


def test_a_query_that_is_none():
    assert View.of("page=0&sort=x&flows=y&order=z") == View() == View.of("&".join(f"{k}=1" for k in range(99)))
    assert View.of("page=%C2%B2") == View.of("page=-1") == View()


# flows and events


def test_the_greatest_flows_are_shown_if_the_hub_tells_them():
    hub = with_talkers(FakeHub())
    assert "Greatest" not in text_of(hub)
    with_talkers(
        hub,
        {"cid": "aa", "bytes_in": 9, "age_sec": 1.0, "held_bytes": 5},
        {"cid": "bb", "bytes_in": 8, "age_sec": 3.0, "held_bytes": 4},
        {"cid": "cc", "bytes_in": None, "bytes_out": None, "client": None, "listener": None, "held_bytes": 6},
    )
    orders = {by: re.findall(r"<code>(\w\w)</code>", shown(hub, flows=by)) for by in ("bytes", "age", "held")}
    assert orders == {"bytes": ["aa", "bb", "cc"], "age": ["cc", "bb", "aa"], "held": ["cc", "aa", "bb"]}


def test_the_last_events_that_matter_are_kept():
    recent = Notable()
    for number in range(KEPT + 5):
        recent.note({"ts": "2026-01-01T00:00:00.000Z", "level": "warning", "event": f"e{number}", "logger": "hub"})
        recent.note({"ts": "", "level": "info", "event": "flow_closed", "logger": "access"})
    kept = recent.events()
    assert [one.name for one in kept] == [f"e{number}" for number in range(KEPT + 4, 4, -1)]
    recent.note({"ts": "", "level": "info", "event": "hub_ready", "logger": "hub", "edge": "x" * 999})
    assert recent.events()[0].name == "hub_ready" and len(recent.events()[0].text) == LONGEST


def test_a_page_is_made_in_several_slices():
    assert sum(1 for _ in page(FakeHub(agents=500, peers=2), View())) > 15
