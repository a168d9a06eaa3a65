"""The documents keep what they promise: paths exist, generated parts are current, commands parse, events are known."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from docs import generate
from ncfast._frames import FrameType
from ncfast.auth.errors import REASONS as TOKEN_REASONS
from ncfast.cli import program
from ncfast.config.agent import AgentConfig
from ncfast.config.hub import HubConfig
from ncfast.config.warnings import KILLED_AFTER
from ncfast.core.errors import Reason
from ncfast.observe.readiness import Readiness

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(page for room in ("docs", "examples") for page in sorted((ROOT / room).rglob("*.md"))),
]
SOURCES = [path for path in sorted((ROOT / "ncfast").rglob("*.p*")) if path.suffix in (".py", ".pyx", ".pxd")]
NAMED_PATH = re.compile(r"`((?:ncfast|tests|docs|examples|bench|config|\.ci)/[\w./-]*[\w/-])`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[\w-]*)?\)")
EVENT_CALL = re.compile(
    r"(?:_log\.(?:debug|info|warning|error|exception)|log\.security)\(\s*(?:\(|\w+ if \w+ else )*\"(\w+)\""
)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def section(page: str, title: str) -> str:
    """The text of a page from a heading to the next of the same or a higher level."""
    text = (ROOT / page).read_text()
    level = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert level is not None, title
    return re.split(rf"^#{{1,{len(level[1])}}} ", text[level.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> set[str]:
    """Words in backquotes in the first column of tables."""
    return {
        word
        for line in text.splitlines()
        if line.startswith("| `")
        for word in re.findall(r"`(\w+)`", line.split("|")[1])
    }


# paths


MADE = {"bench/results/"}  # not in a fresh clone, but once its maker has run


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_path_that_is_named_exists(page):
    text = page.read_text()
    missing = [path for path in NAMED_PATH.findall(text) if not (ROOT / path).exists() and path not in MADE]
    missing += [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert not missing


def test_sources_name_documents_that_exist():
    named = {path for source in SOURCES for path in re.findall(r"docs/[\w./-]+\.md", source.read_text())}
    assert named and not [path for path in named if not (ROOT / path).exists()]


# prose

GENERATED = {ROOT / "docs" / name for name in ("configuration.md", "metrics.md")}  # as a whole
NO_PROSE = re.compile(r"^ *```.*?^ *```|<!-- generated.*?<!-- end -->", re.DOTALL | re.MULTILINE)
ONE_WORD = re.compile(r"(?:[-*] |\d+\. )?\S+")  # a link alone cannot be wrapped


def wide(text: str) -> list[str]:
    """Lines of prose with more than 120 columns: not those of tables, code, generated parts."""
    return [
        line
        for line in NO_PROSE.sub("", text).splitlines()
        if len(line) > 120 and not line.lstrip().startswith("|") and not ONE_WORD.fullmatch(line.strip())
    ]


@pytest.mark.parametrize("page", sorted(set(PAGES) - GENERATED), ids=ids)
def test_prose_is_wrapped(page):
    assert not wide(page.read_text())


def test_what_is_no_prose_may_be_wide():
    long = " ".join(["word"] * 30)
    wrapped = f"| {long} |\n```sh\n{long}\n```\n<!-- generated: x -->\n{long}\n<!-- end -->\n- {'x' * 130}\n"
    assert wide(wrapped) == [] and wide(f"{wrapped}{long}\n- {long}\n") == [long, f"- {long}"]


# ARCHITECTURE.md


def test_architecture_is_short_and_names_every_module():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert len(text.splitlines()) <= 190
    mapped = {"core", "net", "hub", "agent"}  # module by module; the others say what they are as a whole
    rooms = {path.relative_to(ROOT / "ncfast").parts[0] for path in SOURCES if path.parent != ROOT / "ncfast"}
    assert not [room for room in rooms if f"`ncfast/{room}/`" not in text]
    for room in mapped:
        table = re.split(r"\n\n", text.partition(f"| `ncfast/{room}/` |")[2], maxsplit=1)[0]
        modules = {path.stem for path in SOURCES if path.parent == ROOT / "ncfast" / room and path.stem != "__init__"}
        assert first_cells(table) == modules, room


# what is generated


@pytest.mark.parametrize("page", generate.PAGES, ids=ids)
def test_generated_parts_are_current(page):
    text = page.read_text()
    assert generate.fill(text) == text, "python -m docs.generate"


def test_every_part_stands_somewhere():
    there = [name for page in generate.PAGES for _, name, _ in generate.PART.findall(page.read_text())]
    assert sorted(there) == sorted(generate.PARTS)


def test_every_reason_says_what_it_means():
    assert set(generate.meanings()) == set(Reason) - {Reason.NONE}


# docs/protocol.md


def test_the_agents_tables_have_every_frame():
    text = section("docs/protocol.md", "Frame by frame, at an agent")
    assert not [one.name for one in FrameType if not re.search(rf"^\|.*\b{one.name}\b.*?\|", text, re.MULTILINE)]


# docs/operations.md


def test_events_of_the_runbook_are_those_of_the_source():
    text = section("docs/operations.md", "Log events")
    for table_of_reasons in ("Why an agent does not connect", "Why a hub does not reach a peer"):
        text = text.replace(section("docs/operations.md", table_of_reasons), "")
    documented = first_cells(text)
    logged = {event for path in SOURCES for event in EVENT_CALL.findall(path.read_text())} | {"flow_closed"}
    written = {word for path in SOURCES for word in re.findall(r'"(\w+)"', path.read_text())}
    assert documented <= written
    assert logged <= documented


def test_reasons_of_the_runbook_are_those_of_the_table():
    flows, tunnels = (first_cells(section("docs/operations.md", f"Reasons of {what}")) for what in ("flows", "tunnels"))
    assert flows == {reason.label for reason in Reason if 0 < reason < generate.LINKS}
    assert tunnels == {reason.label for reason in Reason if reason >= generate.LINKS} | {"internal", "agent_locked"}


def test_readiness_reasons_and_token_reasons_are_explained():
    text = (ROOT / "docs" / "operations.md").read_text()
    troubled = Readiness(
        mode="active",
        mesh_ok=False,
        registry_ok=False,
        jwks_ok=False,
        memory_pressure=True,
        fd_pressure=True,
        listeners_down=1,
    )
    assert not [word for word in [*troubled.reasons(), *TOKEN_REASONS] if f"`{word}`" not in text]


# commands and keys


def test_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {}
    for page in (*PAGES, *(ROOT / ".github" / "workflows").iterdir(), ROOT / ".ci" / "run"):
        text = page.read_text()
        code = "\n".join(re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL)) if page.suffix == ".md" else text
        lines = re.findall(r"(?:^|`|run: |exec )make ((?:[a-z-]+(?![\w=-]) ?)+)", code, re.MULTILINE)
        named |= {target: ids(page) for line in lines for target in line.split()}
    assert len(named) > 8 and not {target: page for target, page in named.items() if target not in targets}


COMMAND = re.compile(r"(?:^(?:\w+=\S+ )*|python -m |/bin/)ncfast\b(?!-)")


def commands(page: Path) -> list[str]:
    """Command lines of ncfast in code blocks; continued lines are put together."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    blocks = re.findall(r"```(?:sh|ini)\n(.*?)```", text, re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if COMMAND.search(line) and not line.startswith("#")]


