"""What M_OPEN says, in both forms: the published examples, any, and none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncfast._frames import FrameType
from ncfast.core.errors import Reason, RemoteError
from ncfast.core.messages import Open
from ncfast.core.opening import Opening

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "frames.json").read_text())
BODIES = {
    case["name"]: bytes.fromhex(case["payload"]) for case in VECTORS["frames"] if case["type"] == FrameType.M_OPEN
}
SOME = Opening("ldap", "l1", bytes(range(16)), "hub-a", ("192.0.2.7", 50123, "192.0.2.1", 389), "site-1", "acme")
NAMES = ("connector", "listener", "origin", "agent", "tenant")

name = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
host = st.one_of(st.ip_addresses().map(str), st.just(""), st.just("fe80::1%eth0"))
port = st.integers(0, 65535)
openings = st.builds(
    Opening,
    name,
    name,
    st.binary(min_size=16, max_size=16),
    name,
    st.tuples(host, port, host, port),
    name | st.just(""),
    name | st.just(""),
)


def test_the_published_examples_say_the_same_in_both_forms():
    near = Opening.unpack(BODIES["M_OPEN: a client has come; the hub grants 256 KiB"])
    far = Opening.unpack(BODIES["M_OPEN: to the agent's owner, over a link between hubs"])
    assert near == Opening(
        "ldap",
        "l1",
        bytes.fromhex("00112233445566778899aabbccddeeff"),
        "hub-a",
        ("192.0.2.7", 50123, "192.0.2.1", 389),
    )
    assert far == near._replace(agent="site-1", tenant="acme")
    assert near.pack() == BODIES["M_OPEN packed: the same"]
    assert far.pack() == BODIES["M_OPEN packed: the same between hubs"]


@given(openings)
def test_both_forms_are_read_as_they_were_said(opening):
    assert Opening.unpack(opening.pack()) == opening == Opening.unpack(opening.json())


def test_who_knows_json_alone_reads_it():
    said: Open = Open.unpack(SOME.json())
    assert (said.connector, said.secret, said.agent) == ("ldap", SOME.secret.hex(), "site-1")
    assert b"null" not in SOME._replace(agent="", tenant="").json()


@pytest.mark.parametrize("end", range(len(SOME.pack())))
def test_one_that_is_cut_short_is_malformed(end):
    with pytest.raises(RemoteError) as raised:
        Opening.unpack(SOME.pack()[:end])
    assert raised.value.reason is Reason.PROTOCOL_ERROR and raised.value.detail.endswith("is missing or malformed")


@pytest.mark.parametrize("member", NAMES)
@pytest.mark.parametrize("value", ["a b", "-a", "é", "a\n", "x" * 129])
def test_what_is_no_name_is_told_by_its_member_alone(member, value):
    with pytest.raises(RemoteError) as raised:
        Opening.unpack(SOME._replace(**{member: value}).pack())
    assert raised.value.detail == f"Open: {member} is missing or malformed"


@pytest.mark.parametrize("member", ["connector", "listener", "origin"])
def test_names_that_must_be_there(member):
    with pytest.raises(RemoteError, match=f"{member} is missing"):
        Opening.unpack(SOME._replace(**{member: ""}).pack())


@pytest.mark.parametrize("client", [("x" * 65, 1, "", 0), ("", 0, "x" * 65, 1)])
def test_addresses_are_bounded(client):
    with pytest.raises(RemoteError, match="client is missing"):
        Opening.unpack(SOME._replace(client=client).pack())


@pytest.mark.parametrize("behind", [b"\0", bytes(2000)])
def test_nothing_is_behind_it(behind):
    with pytest.raises(RemoteError):
        Opening.unpack(SOME.pack() + behind)


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(body):
    for form in (body, b"\x01" + body):
        try:
            assert isinstance(Opening.unpack(form), Opening)
        except RemoteError as exc:
            assert exc.reason is Reason.PROTOCOL_ERROR


def test_malformed_it_ends_the_link():
    class Link:
        ends: list[tuple[Reason, str]] = []

        def fail(self, reason: Reason, detail: str = "") -> None:
            self.ends.append((reason, detail))

    link = Link()
    assert Opening.read(SOME.pack(), link) == SOME and not link.ends
    assert Opening.read(b"\x01", link) is None
    assert link.ends == [(Reason.PROTOCOL_ERROR, "Open: client is missing or malformed")]
