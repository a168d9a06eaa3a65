"""Commands of a page, as a reader types them: one shell, line after line, servers in terminals of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from support.until import wait_until

SERVERS = {  # how a command that does not end says that it serves
    r"(?:\w+=\S+ )*ncfast hub\b": '"event":"hub_ready"',
    r"ncfast agent\b": '"event":"tunnel_up"',
    r"redis-server\b": "Ready to accept connections",
    r"python -m http\.server\b": "Serving HTTP",
    r"\S*slapd -d 256\b": "slapd starting",
}


def blocks(page: str, heading: str) -> list[list[str]]:
    """The commands of a section's `sh` blocks: continued lines put together, loops whole, comments taken away."""
    section = re.split(r"^## ", page.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return [list(_commands(block)) for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)]


def _commands(block: str) -> Iterator[str]:
    loop: list[str] = []
    for raw in re.sub(r"\\\n\s*", " ", block).splitlines():
        line = re.sub(r"(?:^|\s+)# .*", "", raw).strip()
        if loop or re.match(r"for .*; do$", line):
            loop.append(line)
            line = "\n".join(loop) if line == "done" else ""
        if line:
            loop.clear()
            yield line


class Walk:
    """A shell in `place`, behind the command `prefix`; `close` ends all that it has started."""

    def __init__(self, place: Path, prefix: Sequence[str], env: Mapping[str, str]) -> None:
        self._place = place
        self._started = 0
        self._shell = subprocess.Popen(
            [*prefix, "bash", "--norc"],
            cwd=place,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, line: str) -> str:
        """Runs a command; what it has written. Raises AssertionError when it fails. A server is left running once it
        serves, and its log returned."""
        ready = next((said for pattern, said in SERVERS.items() if re.match(pattern, line)), None)
        return self._run(line) if ready is None else self._serve(line, ready)

    def start(self, line: str) -> Path:
        """Runs a command beside what follows; where its output goes."""
        self._started += 1
        log = self._place / f"terminal-{self._started}.log"
        log.touch()
        self._run(f"{{ {line} ; }} > {log} 2>&1 & sleep 0")
        return log

    def _serve(self, line: str, ready: str) -> str:
        log = self.start(line)
        wait_until(lambda: ready in log.read_text(), lambda: f"{line}: {log.read_text()[-2000:]}")
        return log.read_text()

    def _run(self, line: str) -> str:
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write(f'{line}\necho "--ended $?"\n')
        self._shell.stdin.flush()
        said = []
        for out in self._shell.stdout:
            if out.startswith("--ended "):
                assert out == "--ended 0\n", f"{line}: {out}{''.join(said)}"
                return "".join(said)
            said.append(out)
        raise AssertionError(f"the shell ended at {line}: {''.join(said)}")

    def close(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._shell.pid, number)
            except ProcessLookupError:
                break
            try:
                self._shell.wait(10)
            except subprocess.TimeoutExpired:
                continue
        self._shell.wait()
