"""The scripted hub: our agent and a minimal one keep every rule; each planted fault is named by its rule."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from support.until import PATIENCE

from conformance.minimal_agent import FAULTS, minimal
from ncfast.agent.agent import Agent
from ncfast.cli import program
from ncfast.cli.exitcode import ExitCode
from ncfast.config.agent import AgentConfig
from ncfast.conformance.run import Places, play, play_all
from ncfast.conformance.scenario import ScenarioError, read
from ncfast.net.seam import Net

SCENARIOS = read()
JOBS = 24


@asynccontextmanager
async def ours(places: Places) -> AsyncIterator[deque[str]]:
    """Our agent in this very process."""
    config = AgentConfig.model_validate(
        {
            "hubs": [places.hub, places.other_hub],
            "agent_id": places.agent_id,
            "token_file": places.token_file,
            "connectors": [{"name": places.connector, "target": places.target}],
            "http_proxy": "off",
            "reconnect": {"min_sec": 0.05, "max_sec": 0.5},
            "drain": {"timeout_sec": 0},
        }
    )
    agent = Agent(config, Net(asyncio.get_running_loop()))
    running = asyncio.create_task(agent.run())
    try:
        yield deque()
    finally:
        agent.stop()
        await running


def verdicts(scenarios, launcher):
    return asyncio.run(play_all(scenarios, launcher, patience=PATIENCE, jobs=JOBS, told=lambda one: None))


def broken(found):
    return {one.scenario.name: str(one.broken) for one in found if one.broken is not None}


def test_our_agent_keeps_every_rule():
    assert not broken(verdicts(SCENARIOS, ours))


def test_an_agent_without_standby_keeps_every_rule():
    without = [one for one in SCENARIOS if not one.needs & {"standby", "moves", "moves_again"}]
    assert len(without) > 40 and not broken(verdicts(without, minimal))


async def named(fault):
    """What the scripted hub says of an agent with the fault. Some are silence: patience grows until the rule is the
    expected one, so that a slow machine takes longer, and is not wrong."""
    rule, name = FAULTS[fault]
    (scenario,) = (one for one in SCENARIOS if one.name == name)
    for patience in (1, 5, 25, PATIENCE):
        found = (await play(scenario, partial(minimal, faults={fault}), patience)).broken
        if found is None or found.rule == rule:
            break
    return found


@pytest.fixture(scope="module")
def told():
    async def all_of_them():
        return await asyncio.gather(*map(named, FAULTS))

    return dict(zip(FAULTS, asyncio.run(all_of_them()), strict=True))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_its_rule(told, fault):
    found = told[fault]
    assert found is not None and found.rule == FAULTS[fault][0], found


# the command

AGENT = [sys.executable, "-m", "ncfast", "agent", "--hub", "{hub}", "--agent-id", "{agent_id}"]
AGENT += ["--connector", "{connector}={target_host}:{target_port}", "--token-file", "{token_file}"]


def test_the_command_plays_with_a_process(capsys):
    code = program.main(["conformance", "--only", "hello and ping", "--patience", str(PATIENCE), "--", *AGENT])
    assert (code, capsys.readouterr().out) == (ExitCode.OK, "ok      hello and ping\nall 1 kept\n")


def test_the_command_names_the_rule_and_shows_what_the_process_wrote(capsys):
    script = "import os; print('no', os.environ['CONFORMANCE_HUB'][:5], '{other}'); raise SystemExit(3)"
    words = ["--only", "hello and ping", "--patience", "1", "--", sys.executable, "-c", script]
    assert program.main(["conformance", *words]) == ExitCode.FAILURE
    said = capsys.readouterr().out
    assert (
        "BROKEN  hello and ping\n        rule 5.HELLO: nothing came" in said and "1 of 1 broken: rules 5.HELLO" in said
    )


def test_the_command_lists_scenarios(capsys):
    assert program.main(["conformance", "--list", "--without", "standby"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "a gap: 5.M_OPEN, " in said and "a standby takes over" not in said


@pytest.mark.parametrize("words", [[], ["--only", "no such thing", "--", "true"], ["--without", "bytes"]], ids=str)
def test_the_command_refuses(words):
    with pytest.raises(SystemExit) as refused:
        program.main(["conformance", *words])
    assert refused.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"scenarios": [{"name": "x"}]}', '{"scenarios": [{"name": "x", "needs": ["wings"], "steps": []}]}'],
)
def test_a_file_of_no_use_is_refused(tmp_path, text):
    path = tmp_path / "scenarios.json"
    path.write_text(text)
    with pytest.raises(ScenarioError):
        read(path)
    assert program.main(["conformance", "--list", "--scenarios", str(path)]) == ExitCode.FAILURE


def test_a_step_of_no_verb_is_refused(tmp_path):
    path = tmp_path / "scenarios.json"
    path.write_text('{"scenarios": [{"name": "x", "steps": [{"dance": true}]}]}')
    with pytest.raises(ScenarioError, match="no verb dance"):
        verdicts(read(path), minimal)
