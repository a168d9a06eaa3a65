"""Many agents in one process, each the product's own: `python -m support.fleet_program CONFIG`, a JSON file.

`agents` are their configurations. They start `pace` a second, and end at SIGTERM. Where they are is asked of the hubs,
what they have lost of the log on standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path

import uvloop

from ncfast.agent.agent import Agent
from ncfast.config.agent import AgentConfig
from ncfast.net.seam import Net
from ncfast.observe import log


async def serve(agents: list[AgentConfig], pace: float) -> None:
    """Says how many there are when all have been started, then serves until SIGTERM."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    running: list[tuple[Agent, asyncio.Task[None]]] = []
    for config in agents:
        if ended.is_set():
            break
        agent = Agent(config, Net(loop))
        running.append((agent, loop.create_task(agent.run())))
        await asyncio.sleep(1 / pace)
    os.write(1, b"%d\n" % len(running))  # in one piece: the log goes to the same file
    await ended.wait()
    for agent, _ in running:
        agent.stop()
    await asyncio.gather(*(task for _, task in running))


def main() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    read = json.loads(Path(sys.argv[1]).read_text())
    log.setup("info", "json", "none")
    agents = [AgentConfig.model_validate(one) for one in read["agents"]]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(agents, read["pace"]))


if __name__ == "__main__":
    main()
