"""The published transcript, a flow that outlives a cut: our hub says all that stands there of a hub, given what stands
there of the agent, and our agent says the agent's part, given the hub's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.hubs import Frame, World
from agent.hubs import run as run_agent
from core import reference
from hub.far import Agent
from hub.rooms import Client, Rooms, identity, listener
from support.until import until

from ncfast._frames import FrameType, encode

LINES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "transcript.json").read_text())
AGENT, CONNECTOR = "canary", "echo"  # as `World` has them
ACK_WAIT = 0.25  # seconds in which an acknowledgement comes that waits for company (section 6, rule 10)


def test_our_hub_says_its_part():
    rooms = Rooms()
    agent = Agent(rooms, identity(AGENT))
    client: Client
    said: list[Any] = []
    for line in LINES:
        wire = bytes.fromhex(line.get("hex", ""))
        match line["by"]:
            case "agent" if "lost" not in line:
                agent.feed(wire)
            case "hub":
                said += agent.taken()
                if not said:
                    rooms.wait(ACK_WAIT)
                    said += agent.taken()
                assert encode_of(said.pop(0)) == wire, line["says"]
            case "client" if line["does"] == "connect":
                client = rooms.client(listener(connector=CONNECTOR))
            case "client" if line["does"] == "send":
                client.socket.send(line["data"].encode())
                rooms.run()
            case "client":
                client.socket.fin()
                rooms.run()
            case "cut":
                agent.lose()
                agent = Agent(rooms, identity(AGENT))
    rooms.wait(ACK_WAIT)
    assert not said and not agent.taken()
    assert not rooms.ground.flows and client.reason is not None and client.reason.label == "closed"
    assert client.socket.received.decode() == "".join(
        line["data"] for line in LINES if line["by"] == "service" and line["does"] == "send"
    )


def encode_of(frame: Any) -> bytes:
    """A frame's bytes."""
    fields = frame._asdict()
    return encode(fields.pop("type"), **fields)


def test_our_agent_says_its_part(tmp_path):
    """All but what it draws for itself, `instance`, and what tells its version."""

    async def scenario() -> None:
        async with World(tmp_path, "a") as world:
            hub = world["a"]
            hub.on_hello = lambda tunnel, hello: None
            tunnel = await until(lambda: hub.tunnels and hub.tunnels[0], "the agent's tunnel")
            instances, at = set(), 0
            for line in LINES:
                wire = bytes.fromhex(line.get("hex", ""))
                match line["by"]:
                    case "hub" if "lost" not in line:
                        tunnel.write(wire)
                    case "agent":
                        await until(lambda at=at, tunnel=tunnel: len(tunnel.frames) > at, line["says"])
                        frame, at = tunnel.frames[at], at + 1
                        expected = Frame(*reference.decode(wire)[:-1])
                        if frame.type == FrameType.HELLO:
                            instances.add(frame.body["instance"])
                            own = {"instance": "", "software": ""}
                            assert frame.body | own == expected.body | own
                            frame, expected = frame._replace(payload=b""), expected._replace(payload=b"")
                        assert frame == expected, line["says"]
                    case "service" if line["does"] == "send":
                        await until(lambda: world.service.writers, "the target's connection")
                        world.service.writers[0].write(line["data"].encode())
                    case "service":
                        world.service.writers[0].write_eof()
                    case "cut":
                        tunnel.cut()
                        tunnel, at = await until(lambda: hub.tunnels[1:] and hub.tunnels[1], "the next tunnel"), 0
            assert len(instances) == 1
            sent = "".join(line["data"] for line in LINES if line["by"] == "client" and line["does"] == "send")
            await until(lambda: world.service.ends == ["eof"], "the service's end")
            assert world.service.received[0].decode() == sent
            await until(lambda: not world.agent.flows, "the flow is over")

    run_agent(scenario())
