"""A transcript of both ends: our hub says all that stands there of a hub, given what stands there of the agent, and our
agent says the agent's part, given the hub's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.hubs import HELLO, Frame, World
from agent.hubs import run as run_agent
from core import reference
from hub.far import Agent
from hub.rooms import Client, Rooms, identity, listener
from support.until import until

from ncfast._frames import encode

AGENT, CONNECTOR = "canary", "echo"  # as `World` has them
ACK_WAIT = 0.25  # seconds in which an acknowledgement comes that waits for company (6.10)

Line = dict[str, Any]
Alike = Callable[[Frame, Frame], bool]  # whether a frame is the one that stands there


def read(path: Path) -> list[Line]:
    """Its lines."""
    lines: list[Line] = json.loads(path.read_text())
    return lines


def decoded(wire: bytes) -> Frame:
    return Frame(*reference.decode(wire)[:-1])


def frame_of(line: Line) -> Frame:
    return decoded(bytes.fromhex(line["hex"]))


def our_hub_says(lines: list[Line], alike: Alike) -> None:
    rooms = Rooms()
    agent = Agent(rooms, identity(AGENT))
    client: Client
    said: list[Any] = []
    for line in lines:
        wire = bytes.fromhex(line.get("hex", ""))
        match line["by"]:
            case "agent" if "lost" not in line:
                agent.feed(wire)
            case "hub":
                said += agent.taken()
                if not said:
                    rooms.wait(ACK_WAIT)
                    said += agent.taken()
                assert alike(decoded(encode(**said.pop(0)._asdict())), frame_of(line)), line["says"]
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
        line["data"] for line in lines if line["by"] == "service" and line["does"] == "send"
    )


def our_agent_says(lines: list[Line], directory: Path, alike: Alike) -> None:
    async def scenario() -> None:
        async with World(directory, "a") as world:
            hub = world["a"]
            hub.on_hello = lambda tunnel, hello: None
            tunnel = await until(lambda: hub.tunnels and hub.tunnels[0], "the agent's tunnel")
            instances, at = set(), 0
            for line in lines:
                wire = bytes.fromhex(line.get("hex", ""))
                match line["by"]:
                    case "hub" if "lost" not in line:
                        tunnel.write(wire)
                    case "agent":
                        await until(lambda at=at, tunnel=tunnel: len(tunnel.frames) > at, line["says"])
                        frame, at = tunnel.frames[at], at + 1
                        if frame.type == HELLO:
                            instances.add(frame.body["instance"])
                        assert alike(frame, frame_of(line)), line["says"]
                    case "service" if line["does"] == "send":
                        await until(lambda: world.service.writers, "the target's connection")
                        world.service.writers[0].write(line["data"].encode())
                    case "service":
                        world.service.writers[0].write_eof()
                    case "cut":
                        tunnel.cut()
                        tunnel, at = await until(lambda: hub.tunnels[1:] and hub.tunnels[1], "the next tunnel"), 0
            assert len(instances) == 1
            sent = "".join(line["data"] for line in lines if line["by"] == "client" and line["does"] == "send")
            await until(lambda: world.service.ends == ["eof"], "the service's end")
            assert world.service.received[0].decode() == sent
            await until(lambda: not world.agent.flows, "the flow is over")

    run_agent(scenario())
