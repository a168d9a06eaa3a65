"""ncfast conformance: what it plays with, and what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.until import PATIENCE

from ncfast.cli import program
from ncfast.cli.exitcode import ExitCode
from ncfast.conformance.agents.player import ScriptedHub
from ncfast.conformance.scenario import ScenarioError

CONFIG = Path(__file__).parents[2] / "config"
AGENT = [sys.executable, "-m", "ncfast", "agent", "--hub", "{hub}", "--agent-id", "{agent_id}"]
AGENT += ["--connector", "{connector}={target_host}:{target_port}", "--token-file", "{token_file}"]


def test_the_command_plays_with_a_process(capsys):
    words = ["--only", "a hub by TLS", "--only", "a hub behind a proxy", "--patience", str(PATIENCE)]
    code = program.main(["conformance", *words, "--", *AGENT])
    assert (code, capsys.readouterr().out.splitlines()[-1]) == (ExitCode.OK, "all 2 kept")


HUB = [sys.executable, "-m", "ncfast", "hub", "--config"]


@pytest.mark.parametrize(
    ("kind", "names", "file"),
    [
        (["--hub"], ("bytes both ways", "the hub drains"), "conformance.yaml"),
        (["--hub", "--tls"], ("bytes both ways", "a token that is bound to a certificate"), "conformance-tls.yaml"),
        (["--mesh"], ("a link", "the tunnel is lost"), "conformance-mesh.yaml"),
        (["--mesh", "--websocket"], ("a link", "the tunnel is lost"), "conformance-mesh.yaml"),
    ],
)
def test_the_command_plays_with_a_hub(capsys, kind, names, file):
    words = [*kind, "--only", names[0], "--only", names[1], "--patience", str(PATIENCE), "--jobs", "2"]
    code = program.main(["conformance", *words, "--", *HUB, str(CONFIG / file)])
    assert (code, capsys.readouterr().out.splitlines()[-1]) == (ExitCode.OK, "all 2 kept")


def test_the_command_names_the_rule_and_shows_what_the_process_wrote(capsys):
    script = "import os; print('no', os.environ['CONFORMANCE_HUB'][:5], '{other}'); raise SystemExit(3)"
    words = ["--only", "hello and ping", "--patience", "1", "--", sys.executable, "-c", script]
    assert program.main(["conformance", *words]) == ExitCode.FAILURE
    said = capsys.readouterr().out
    assert (
        "BROKEN  hello and ping\n        rule 5.HELLO: nothing came" in said and "1 of 1 broken: rules 5.HELLO" in said
    )


def test_the_command_says_what_it_leaves_out(capsys, tmp_path):
    path = tmp_path / "scenarios.json"
    path.write_text('{"scenarios": [{"name": "by a proxy", "needs": ["tls", "proxy"], "steps": [{"own": true}]}]}')
    words = ["--scenarios", str(path), "--without", "proxy", "--without", "resume", "--", "true"]
    assert program.main(["conformance", *words]) == ExitCode.OK
    assert capsys.readouterr().out == "left    by a proxy: without proxy\nall 0 kept\n"


def test_the_command_lists_scenarios(capsys):
    assert program.main(["conformance", "--list", "--without", "standby"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "a gap: 5.M_OPEN, " in said and "a standby takes over" not in said
    assert program.main(["conformance", "--hub", "--list", "--without", "drain"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "claims grow: 8.1" in said and "the hub drains" not in said and "an agent by TLS" not in said
    assert program.main(["conformance", "--hub", "--tls", "--list"]) == ExitCode.OK
    assert "an agent by TLS: 1.21" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [[], ["--only", "no such thing", "--", "true"], ["--without", "bytes"], ["--tls"], ["--hub", "--websocket"]],
    ids=str,
)
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
        ScriptedHub.scenarios(path)
    assert program.main(["conformance", "--list", "--scenarios", str(path)]) == ExitCode.FAILURE
