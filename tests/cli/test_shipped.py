"""What comes with the package and is printed by commands; the check that a unit runs before it reloads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.process import require
from support.until import PATIENCE

from ncfast.cli import main

CONFIG = Path(__file__).parents[2] / "config"
SHIPPED = sorted(
    str(Path(folder, name).relative_to(CONFIG))
    for folder, _, names in os.walk(CONFIG, followlinks=True)
    for name in names
    if not name.startswith(".")
)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_examples_are_the_files_of_config_but_for_those_with_mistakes(capsys):
    names = printed(capsys, "examples").splitlines()
    assert names == [name for name in SHIPPED if not name.startswith("bad/")]
    assert {"hub.yaml", "agent.yaml", "prometheus/alerts.yaml", "systemd/ncfast-hub.service"} < set(names)
    for name in names:
        assert printed(capsys, "examples", name) == (CONFIG / name).read_text()


@pytest.mark.parametrize("name", ["no-such.yaml", "bad/unknown-key.yaml", "../pyproject.toml", "systemd"])
def test_no_other_file_is_printed(name, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["examples", name])
    out, err = capsys.readouterr()
    assert out == "" and f"there is no example {name}" in err


def test_the_schema_is_printed(capsys):
    text = printed(capsys, "schema")
    assert text == (CONFIG / "ncfast.schema.json").read_text() and json.loads(text)["$defs"]


@pytest.mark.parametrize(
    ("shell", "says"), [("bash", "complete "), ("zsh", "#compdef ncfast"), ("fish", "complete -c")]
)
def test_completions_are_printed(shell, says, capsys):
    assert says in printed(capsys, "completion", shell)


def test_check_quiet_prints_warnings_alone(capsys):
    out = printed(capsys, "check", "--quiet", str(CONFIG / "agent.yaml"))
    assert all(line.startswith("warning: ") for line in out.splitlines())


def test_check_passes_over_what_this_user_may_not_see(tmp_path):
    """As credentials of systemd are for the commands of ExecReload=, in another mount namespace (its issue 35227)."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "jwt.key").write_text("k" * 32)
    file = tmp_path / "hub.yaml"
    file.write_text(
        f"{{listeners: [], auth: {{jwt: {{algorithms: [HS256], key_file: {closed}/jwt.key}}}},"
        f" admin: {{unix: {tmp_path}/admin.sock}}}}"
    )
    closed.chmod(0)
    command = [sys.executable, "-m", "ncfast", "check", "--quiet", str(file)]
    if os.geteuid() == 0:  # not even root, then
        (setpriv,) = require("setpriv")
        command = [setpriv, "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    closed.chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert "auth.jwt.key_file: there is no file" in done.stdout and "admin.unix" not in done.stdout
