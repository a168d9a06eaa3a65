"""Man pages and completions are those of the commands, and work where they are used."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.process import require
from support.until import PATIENCE

from docs import shell

MADE = shell.files()

# What the shell does at a tab: the function that is registered for the command, with the words so far.
TAB = """
. "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
function=$(complete -p ncfast) && function=${function#*-F } || exit
"${function%% *}" ncfast "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_a_file_is_current(path: Path) -> None:
    assert path.read_text() == MADE[path], "python -m docs.shell"


def test_nothing_is_left_of_commands_that_are_gone() -> None:
    there = [*shell.PAGES.iterdir(), *shell.COMPLETIONS.iterdir()]
    assert set(there) == set(MADE)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ncfast", "ki"], {"kick"}),
        (["ncfast", "check", "--str"], {"--strict"}),
        (["ncfast", "agents", "m"], {"move"}),
        (["ncfast", "completion", "f"], {"fish"}),
        (["ncfast", "hub", "--config", "conf"], {"config"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_completes(words: list[str], offered: set[str]) -> None:
    (bash,) = require("bash")
    script = shell.COMPLETIONS / "ncfast.bash"
    done = subprocess.run(
        [bash, "--norc", "-c", TAB, "bash", script, *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        cwd=shell.ROOT,
    )
    assert set(done.stdout.split()) == offered, done.stderr


@pytest.mark.parametrize("path", sorted(path for path in MADE if path.suffix == ".1"), ids=lambda path: path.name)
def test_groff_has_nothing_to_say_of_a_page(path: Path) -> None:
    (groff,) = require("groff")
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", path], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stderr == "" and path.stem.split("-")[-1] in done.stdout
