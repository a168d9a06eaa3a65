"""No name that nobody uses: what vulture finds in the Python files, and the like for what Cython files declare."""

from __future__ import annotations

import keyword
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from vulture import Vulture

PACKAGE = Path(__file__).parents[2] / "ncfast"

# Names that no line of ours mentions, and who uses them. A pattern that spares nothing must go.
USED_BY = {
    "pydantic": ["model_config"],
    "the scenarios of conformance, as verbs": ["_do_*"],
    "http.client, of what it takes for a socket": ["makefile"],
    "the TLS library": ["num_tickets"],
    "tarfile": ["mtime"],
    "the Redis client": ["ssl_context"],
    "docs/generate.py": ["section_text"],
    "the tests, of the registry as a whole": ["list_agents"],
    "the tests, of the proxy that the demonstration has in common with them": ["connections", "slice", "trickle"],
    "the tests, of the dedup ring": ["evicted", "longest_run", "siphash13"],
    "prometheus_client, of what is collected": ["collect"],
    "the interpreter, of weak references": ["__weakref__"],
}

ATTRIBUTE = re.compile(
    r"^\s+cdef (?:public |readonly )?(?!class\b|inline\b)[\w.]+(?:\[[^\]]*\])?[ *]+"  # a type
    r"(\w+(?:\[\w+\])?(?:, *\*?\w+(?:\[\w+\])?)*)\s*$",  # names
    re.MULTILINE,
)
FUNCTION = re.compile(r"^\s*(?:def|cdef|cpdef)\b[^\n(=]*?\b(\w+)\(", re.MULTILINE)


def bare(text: str) -> str:
    """Source without comments and docstrings, whose words use nothing."""
    return re.sub(r'""".*?"""|#[^\n]*', "", text, flags=re.DOTALL)


def python_names(package: Path) -> dict[str, str]:
    """Names of Python files that neither these nor the Cython files use, and where they are."""
    vulture = Vulture(ignore_decorators=["@model_validator*", "@field_validator*"])
    vulture.scavenge([package])
    for source in package.rglob("*.pyx"):
        words = set(re.findall(r"[A-Za-z_]\w*", bare(source.read_text())))
        vulture.scan("\n".join(sorted(words - set(keyword.kwlist))), filename=str(source))
    return {one.name: f"{one.filename}:{one.first_lineno}" for one in vulture.get_unused_code(min_confidence=60)}


def cython_names(package: Path) -> dict[str, str]:
    """Attributes of Cython classes that are never read, and functions that are never mentioned but where they stand."""
    text = "\n".join(bare(path.read_text()) for pattern in ("*.py", "*.pyx") for path in package.rglob(pattern))
    dead = {}
    for path in (*package.rglob("*.pxd"), *package.rglob("*.pyx")):
        source = bare(path.read_text())
        for names in ATTRIBUTE.findall(source) if path.suffix == ".pxd" else ():
            for name in re.findall(r"(\w+)(?:\[\w+\])?", names):
                if not re.search(rf"\b{name}\b(?!\s*(?:=(?!=)|\+=|-=))", text):
                    dead[name] = str(path)
        for name in FUNCTION.findall(source) if path.suffix == ".pyx" else ():
            if not name.startswith("__") and len(re.findall(rf"\b{name}\b", text)) < 2:
                dead[name] = str(path)
    return dead


def test_no_name_is_dead():
    found = python_names(PACKAGE) | cython_names(PACKAGE)
    patterns = [pattern for some in USED_BY.values() for pattern in some]
    dead = {name: place for name, place in found.items() if not any(fnmatch(name, one) for one in patterns)}
    assert not dead, "nobody uses these"
    assert not [one for one in patterns if not any(fnmatch(name, one) for name in found)], "these spare nothing"


@pytest.mark.parametrize(
    ("file", "planted", "name"),
    [
        ("hub.py", "def planted(): pass", "planted"),
        ("hub.py", "class Used:\n    planted = 1\nUsed()", "planted"),
        ("flow.pxd", "cdef class Flow:\n    cdef readonly int planted", "planted"),
        ("flow.pxd", "cdef class Flow:\n    cdef public object read, planted", "planted"),
        ("flow.pyx", "cdef class Flow:\n    def planted(self):\n        pass", "planted"),
        ("flow.pyx", "cdef int planted(Flow flow) except -1:\n    return 0", "planted"),
    ],
)
def test_a_planted_name_is_seen(tmp_path, file, planted, name):
    (tmp_path / "uses.py").write_text("import x\nprint(x.read)\nx.planted_too = 1  # planted\n")
    (tmp_path / "more.pyx").write_text('"""Tells of planted."""\nx.planted = 1\nx.planted += 1\n' * (file[-1] == "d"))
    (tmp_path / file).write_text(planted)
    found = python_names(tmp_path) | cython_names(tmp_path)
    assert name in found and "read" not in found
