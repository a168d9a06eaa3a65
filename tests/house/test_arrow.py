"""The import arrow of ARCHITECTURE.md: rooms import from the rooms before them, and nothing else.

Every import counts, wherever it stands: at the top, inside a function, under TYPE_CHECKING, and Cython's `cimport`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ncfast"
CIMPORT = re.compile(r"^from (ncfast[\w.]*) c?import ([^#\n]+|\([^)]*\))", re.MULTILINE)


def module(path: Path) -> str:
    """The dotted name of a source file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module(path): path for pattern in ("*.py", "*.pyx") for path in sorted(PACKAGE.rglob(pattern))}


def names(imported: str, what: Iterable[str]) -> set[str]:
    """The modules behind `from imported import what`."""
    found = {f"{imported}.{name}" for name in what}
    return {one if one in SOURCES else imported for one in found}


def imports(path: Path) -> set[str]:
    """Modules of ours that a source file imports."""
    text = path.read_text()
    found: set[str] = set()
    if path.suffix == ".pyx":
        for source in (text, path.with_suffix(".pxd").read_text()):
            for imported, what in CIMPORT.findall(source):
                found |= names(imported, re.findall(r"\w+", what))
        return found
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ncfast":
            found |= names(node.module or "", [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "ncfast"}
    return found


GRAPH = {name: imports(path) - {"ncfast", name} for name, path in SOURCES.items()}


def room(name: str) -> str:
    """The folder of a module, or the module itself where it lies in none."""
    return name.split(".")[1] if "." in name else name


def arrow() -> dict[str, int]:
    """From ARCHITECTURE.md: each room and its step."""
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("\n## The arrow\n")[2]
    line = next(line for line in text.splitlines() if " → " in line)
    return {name: step for step, rooms in enumerate(line.strip().split(" → ")) for name in rooms.split(", ")}


def test_every_module_has_a_room_in_the_arrow():
    assert {room(name) for name in GRAPH} - {"ncfast", "__main__"} == set(arrow())


def test_rooms_import_only_from_rooms_before_them():
    steps = arrow() | {"ncfast": -1, "__main__": 99}
    against = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if room(name) != room(other) and steps[room(other)] >= steps[room(name)]
    ]
    assert not against


# Of a package that reads as one: its parts know the whole only for the type checker.
WHOLE = {"ncfast.mesh": {"ncfast.mesh.manager"}}


def test_no_circles_inside_a_room():
    wholes = {name: whole for package, whole in WHOLE.items() for name in GRAPH if name.startswith(f"{package}.")}
    graph = {
        name: others - wholes.get(name, set()) if name not in wholes.get(name, set()) else others
        for name, others in GRAPH.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        raise AssertionError(f"a circle: {' -> '.join(exc.args[1])}") from None


def test_the_core_knows_no_event_loop():
    outside = re.compile(
        r"^\s*(?:import|from|cimport) (asyncio|uvloop|socket|time|random|ssl|logging|aiofastnet|os)\b", re.MULTILINE
    )
    core = [path for name, path in SOURCES.items() if room(name) in ("core", "_frames")]
    assert {"core/relay.pyx", "core/timeouts.py"} <= {str(path.relative_to(PACKAGE)) for path in core}
    assert not {path.name: outside.findall(path.read_text()) for path in core if outside.search(path.read_text())}
