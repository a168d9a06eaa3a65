"""The published bodies: read and written by our code, and told to the rooms that they are for. What is invalid ends the
link with the error that is published, and what is valid does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from agent.hubs import HELLO_ACK, World
from agent.hubs import run as run_agent
from core.raw import bare_frames
from hub.far import Agent, Far
from hub.rooms import Rooms, identity
from support.until import until

from ncfast._frames import SECRET_SIZE, FrameType
from ncfast.core.errors import Reason, RemoteError, close_code
from ncfast.core.messages import Announce, Hello, HelloAck, Message, Move, Sought, Vouch
from ncfast.core.opening import Opening
from ncfast.mesh import handshake as mesh
from ncfast.mesh.trust import Credential

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "bodies.json").read_text())
VALID, INVALID = VECTORS["valid"], VECTORS["invalid"]
OPENED = ("M_OPEN", "hub")  # read by `Opening`, as from an origin
UNSAID = ("tenant", "proof", "grace", "ping_timeout", "drain", "max_message")  # empty where they are not said
READERS: dict[tuple[str, str], type[Message]] = {
    ("HELLO", "agent"): Hello,
    ("HELLO_ACK", "hub"): HelloAck,
    ("ANNOUNCE", "agent"): Announce,
    ("MOVE", "hub"): Move,
    ("MOVE", "agent"): Move,
    ("M_RESUME", "origin"): Sought,
    ("M_RESUME", "owner"): Vouch,
    ("HELLO", "dialler"): mesh.Hello,
    ("HELLO_ACK", "listener"): mesh.HelloAck,
    ("AUTH", "dialler"): mesh.Auth,
}


def of(cases: list[dict[str, Any]], *who: tuple[str, str]) -> list[Any]:
    """Cases of these frames and senders, or of all, each with its own name."""
    return [
        pytest.param(case, id=f"{case['frame']} from {case['from']}: {case['name']}")
        for case in cases
        if not who or (case["frame"], case["from"]) in who
    ]


def body(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case.get("hex", "")) + case.get("text", "").encode()


def read(case: dict[str, Any], data: bytes) -> dict[str, Any]:
    """What our code understands. Raises RemoteError."""
    if case["frame"] == "M_OPEN":
        opening = Opening.unpack(data)
        return opening._asdict() | {"secret": opening.secret.hex(), "client": list(opening.client)}
    secret = {}
    if case["frame"] == "M_RESUME":
        secret, data = {"secret": data[:SECRET_SIZE].hex()}, data[SECRET_SIZE:]
    message = READERS[case["frame"], case["from"]].unpack(data)
    said = message.model_dump()
    if isinstance(message, Hello):
        said["features"] = sorted(message.known)
    return secret | {name: "" if value is None else value for name, value in said.items()}


def written(case: dict[str, Any]) -> bytes:
    """What our code says to mean the same."""
    means = dict(case["means"])
    if case["frame"] == "M_OPEN":
        opening = Opening(**means | {"secret": bytes.fromhex(means["secret"]), "client": tuple(means["client"])})
        return opening.pack() if "hex" in case else opening.json()
    secret = bytes.fromhex(means.pop("secret", ""))
    optional = {name for name in UNSAID if means.get(name) == ""}
    kept = {name: value for name, value in means.items() if name not in optional}
    return secret + READERS[case["frame"], case["from"]].model_validate(kept).pack()


@pytest.mark.parametrize("case", of(VALID))
def test_a_valid_body_is_read(case):
    assert read(case, body(case)) == case["means"]


@pytest.mark.parametrize("case", of(VALID))
def test_what_we_write_means_the_same(case):
    assert read(case, written(case)) == case["means"]
    if case["frame"] == "M_OPEN" and "hex" in case:
        assert written(case) == body(case)


@pytest.mark.parametrize("case", of([one for one in INVALID if one["error"] == "protocol_error"], *READERS, OPENED))
def test_an_invalid_body_is_refused(case):
    with pytest.raises(RemoteError) as refused:
        read(case, body(case))
    assert refused.value.reason is Reason.PROTOCOL_ERROR


# told to a hub

AGENTS = [("HELLO", "agent"), ("ANNOUNCE", "agent"), ("MOVE", "agent"), ("M_RESUME", "agent")]
HUBS = [(frame, by) for frame, by in READERS if by in ("origin", "owner", "dialler")] + [("M_OPEN", "origin")]


class Dialler(Far):
    """Another hub that has connected, and has said nothing."""

    wired = staticmethod(bytes)
    unwired = staticmethod(bare_frames)

    def __init__(self, rooms: Rooms) -> None:
        super().__init__(rooms)
        rooms.known("hub-b", bytes.fromhex("9f2c41d07be8a355"))
        rooms.net.opened()
        rooms.ways.mesh.door.put_stream(self.wire, Credential("machine"), "192.0.2.9", "192.0.2.9:6000", b"")


def told_by_agent(case: dict[str, Any]) -> Far:
    agent = Agent(Rooms(), identity("site-1"))
    if case["frame"] != "HELLO":
        agent.claim()
    agent.send(FrameType[case["frame"]], epoch=agent.link.epoch, payload=body(case))
    return agent


def told_by_hub(case: dict[str, Any]) -> Far:
    rooms = Rooms("active")
    frame = FrameType[case["frame"]]
    if case["from"] == "dialler":
        dialler = Dialler(rooms)
        if frame is FrameType.AUTH:
            dialler.send(FrameType.HELLO, payload=next(body(one) for one in VALID if one["from"] == "dialler"))
        dialler.send(frame, payload=body(case))
        return dialler
    other = rooms.hub()
    if case["from"] == "owner":
        rooms.elsewhere("site-1")
        rooms.client()
        opened = other.only(FrameType.M_OPEN)
        other.accept(opened)
        other.send(frame, cid=opened.cid, epoch=opened.epoch, payload=body(case))
    else:
        epoch = rooms.agent("site-1").link.epoch
        other.send(frame, cid=other.cid(), epoch=epoch, payload=body(case))
    return other


@pytest.mark.parametrize("case", of(VALID, *AGENTS, *HUBS))
def test_a_hub_goes_on_with_who_says_what_is_valid(case):
    far = told_by_agent(case) if case["from"] == "agent" else told_by_hub(case)
    assert not far.wire.lost


@pytest.mark.parametrize("case", of(INVALID, *AGENTS))
def test_a_hub_ends_the_tunnel_of_an_agent_that_says_what_is_not(case):
    reason = Reason[case["error"].upper()]
    written = told_by_agent(case).wire.take()
    assert written.endswith(close_code(reason).to_bytes(2, "big") + case["error"].encode())


@pytest.mark.parametrize("case", of(INVALID, *HUBS))
def test_a_hub_ends_the_link_of_a_hub_that_says_what_is_not(case):
    last = told_by_hub(case).taken()[-1]
    assert (last.type, last.code) == (FrameType.GOAWAY, Reason[case["error"].upper()])


# told to an agent

HUB = [("HELLO_ACK", "hub"), ("M_OPEN", "hub"), ("MOVE", "hub")]


def told_to_agent(case: dict[str, Any], directory: Path) -> int | None:
    """The close code by which our agent ends the tunnel, or None when it goes on."""
    found: list[int | None] = []

    async def scenario() -> None:
        async with World(directory, "a") as world:
            hub = world["a"]
            if case["frame"] == "HELLO_ACK":
                hub.on_hello = lambda tunnel, hello: tunnel.send(HELLO_ACK, payload=body(case))
                tunnel = await until(lambda: hub.tunnels and hub.tunnels[0], "the agent's tunnel")
                await until(lambda: tunnel.frames, "HELLO")
                tunnel.epoch = case.get("means", {}).get("epoch", 0)
            else:
                tunnel = await hub.owner()
                tunnel.send(FrameType[case["frame"]], cid=world.flow().cid, payload=body(case))
            fence = world.flow().cid  # a flow that nobody knows: the answer comes behind all others
            tunnel.send(FrameType.M_DATA, cid=fence, payload=b"x")
            await until(
                lambda: tunnel.code is not None or any(one.cid == fence for one in tunnel.frames), "answer, or end"
            )
            found.append(tunnel.code)

    run_agent(scenario())
    return found[0]


@pytest.mark.parametrize("case", of(VALID, *HUB))
def test_an_agent_goes_on_with_a_hub_that_says_what_is_valid(case, tmp_path):
    assert told_to_agent(case, tmp_path) is None


@pytest.mark.parametrize("case", of(INVALID, *HUB))
def test_an_agent_ends_the_tunnel_of_a_hub_that_says_what_is_not(case, tmp_path):
    assert told_to_agent(case, tmp_path) == close_code(Reason[case["error"].upper()])
