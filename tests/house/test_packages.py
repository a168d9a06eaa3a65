"""What sdist and wheel hold. The modules are left uncompiled here: that takes a minute, and changes none of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from support.process import require
from support.until import PATIENCE

ROOT = Path(__file__).parents[2]
LINK = Path("ncfast/share/examples")  # to config/
OF_GIT = {Path(".gitignore"), Path(".git-blame-ignore-revs")}
MADE = {Path("PKG-INFO"), Path("setup.cfg")}
CHART = Path("config/helm/ncfast")
LINKS = {LINK, CHART / "rules", CHART / "dashboards"}  # folders by another name; a package has their files
SHIPPED = {
    Path(folder).relative_to(ROOT) / name
    for folder, _, names in os.walk(ROOT / "config", followlinks=True)
    for name in names
}


def setup(directory: Path, command: str) -> Path:
    """What a command of setup.py has made in dist/."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", command], cwd=directory, check=True, timeout=PATIENCE, capture_output=True
    )
    (made,) = (directory / "dist").iterdir()
    return made


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The files of a clone."""
    (git,) = require("git")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, check=False, timeout=PATIENCE, capture_output=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    return [path for name in listed.stdout.decode().split("\0")[:-1] if os.path.lexists(ROOT / (path := Path(name)))]


@pytest.fixture(scope="module")
def sdist(tracked: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of a clone, unpacked."""
    directory = tmp_path_factory.mktemp("sdist")
    for path in tracked:
        copy = directory / "clone" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, copy, follow_symlinks=False)
        if path.suffix == ".pyx":
            copy.with_suffix(".c").touch()  # newer than its source: nothing is translated
    with tarfile.open(setup(directory / "clone", "sdist")) as archive:
        archive.extractall(directory, filter="data")
    (unpacked,) = directory.glob("ncfast-*")
    return unpacked


def test_the_sdist_has_what_a_clone_has(sdist: Path, tracked: list[Path]) -> None:
    held = {path.relative_to(sdist) for path in sdist.rglob("*") if path.is_file()}
    linked = SHIPPED | {LINK / path.relative_to("config") for path in SHIPPED}
    assert set(tracked) - held == LINKS | OF_GIT
    assert {path for path in held - set(tracked) - linked if "egg-info" not in path.parts[0]} == MADE


def test_a_wheel_made_from_the_sdist_is_whole(sdist: Path) -> None:
    for source in sdist.rglob("*.pyx"):
        source.unlink()
    with zipfile.ZipFile(setup(sdist, "bdist_wheel")) as wheel:
        names = set(wheel.namelist())
    ours = {name for name in names if name.startswith("ncfast/")}
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "ncfast").rglob("*.p*")
        if path.suffix in (".py", ".pxd", ".pyi")
    }
    shipped = {path for path in SHIPPED if path.parts[1] != "bad" and not path.name.startswith(".")}
    examples = {f"{LINK}/{path.relative_to('config')}" for path in shipped}
    completions = {f"ncfast/share/completions/{name}" for name in ("ncfast.bash", "_ncfast", "ncfast.fish")}
    scenarios = {f"ncfast/share/{kind}scenarios.json" for kind in ("", "hub_", "mesh_")}
    assert ours == sources | examples | completions | scenarios | {"ncfast/py.typed"}
    data = {name.partition(".data/data/")[2] for name in names if ".data/" in name}
    assert {f"share/man/man1/{path.name}" for path in (ROOT / "docs" / "man").iterdir()} < data
    assert "share/bash-completion/completions/ncfast.bash" in data


def test_wheels_are_built_for_every_python_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = [one.partition("-")[0] for one in project["tool"]["cibuildwheel"]["build"]]
    assert built == [f"cp3{minor}" for minor in range(11, 15)]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert all(f'"{one[2]}.{one[3:]}"' in workflow for one in built)
