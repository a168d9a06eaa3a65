"""Child processes: started with their output in files, observed through /proc, ended by their own pid."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.until import PATIENCE

TESTS = Path(__file__).resolve().parents[1]
PACKAGE_ROOT = Path(importlib.util.find_spec("ncfast").origin).resolve().parents[1]


def child_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: this interpreter's packages, no proxies and no product settings."""
    hidden = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    env = {k: v for k, v in os.environ.items() if k.lower() not in hidden and not k.startswith("NC_")}
    env["PYTHONPATH"] = os.pathsep.join([str(PACKAGE_ROOT), str(TESTS)])
    if os.geteuid():
        env["NC_CORE_DUMPS"] = "1"  # else /proc/PID/fd of a hub is root's alone
    env.update(extra or {})
    return env


def open_many() -> None:
    """This process, and those that it starts, may open as many files as the system allows."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def require(*programs: str, places: Sequence[str] = ()) -> list[str]:
    """Full paths of programs, looked for in ``places``, too, or a skip that names the missing one."""
    found = []
    for program in programs:
        usual = os.environ["PATH"].split(os.pathsep) + ["/usr/sbin", "/sbin", "/usr/local/sbin"]
        path = next((p for d in [*places, *usual] if os.access(p := os.path.join(d, program), os.X_OK)), None)
        if path is None:
            pytest.skip(f"the program {program} is not installed")
        found.append(path)
    return found


class Program:
    """One child process. ``stderr`` goes to ``<name>.err`` and ``stdout`` to ``<name>.out`` unless piped."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        directory: Path,
        *,
        env: Mapping[str, str] | None = None,
        piped: bool = False,
        max_files: int | None = None,
    ) -> None:
        self.name = name
        self.err_path = directory / f"{name}.err"
        self.out_path = directory / f"{name}.out"
        if max_files is not None:
            argv = ["/bin/sh", "-c", f'ulimit -n {max_files}; exec "$@"', "sh", *argv]
        with self.err_path.open("ab") as err, self.out_path.open("ab") as out:
            self._child = subprocess.Popen(
                argv,
                cwd=directory,
                env=child_env(env),
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else out,
                stderr=err,
            )
        self._asking = threading.Lock()

    @property
    def pid(self) -> int:
        return self._child.pid

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._child.poll()

    def signal(self, number: int) -> None:
        self._child.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {timeout} s\n{self.tail()}") from None

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM, then SIGKILL when it does not listen; its exit code."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(timeout)
            except subprocess.TimeoutExpired:
                self._child.kill()
        code = self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        return code

    def kill(self) -> None:
        """SIGKILL: the end that no process can prepare for."""
        self._child.send_signal(signal.SIGKILL)
        self._child.wait()

    def rss(self) -> int:
        """Resident bytes now."""
        return self._memory("VmRSS")

    def peak_rss(self) -> int:
        """Highest resident bytes since start or ``reset_peak``."""
        return self._memory("VmHWM")

    def reset_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _memory(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{self.name} has no {field}")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tail(self, lines: int = 30) -> str:
        """The end of its output, for a failure report."""
        parts = []
        for path in (self.err_path, self.out_path):
            if path.exists() and path.stat().st_size:
                text = path.read_text(errors="replace").splitlines()[-lines:]
                parts.append(f"--- {path.name}\n" + "\n".join(line[:600] for line in text))
        return "\n".join(parts) or f"--- {self.name} wrote nothing"

    def ask(self, **request: Any) -> Any:
        """One JSON request line on its standard input, one JSON answer line from its standard output.

        From any thread.
        """
        assert self._child.stdin is not None and self._child.stdout is not None
        with self._asking:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()
            return self.answer()

    def answer(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise AssertionError(f"{self.name} ended with {self.exit_code()}\n{self.tail()}")
        return json.loads(line)


def support_program(module: str, directory: Path, name: str, *arguments: str) -> Program:
    """Start one of this package's own programs, with a JSON conversation on its pipes."""
    return Program(name, [sys.executable, "-m", f"support.{module}", *arguments], directory, piped=True)
