"""HAProxy in front of hubs' listeners, by the text that docs/operations.md gives; only ports and addresses are
replaced."""

from __future__ import annotations

import csv
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from bench.ports import free_port
from support.ncfast_process import Hub
from support.peer import Address
from support.process import Program, require
from support.until import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def listen_section() -> str:
    """The page's section for the listeners, as it stands there."""
    block = re.search(r"^```haproxy\n(listen ldap\n(?:    .*\n)+)", PAGE.read_text(), re.MULTILINE)
    assert block is not None, f"{PAGE.name} has no HAProxy section for listeners"
    return block[1]


class HAProxy:
    """One process with the page's section, or another `text`; its servers are the given hubs, three at most."""

    def __init__(self, directory: Path, hubs: Mapping[str, Hub], connector: str, text: str | None = None) -> None:
        (program,) = require("haproxy")
        self.address: Address = ("127.0.0.1", free_port())
        self._socket = directory / "haproxy.sock"
        own = directory / "haproxy-own.cfg"
        own.write_text(f"global\n    stats socket {self._socket}\n")
        page = directory / "haproxy-page.cfg"
        page.write_text(self._placed(listen_section() if text is None else text, hubs, connector))
        self.program = Program("haproxy", [program, "-db", "-f", str(own), "-f", str(page)], directory)
        wait_until(lambda: self.program.exit_code() is not None or self._answers(), "haproxy listening")
        assert self.program.exit_code() is None, self.program.tail()

    def _placed(self, text: str, hubs: Mapping[str, Hub], connector: str) -> str:
        text = re.sub(r"bind :\d+", "bind %s:%d" % self.address, text)
        lines = re.findall(r"^    server .*\n", text, re.MULTILINE)
        servers = []
        for line, (name, hub) in zip(lines, hubs.items(), strict=False):
            place = "%s:%d" % hub.listener(connector)
            if " check port " in text:
                place += f" port {hub.edge[1]}"
            line, count = re.subn(r"server hub-\w+ [\d.]+:\d+", f"server {name} {place}", line)
            assert count == 1, line
            servers.append(line)
        return text.replace("".join(lines), "".join(servers))

    def _answers(self) -> bool:
        """It does when all its doors are open; a client of the listener's would be one of the hubs', too."""
        try:
            return bool(self.states())
        except OSError:
            return False

    def states(self) -> dict[str, str]:
        """What HAProxy thinks of each server: UP, DOWN, or on its way between them."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self._socket))
            asked.sendall(b"show stat\n")
            with asked.makefile() as answer:
                rows = csv.DictReader(answer.read().lstrip("# ").splitlines())
                return {row["svname"]: row["status"] for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")}

    def wait(self, name: str, state: str) -> None:
        """Until HAProxy thinks so of the server."""
        wait_until(lambda: self.states()[name] == state, lambda: f"{name} {state}: {self.states()}")

    def stop(self) -> None:
        self.program.stop()
