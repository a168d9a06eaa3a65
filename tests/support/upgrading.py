"""Hubs that are upgraded while a test runs, and transfers that last as long as that takes."""

from __future__ import annotations

import sys
import threading
from typing import Any

from support.eventlog import EventLog
from support.ncfast_process import Hub
from support.peer import Address, Both, Peer, run_flow
from support.process import Program
from support.script import Gates, Step
from support.transfer import Transfer
from support.until import wait_until

TO_SERVICE, TO_CLIENT = 40, 60  # bytes of a conversation


async def conversation(peer: Peer, address: Address, gates: Gates, gate: str) -> Both:
    """A few bytes to and fro, and more once the gate `go` of the client, and that of the service, are open."""
    return await run_flow(
        peer,
        address,
        client=[["send", 10], ["read", 20], ["wait", "go"], ["send", 30], ["read", 40], ["fin"], ["drain"]],
        service=[["read", 10], ["send", 20], ["wait", gate], ["read", 30], ["send", 40], ["drain"], ["fin"]],
        gates=gates,
    )


class PassingHub(Hub):
    """One hub in the test's eyes, whichever process it is."""

    def check_conservation(self) -> None:
        """As ever, but that lines of the access log are those of all processes."""
        status = self.wait_idle()
        flows, read = status["flows"], status["bytes"]
        closed = sum(flows["closed"].values())
        assert flows["opened"] == closed + flows["passed"], flows
        assert status["memory"]["held_bytes"] == 0, status["memory"]
        assert read["client_in"] == read["acknowledged"] + read["discarded"], read
        for direction in ("in", "out"):
            assert read[f"client_{direction}"] == sum(one[direction] for one in read["listeners"].values()), read
        wait_until(lambda: len(self.access_lines()) >= closed, f"{closed} access-log lines")
        lines = self.access_lines()
        assert len({line["cid"] for line in lines}) == len(lines), "a flow has two access-log lines"


class UpgradingHub(PassingHub):
    """Upgraded over its admin edge, by a successor that may be told to die."""

    def start(self) -> None:
        self.may_print = False
        self._dies = self._directory / f"{self.name}.dies"
        self._dies.write_text("")
        command = [sys.executable, "-m", "support.dying_program", "hub", "--stay-parent", "--config"]
        self.program = Program(
            self.name, [*self.prefix, *command, str(self.config_path)], self._directory, max_files=self.max_files
        )
        self.log = EventLog(self.program.err_path, self.program.exit_code)
        self._begin = self.log.mark()
        self.ready = self.log.wait("hub_ready", after=self._begin)

    def check_log(self) -> None:
        """What a successor that is to fail has printed is no line of the log."""
        if self.may_print:
            self.log.stray.clear()
        super().check_log()

    def begin_upgrade(self, dies: str = "") -> int:
        """Asks for one; where its log begins. `dies`: the first message of its predecessor's that a successor does not
        live to take."""
        mark = self.log.mark()
        self._dies.write_text(dies)
        code, body = self.get("/upgrade", admin=True, method="POST")
        assert code == 202, (code, body)
        return mark

    def upgrade(self) -> dict[str, Any]:
        """One from beginning to end: what the successor says of it."""
        mark = self.begin_upgrade()
        done = self.log.wait("upgrade_done", after=mark)
        self.log.wait("stopped", after=mark)  # by the predecessor
        return done


PIECES = 2000  # gates of a steady transfer
PIECE = 16384  # bytes each way between two of them
BEAT = 0.04  # seconds between two gates: what a busy machine needs for two upgrades goes by


class Steady(Transfer):
    """Bytes go both ways all the time until it is released, so that whatever happens meets them; after `PIECES` it is
    silent."""

    def __init__(self, peer: Peer, address: Address, name: str = "") -> None:
        super().__init__(peer, address, name, PIECES * PIECE)
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._beat, name=f"beats {name}")

    def _sending(self) -> list[Step]:
        steps = [step for number in range(PIECES) for step in (["wait", f"{self._seed}.{number}"], ["send", PIECE])]
        return [*steps, ["wait", self._rest]]

    def _beat(self) -> None:
        for number in range(PIECES):
            self._open(f"{self._seed}.{number}")
            self._over.wait(BEAT)

    def wait_under_way(self) -> None:
        self._beats.start()
        self.wait_moved(PIECE)

    def wait_moved(self, more: int) -> None:
        goal = min(self.size, max(self.received()) + more)
        wait_until(lambda: min(self.received()) >= goal, f"transfer {self.name} moving {more} bytes each way")

    def release(self) -> None:
        self._over.set()
        if self._beats.ident is not None:
            self._beats.join()
        self._open(self._rest)
