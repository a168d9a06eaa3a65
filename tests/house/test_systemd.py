"""The units of systemd: taken by systemd without a word, and as closed as docs/install/systemd.md says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.process import require
from support.until import PATIENCE

from ncfast.cli import program
from ncfast.cli.exitcode import ExitCode
from ncfast.config.warnings import KILLED_AFTER

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "config" / "systemd").glob("*.service"))
MOST = 2.0  # of exposure, out of 10; they had 1.6 and 1.3 when they were written


def settings(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def analyze(*arguments: object) -> str:
    (tool,) = require("systemd-analyze")
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name.replace("@", "@site-1")  # verify wants an instance, and programs that are here
    text = re.sub(r"^Documentation=.*\n", "", unit.read_text(), flags=re.MULTILINE)
    copy.write_text(text.replace("/opt/ncfast/bin/ncfast", shutil.which("true") or "/bin/true"))
    assert analyze("verify", copy) == ""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_leaves_little_open(unit: Path) -> None:
    said = analyze("security", "--offline=true", unit)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+) OK", said)
    assert exposure is not None and float(exposure[1]) <= MOST, said


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_says_what_the_process_does(unit: Path) -> None:
    parsed = [
        program._parser().parse_args(shlex.split(line.partition("/bin/ncfast ")[2]))
        for name in ("ExecStart", "ExecReload")
        for line in settings(unit, name)
        if "/bin/ncfast " in line
    ]
    start, check = parsed
    assert start.config == check.file and check.quiet
    assert settings(unit, "ExecReload")[1:] == ["kill -HUP $MAINPID"]
    assert settings(unit, "Type") == ["notify"]
    assert settings(unit, "TimeoutStopSec") == [str(KILLED_AFTER)]
    assert settings(unit, "RestartPreventExitStatus") == [str(int(ExitCode.CONFIG))]
