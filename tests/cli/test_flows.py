"""`ncfast flows` as text; the hub behind it is the tests'."""

from __future__ import annotations

from support.fake_hub import FakeHub, whole

from ncfast.cli import flows
from ncfast.cli.program import main
from ncfast.hub import flows as hub_flows
from ncfast.hub.flows import Query


def test_the_orders_are_the_hub_s():
    assert flows.ORDERS == hub_flows.ORDERS


def test_a_list_says_what_is_held_and_by_whom():
    document = whole(FakeHub().flow_list.select(Query()))
    document["flows"][1] |= dict.fromkeys(("listener", "client", "state", "idle_sec", "bytes_in", "bytes_out"))
    document["flows"][1] |= {"path": "relayed", "hub": "hub-b", "agent_id": "si\x1b[2Jte"}
    summary, memory, _, header, first, second = flows.listed(document)
    assert summary == "hub-a: 2 flows, 0 relayed for other hubs; 2 as asked, which hold 8.0 KiB"
    assert memory == "memory  8.0 KiB of 1.0 GiB held, 0 B of it relayed"
    assert header.split()[:3] == ["CID", "LISTENER", "CLIENT"]
    assert first[header.index("HELD") :].split()[:2] == ["4.0", "KiB"]
    assert "relayed hub-b" in second and "\x1b" not in second


def test_none_to_list():
    document = whole(FakeHub().flow_list.select(Query()))
    assert len(flows.listed(document | {"flows": []})) == 2


def test_no_hub_and_no_order(capsys):
    assert main(["flows", "--url", "http://127.0.0.1:1"]) == 69
    assert main(["flows", "kill", "00", "--url", "http://127.0.0.1:1"]) == 69
    assert main(["diag", "--url", "http://127.0.0.1:1", "--output", "-"]) == 69
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 3
