"""What a process loads: a module costs its start time, and the process memory for as long as it lives.

Hub and agent run as processes and serve a client; at their end each tells what it has loaded meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from support.peer import Peer, byte_exact, run_flow
from support.topology import Topology

# Before the words of the usual command line, which are python -m ncfast.
TELLS = """
import atexit, sys
from ncfast.cli import main
atexit.register(lambda: print("\\n".join(sys.modules)))
sys.exit(main(sys.argv[4:]))
"""

HUB = {"ncfast.hub", "ncfast.serve.hub", "ncfast.config.hub", "ncfast.config.ha"}
AGENT = {"ncfast.agent", "ncfast.serve.agent", "ncfast.config.agent"}
CLUSTER = {"ncfast.mesh.manager", "ncfast.mesh.peer", "ncfast.registry.redis", "redis", "hiredis"}
COMMANDS = {"ncfast.cli.check", "ncfast.cli.status", "ncfast.observe.adminclient", "ncfast.demo"}
SCRAPED = {"prometheus_client", "ncfast.observe.exposition"}
JUDGES = {"ncfast.auth", "ncfast.mesh", "ncfast.registry"}
PUBLIC_KEYS = {"jwt", "cryptography", "ncfast.auth.publickeys", "ncfast.auth.remote", "ncfast.net.fetch"}
PROXY = {"urllib.request", "http.client"}
PEOPLE = {"ncfast.observe.page", "html"}
OTLP = {"ncfast.observe.otlp.client", "opentelemetry", "google.protobuf", "requests"}
ASKED = {"ncfast.agent.admin", "ncfast.agent.standing", "ncfast.agent.metrics", "ncfast.net.routes"}
NEVER = {  # where they do not belong
    "hub": AGENT | CLUSTER | COMMANDS | SCRAPED | PROXY | PUBLIC_KEYS | PEOPLE | OTLP,
    "agent": HUB | CLUSTER | COMMANDS | SCRAPED | PROXY | PUBLIC_KEYS | PEOPLE | OTLP | JUDGES | ASKED,
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """By command: the modules of a hub that is alone, with a secret for its tokens, and of its agent."""
    directory = tmp_path_factory.mktemp("loaded")
    service = Peer(directory)
    made = Topology(directory, {"peer": service.address}, prefix=(sys.executable, "-c", TELLS))
    try:
        script = [["send", 10], ["fin"], ["drain"]]
        both = asyncio.run(
            run_flow(service, made.address("peer"), seed=service.next_seed(), client=script, service=script)
        )
        byte_exact(both.client, 10)
        programs = {"hub": made.hub.program, "agent": made.agent.program}
        made.check()
    finally:
        made.close()
        service.stop()
    return {command: set(Path(program.out_path).read_text().split()) for command, program in programs.items()}


@pytest.mark.parametrize("command", NEVER)
def test_a_process_loads_nothing_of_the_others(loaded: dict[str, set[str]], command: str) -> None:
    modules = loaded[command]
    assert f"ncfast.serve.{command}" in modules
    assert not {one for one in modules for never in NEVER[command] if one == never or one.startswith(f"{never}.")}
