"""What a container engine gives a process, without an engine or an image: a network of its own, names of the others,
files at the paths that its file says, no capabilities. The root's programs are this machine's.

Needs root, iproute2, util-linux and overlayfs; where they are not permitted `Containers` skips the test and says why.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from support.namespaces import Namespaces
from support.process import Program, child_env, require
from support.until import PATIENCE

# /etc with the files on top, read-only as in a read-only root; /run and scratch places of the process's own.
_ENTER = """
mount -t overlay -o lowerdir="$1/etc:/etc" overlay /etc
mount -t tmpfs tmpfs /run
cp -a "$1/run/." /run/
for place in $2; do mount -t tmpfs tmpfs "$place"; done
shift 2
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


class Containers:
    """Makes containers by name; ``names`` are all that there will be, so that each knows the others' addresses."""

    def __init__(self, directory: Path, names: Mapping[str, Sequence[str]]) -> None:
        """``names``: of each container, the names by which the others know it beside its own."""
        self._unshare, self._nsenter, _ = require("unshare", "nsenter", "setpriv")
        self._places = Namespaces()
        self._directory = directory
        self._running: dict[str, Program] = {}
        self._hosts = "127.0.0.1 localhost\n" + "".join(
            f"{self._places.host(name)} {' '.join(dict.fromkeys([name, *others]))}\n" for name, others in names.items()
        )
        # the product's command, as the image has it in its PATH
        self.programs = directory / "bin"
        self.programs.mkdir()
        command = self.programs / "ncfast"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ncfast "$@"\n')
        command.chmod(0o755)
        probe = subprocess.run([*self._inside(self._root("probe", {}), ()), "true"], capture_output=True, text=True)
        if probe.returncode:
            self.close()
            pytest.skip(f"mounts are not permitted here: {probe.stderr.strip()}")

    def address(self, name: str) -> str:
        """Where this process reaches it."""
        return self._places.host(name)

    def run(
        self,
        name: str,
        argv: Sequence[str],
        *,
        files: Mapping[str, Path | str],
        env: Mapping[str, str] | None = None,
        scratch: Sequence[str] = (),
    ) -> Program:
        """Start it. ``files`` are below /etc and /run, from a file or folder or as text; a path that ends in a
        slash is an empty folder. ``scratch`` are directories of this machine in whose place it has empty ones."""
        prefix = [*self._places.prefix(name), *self._inside(self._root(name, files), scratch)]
        self._running[name] = Program(name, [*prefix, *argv], self._directory, env=self._env(env))
        return self._running[name]

    def exec(self, name: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Another command there, to its end; as `kubectl exec` and `docker compose exec` do it."""
        prefix = [self._nsenter, "--target", str(self._running[name].pid), "--net", "--mount"]
        return subprocess.run(
            [*prefix, *argv], capture_output=True, text=True, timeout=PATIENCE, env=self._env(None), cwd="/"
        )

    def close(self) -> None:
        for program in reversed(self._running.values()):
            program.stop()
        self._places.close()

    def _env(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return child_env({"PATH": f"{self.programs}:{child_env()['PATH']}:/usr/sbin:/sbin", **(env or {})})

    def _inside(self, root: Path, scratch: Sequence[str]) -> list[str]:
        enter = [self._unshare, "--mount", "--propagation", "private", "sh", "-euc", _ENTER, "sh"]
        return [*enter, str(root), " ".join(scratch)]

    def _root(self, name: str, files: Mapping[str, Path | str]) -> Path:
        root = self._directory / f"{name}.root"
        for path, content in {"/etc/hosts": self._hosts, "/run/": "", **files}.items():
            at = root / path.strip("/")
            assert path.startswith(("/etc/", "/run/")), f"{path}: only these are in a container's own hands here"
            at.parent.mkdir(parents=True, exist_ok=True)
            if path.endswith("/"):
                at.mkdir(exist_ok=True)
            elif isinstance(content, str):
                at.write_text(content)
            elif content.is_dir():
                shutil.copytree(content, at, dirs_exist_ok=True)
            else:
                shutil.copy(content, at)
        return root