COMMANDS = [(page, line) for page in PAGES for line in commands(page)]


def test_there_are_commands():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize(
    ("page", "line"), COMMANDS, ids=lambda value: ids(value) if isinstance(value, Path) else value[:60]
)
def test_command_lines_parse(page, line, monkeypatch):
    words = shlex.split(COMMAND.split(line, maxsplit=1)[1], comments=True)
    end = next((place for place, word in enumerate(words) if word in (">", "|", "&&")), None)
    words = words[:end]

    def refuse(parser: argparse.ArgumentParser, message: str) -> None:
        raise AssertionError(f"{ids(page)}: {line}: {message}")

    monkeypatch.setattr(argparse.ArgumentParser, "error", refuse)
    program._parser().parse_args(words or ["hub"])


def test_supervisors_of_the_runbook_wait_as_long_as_check_takes_for_granted():
    text = (ROOT / "docs" / "operations.md").read_text()
    told = re.findall(r"^terminationGracePeriodSeconds: (\d+)$", text, re.MULTILINE)
    assert told == [str(KILLED_AFTER)]  # units of systemd: test_units.py


def test_dotted_keys_of_the_runbook_exist():
    text = (ROOT / "docs" / "operations.md").read_text()
    known = {}
    for name, section in [*AgentConfig.model_fields.items(), *HubConfig.model_fields.items()]:
        for key, field in getattr(section.annotation, "model_fields", {}).items():
            known.setdefault(name, set()).update({key, field.alias})
    named = re.findall(r"`(\w+)\.(\w+)(?::[^`]*)?`", text)
    assert not [f"{name}.{key}" for name, key in named if name in known and key not in known[name]]
