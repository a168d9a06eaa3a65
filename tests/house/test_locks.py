"""The locks hold what pyproject.toml asks for, each package by its hashes, and whoever builds for others uses them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
BUILD = PROJECT["build-system"]["requires"]
LOCKS = {
    "run": RUN,
    "build": BUILD,
    "dev": RUN + BUILD + EXTRAS["test"] + EXTRAS["dist"] + EXTRAS["docs"],
    "fuzz": RUN + EXTRAS["fuzz"],
    "bench": RUN + EXTRAS["bench"],
}
PINNED = re.compile(r"([\w.-]+)==([\w.]+)( ; [^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")
DATED = {"structlog"}  # versions are dates, and say nothing of what breaks


def packages(lock: str) -> dict[str, Version]:
    """What a lock pins; all of it must be read, so that nothing stands there without hashes."""
    text = (ROOT / "locks" / f"{lock}.txt").read_text()
    assert PINNED.sub("", text) == ""
    return {canonicalize_name(name): Version(version) for name, version, *_ in PINNED.findall(text)}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_covers_what_is_asked_for(lock):
    pinned = packages(lock)
    wanted = [Requirement(line) for line in LOCKS[lock]]
    missing = [
        str(one) for one in wanted if not one.specifier.contains(pinned.get(canonicalize_name(one.name), "0.dev0"))
    ]
    assert not missing, "make lock"


def test_locks_agree():
    run = packages("run")
    for lock in ("dev", "fuzz", "bench"):
        others = packages(lock)
        assert {name: others.get(name) for name in run} == run, "make lock"
    assert packages("build").items() <= packages("dev").items()


def test_every_lock_is_known():
    assert {path.stem for path in (ROOT / "locks").iterdir()} == set(LOCKS)


def test_what_runs_has_an_upper_bound():
    unbounded = {one.name for one in map(Requirement, RUN) if not any(spec.operator == "<" for spec in one.specifier)}
    assert unbounded <= DATED


def test_image_and_hosted_workflow_take_the_locks_alone():
    image = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    installs = re.findall(r"pip (?:install|wheel) [^&\n]*", image)
    assert installs and all("--require-hashes -r locks/" in one or "--no-index" in one for one in installs)
    assert re.search(r"^  LOCKED: 1\b", (ROOT / ".github" / "workflows" / "ci.yml").read_text(), re.MULTILINE)
    made = (ROOT / "Makefile").read_text()
    installs = re.findall(r"^\t.*(?:\$\(PIP\)|pip install).*$", made, re.MULTILINE)
    assert installs and all("--require-hashes -r locks/" in one or "$(ALONE)" in one for one in installs)
