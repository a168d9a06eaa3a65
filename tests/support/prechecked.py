"""The table of `ncfast check --connect`, as its reader sees it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from ncfast.cli import main
from ncfast.observe import log
from support.ncfast_process import ncfast
from support.process import child_env
from support.until import PATIENCE

_ROW = re.compile(r"(?P<what>\S.*?) {2,}(?P<step>\S+) {2,}(?P<result>PASS|FAIL|SKIP) *(?P<detail>.*)")


class Prechecked:
    """One run of it, in this process: what is told of it is the command's, and that it runs by itself is told by one
    test of each file."""

    def __init__(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        out, err = io.StringIO(), io.StringIO()
        with patch.dict(os.environ, child_env(env), clear=True), redirect_stdout(out), redirect_stderr(err):
            try:
                self.code = main([str(word) for word in arguments])
            finally:
                log.setup(stream=sys.__stderr__)
        self._read(out.getvalue(), err.getvalue())

    def _read(self, out: str, err: str) -> None:
        self.out, self.err = out, err
        self.rows = [found.groupdict() for line in out.splitlines() if (found := _ROW.fullmatch(line))]

    def of(self, what: str) -> dict[str, str]:
        """Results by step, of the rows whose subject begins so."""
        return {row["step"]: row["result"] for row in self.rows if row["what"].startswith(what)}

    @property
    def failed(self) -> dict[str, str]:
        """Details of what failed, by step."""
        return {row["step"]: row["detail"] for row in self.rows if row["result"] == "FAIL"}


def check(directory: Path, config: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Prechecked:
    """`ncfast check --connect` of such a file."""
    path = directory / "checked.yaml"
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    return Prechecked("check", "--quiet", "--connect", path, env=env)


class OwnProcess(Prechecked):
    """The same as a process."""

    def __init__(self, *arguments: str | Path) -> None:
        done = subprocess.run(
            ncfast(*arguments), capture_output=True, text=True, timeout=PATIENCE, check=False, env=child_env()
        )
        self.code = done.returncode
        self._read(done.stdout, done.stderr)
