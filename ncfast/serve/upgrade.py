"""An upgrade, from the side of the process that runs: it starts its successor, and hands over to it.

The successor is started by the command line of this process, with the same interpreter, so it is whatever is
installed now; nothing in a request says what is run. It gets one end of a socket pair, whose number is in `HANDOVER`.
Until it has said that it is ready, and that it reads what we write, nothing has changed here; if it dies, refuses or is
silent before that, we log why and go on. Then hub or agent hands over, as `Subject` has it. Signals meanwhile:

  starting   SIGTERM ends the successor, and drains as ever
  passing    SIGTERM and SIGHUP are the successor's, which stops, or reads its file again, when it has everything; ours,
             too, if it does not come to that
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from ncfast.core.errors import NcfastError
from ncfast.core.record import FORMAT
from ncfast.net.channel import Channel, Message
from ncfast.net.seam import Net
from ncfast.observe import log, otlp
from ncfast.observe.upgrading import UNDER_WAY, UpgradeRefused
from ncfast.serve.heir import BEAT_SEC, HANDOVER, Heir
from ncfast.serve.parent import adopt, become, exit_code, hold, leave, pass_on, serving

REAP_SEC = 0.5  # for a successor that has closed its end to be gone, before it is killed
_LOOK = 0.01  # seconds between two looks whether it is
_LOOK_LINGERING = 0.1
_CONFIG_REFUSED = 78  # ncfast.cli.exitcode

_log = log.get("upgrade")


class UpgradeFailed(NcfastError):
    """The successor did not take over; the text says why."""


class Subject(Protocol):
    """A hub or an agent, as it is handed over."""

    async def hand_over(self, channel: Channel) -> None:
        """Passes everything to the process at the other end. Raises NcfastError when it has taken back what that did
        not take."""

    async def linger(self) -> None:
        """After that, until the sockets are closed that only deliver their last bytes, within a bound of its own."""

    def upgrade_failed(self) -> None:
        """It goes on, whatever the successor came to; for its counters."""


class Upgrading:
    """The upgrades of one process: as many as fail, and one that does not. `handed_over` is set by that."""

    def __init__(
        self, net: Net, subject: Subject, timeout_sec: Callable[[], float], heir: Heir | None, stay: bool
    ) -> None:
        """`heir` is what this process is, if it is a successor itself. With `stay`, or as the first process of a
        container, it is to be its successor's parent."""
        self._net = net
        self._subject = subject
        self._timeout_sec = timeout_sec
        self._heir = heir
        self.stays = (stay or os.getpid() == 1) and not (heir is not None and heir.has_parent)
        self._command = [sys.executable, *sys.orig_argv[1:]]
        self._standing = heir.standing if heir is not None else {"id": "", "state": "", "reason": ""}
        self._task: asyncio.Task[None] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._said: asyncio.Future[dict[str, Any]] | None = None
        self.refusal: Callable[[], str] = lambda: ""  # why none may begin now
        self.reloads: Callable[[], object] = lambda: None  # reads our file again
        self.at_once = False  # whoever asks for the end does not want to wait
        self.handed_over = asyncio.Event()
        self._stopping = False
        self._reload_passed = False
        self._silence = ""  # why the successor was killed, if it was

    # as it is asked for

    def standing(self) -> dict[str, Any]:
        return dict(self._standing)

    @property
    def under_way(self) -> bool:
        return self._standing["state"] in UNDER_WAY

    @property
    def _under_parent(self) -> bool:
        return self.stays or self._heir is not None and self._heir.has_parent

    @property
    def pid(self) -> int:
        """The successor's."""
        assert self._child is not None
        return self._child.pid

    def begin(self) -> dict[str, Any]:
        """Raises UpgradeRefused."""
        reason = "an upgrade is under way" if self.under_way else self.refusal()
        if self.handed_over.is_set():
            reason = "this process has handed over, and is about to end"
        if reason:
            _log.warning("upgrade_refused", reason=reason)
            raise UpgradeRefused(reason)
        self._standing = {"id": self._net.entropy(8).hex(), "state": "starting", "reason": ""}
        self._task = self._net.spawn(self._upgrade(), "upgrade")
        return self.standing()

    def on_signal(self) -> None:
        """SIGUSR2"""
        if self.passes(signal.SIGUSR2):
            return
        try:
            self.begin()
        except UpgradeRefused:  # it is in the log
            pass

    def passes(self, number: int) -> bool:
        """Whether a signal that has come is the successor's, which gets it: who sends one to a parent asks for the
        process that serves."""
        if not self.handed_over.is_set() or not self._under_parent:
            return False
        return pass_on(number)

    async def reload(self) -> bool:
        """Whether it is the successor that reads its file again; if it fails, we do. Returns when all that is passed to
        us has come: until then our predecessor listens wherever we do, and what a reload has closed could not be bound
        again."""
        if self._heir is not None and not self._heir.over.is_set():
            _log.info("reload_waits", detail="until all that is passed from the process before has come")
            await self._heir.over.wait()
        if self.passes(signal.SIGHUP):
            return True
        if self._channel is None or not self.under_way and not self.handed_over.is_set():
            return False
        if self._channel.closed and self.handed_over.is_set():
            _log.warning("reload_ignored", detail=f"process {self.pid} is the one that serves now")
        self._reload_passed = True
        self._channel.send("reload", {})
        return True

    async def until(self, asked: asyncio.Event) -> bool:
        """Returns when the process is to end: as it is `asked` to, or since it has handed over (True)."""
        ends = [self._net.spawn(event.wait(), "end") for event in (asked, self.handed_over)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for one in ends:
            one.cancel()
        if not self.handed_over.is_set():
            if self._heir is not None:  # what is passed to us is to have its time to end, too
                await self._heir.over.wait()
            await self._stop()
        if self.handed_over.is_set() and asked.is_set() and not self._stopping:
            self._pass_stop()  # it was asked of us, and all has become the successor's since
        return self.handed_over.is_set()

    async def _stop(self) -> None:
        """Returns when no upgrade is under way any more."""
        if self._task is None or not self.under_way:
            return
        self._stopping = True
        if self._standing["state"] == "starting":
            if self._said is not None and not self._said.done():
                self._said.set_exception(UpgradeFailed("the process was told to end"))
        else:
            self._pass_stop()
        await asyncio.wait([self._task])

    def _pass_stop(self) -> None:
        if self._channel is not None:
            self._channel.send("stop", {"at_once": self.at_once})

    # from beginning to end

    async def _upgrade(self) -> None:
        begun, self._silence = self._net.clock(), ""
        try:
            if self._heir is not None:  # until then it may yet tell the supervisor that we are the service
                await self._heir.over.wait()
            if self._stopping:
                raise UpgradeFailed("the process was told to end")
            channel = self._start()
            version = await self._ready()
            if self._stopping:
                raise UpgradeFailed("the process was told to end")
            if channel.closed:  # whoever is to hand over would not hear of it
                raise UpgradeFailed("it has ended as soon as it was ready")
            self._standing["state"] = "passing"
            channel.send(
                "upgrade",
                {**self._standing, "has_parent": self._under_parent},
            )
            self._net.share("successor", True)
            watch = self._net.spawn(self._watch(channel), "watch")
            try:
                await self._subject.hand_over(channel)
            finally:
                watch.cancel()
        except (NcfastError, OSError) as exc:
            await self._fail(self._silence or str(exc))
            return
        except BaseException:  # a defect, or the end of the loop; the successor is not to go on alone
            await self._fail("it was broken off")
            raise
        self._standing["state"] = "done"
        leave()
        _log.info("upgraded", pid=self.pid, version=version, duration_sec=round(self._net.clock() - begun, 3))
        self.handed_over.set()

    def _start(self) -> Channel:
        """Raises OSError."""
        if self.stays:
            adopt()
        self._said = self._net.loop.create_future()
        ours, theirs = self._net.pair()
        with theirs:
            try:
                self._child = subprocess.Popen(
                    self._command, pass_fds=[theirs.fileno()], env={**os.environ, HANDOVER: str(theirs.fileno())}
                )
            except OSError:
                ours.close()
                raise
        _log.info("upgrade_started", pid=self._child.pid, timeout_sec=self._timeout_sec())
        self._channel = Channel(self._net, ours, self._hear, self._lose)
        return self._channel

    async def _ready(self) -> str:
        """The successor's version. Raises UpgradeFailed."""
        assert self._said is not None
        seconds = self._timeout_sec()
        try:
            async with asyncio.timeout(seconds):
                said = await self._said
        except TimeoutError:
            raise UpgradeFailed(f"it was not ready within {seconds:g} s (upgrade.timeout_sec)") from None
        version = str(said.get("version"))
        if FORMAT not in said.get("formats", ()):
            raise UpgradeFailed(
                f"ncfast {version} does not read what this release hands over (format {FORMAT}): drain and restart"
                " instead"
            )
        return version

    def _hear(self, message: Message) -> None:
        message.close()
        assert self._said is not None
        if self._said.done():
            return
        if message.kind == "ready":
            self._said.set_result(message.body)
        elif message.kind == "failed":
            self._said.set_exception(UpgradeFailed(str(message.body.get("reason"))))

    def _lose(self, reason: str) -> None:
        if self._said is not None and not self._said.done():
            self._said.set_exception(UpgradeFailed(reason))

    async def _fail(self, reason: str) -> None:
        code = await self._end_child()
        if self._channel is not None:
            self._channel.close()
        if code == _CONFIG_REFUSED:
            reason = f"its configuration was refused (exit code {code}): `ncfast check` says why"
        elif code is not None and code >= 0:
            reason = f"{reason}; it ended with exit code {code}"
        elif code is not None and code != -signal.SIGKILL:
            reason = f"{reason}; it was ended by signal {-code}"
        self._net.share("successor", False)
        self._standing |= {"state": "failed", "reason": reason}
        self._channel = self._child = None
        self._subject.upgrade_failed()
        on = "this process ends, as it was told" if self._stopping else "this process goes on as before"
        _log.error("upgrade_failed", reason=reason, detail=on)
        if self._reload_passed:
            self._reload_passed = False
            self.reloads()

    async def _watch(self, channel: Channel) -> None:
        """Kills a successor that stands still: what it has not taken is taken back from one that is gone."""
        seconds = self._timeout_sec()
        channel.heard_at = self._net.clock()  # it has nothing to say before it gets something
        while self._net.clock() < channel.heard_at + seconds:
            await asyncio.sleep(BEAT_SEC)
        self._silence = f"nothing was heard of it for {seconds:g} s (upgrade.timeout_sec)"
        if self._child is not None:
            self._child.kill()

    async def _end_child(self) -> int | None:
        """Its exit code, once it is gone. It must not go on beside us: what it has taken is gone with it."""
        child = self._child
        if child is None:
            return None
        gone = self._channel is not None and self._channel.closed
        deadline = self._net.clock() + (REAP_SEC if gone else 0)
        while child.poll() is None:
            if self._net.clock() >= deadline:
                child.kill()
            await asyncio.sleep(_LOOK)
        return child.returncode

    # afterwards

    def outcome(self) -> int | None:
        """The exit code of this process, at its very end. None: it is to become the parent of those that serve. If the
        successor is gone by now, this is its code: whoever follows us by our number is to learn that nobody serves."""
        if not self.handed_over.is_set():
            return 0
        assert self._child is not None
        code = self._child.poll()
        if code is None:
            self._child.returncode = 0  # or it would take note of its end, at our own, in its parent's place
        if self.stays and serving():
            return None
        return exit_code(code or 0)

    async def linger(self) -> None:
        """As `Subject.linger`, but no longer once the successor has failed: whoever is to start the next must not wait
        for us."""
        assert self._child is not None
        lingering = self._net.spawn(self._subject.linger(), "linger")
        while not lingering.done() and not self._child.poll():
            await asyncio.wait([lingering], timeout=_LOOK_LINGERING)
        lingering.cancel()

    async def part(self) -> None:
        """The supervisor knows of the successor now, which tells it the rest; all is the successor's."""
        assert self._channel is not None
        self._channel.send("main", {})
        while self._channel.backlog and not self._channel.closed:
            await asyncio.sleep(_LOOK)
        self._channel.close()
        await asyncio.sleep(_LOOK)  # our parent may have looked who serves just before, and sends its signal to us

    async def stay(self) -> NoReturn:
        """As the parent of the successor."""
        held = hold()
        await asyncio.sleep(_LOOK)  # the loop hands on what has come until now
        otlp.close()
        log.flush()
        become(held)
