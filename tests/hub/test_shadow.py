"""What mode shadow finds out: counted, and judged."""

from __future__ import annotations

import copy

import pytest

from hub.rooms import Rooms, listener
from ncfast.observe import shadow

CLUSTER = {
    "mode": "shadow",
    "cluster": {
        "registry": {"healthy": True, "fresh": True},
        "replicas": [
            {"replica_id": "hub-a", "self": True, "draining": False, "linked": False},
            {"replica_id": "hub-b", "self": False, "draining": False, "linked": True},
            {"replica_id": "hub-c", "self": False, "draining": True, "linked": False},
        ],
        "shadow": [
            {"connector": "ldap", "here": 2, "mesh": 997, "nobody": 1, "misknown_sec": 901},
            {"connector": "ssh", "here": 0, "mesh": 0, "nobody": 0, "misknown_sec": None},
        ],
    },
}


def test_clients_are_counted_by_whom_active_would_serve_them():
    rooms = Rooms("shadow")
    rooms.hub()
    rooms.elsewhere()
    for _ in range(3):
        rooms.client()
    rooms.agent("two", "ssh")
    rooms.client(listener(connector="ssh"))
    rooms.client(listener(connector="none"))
    rooms.wait(5)
    rows = rooms.router.shadow.rows({"ldap", "ssh", "none", "idle"})
    assert [tuple(row.values()) for row in rows] == [
        ("idle", 0, 0, 0, None),
        ("ldap", 0, 3, 0, None),
        ("none", 0, 0, 1, None),
        ("ssh", 1, 0, 0, None),
    ]


def test_an_agent_whom_the_cluster_knows_otherwise_is_told_with_its_time():
    rooms = Rooms("shadow")
    rooms.agent("two", "ssh")
    rooms.registry.view.drop("/two")
    rooms.client(listener(connector="ssh"))
    rooms.wait(7)
    (row,) = rooms.router.shadow.rows({"ssh"})
    assert row["misknown_sec"] == 7 and rooms.ground.stats.shadow_decisions == {("local", "no"): 1}


def test_the_share_served_is_never_rounded_up_to_all():
    ldap, ssh = CLUSTER["cluster"]["shadow"]
    assert shadow.cells(ldap) == ("ldap", 1000, 2, 997, 1, "99.9 %")
    assert shadow.cells(ldap | {"mesh": 9_999_997})[-1] == "99.9 %"
    assert shadow.cells(ldap | {"nobody": 0})[-1] == "100 %"
    assert shadow.cells(ssh)[-1] == ""


def change(*path, value):
    def apply(document):
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("apply", "why"),
    [
        (lambda document: None, []),
        (change("cluster", value=None), ["it is in no cluster (ha.enabled)"]),
        (change("cluster", "shadow", value=None), ["its mode is shadow: only shadow compares"]),
        (change("cluster", "registry", "healthy", value=False), ["the registry is not healthy"]),
        (change("cluster", "registry", "fresh", value=False), ["the view of the registry is stale"]),
        (change("cluster", "replicas", 1, "linked", value=False), ["no mesh link to hub-b"]),
        (change("cluster", "replicas", value=CLUSTER["cluster"]["replicas"][::2]), ["no other hub is known"]),
        (
            change("cluster", "shadow", 0, value=CLUSTER["cluster"]["shadow"][1]),
            ["no client has come yet, so nothing is compared"],
        ),
        (
            change("cluster", "shadow", 0, "misknown_sec", value=899),
            ["ldap: the registry knew our agents otherwise than we do, 14 min 59 s ago"],
        ),
    ],
)
def test_what_hinders_active(apply, why):
    document = copy.deepcopy(CLUSTER)
    apply(document)
    assert shadow.hindrances(document) == why
