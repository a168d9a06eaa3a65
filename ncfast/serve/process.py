"""What a hub and an agent have in common as processes: limits, log, loop, signals, exit code."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvloop

from ncfast.config.problems import ENVIRONMENT, ConfigError, Problem
from ncfast.core.errors import NcfastError
from ncfast.net.seam import OWN_DESCRIPTORS, Net
from ncfast.net.syscalls import Monotonic
from ncfast.observe import log, otlp

if TYPE_CHECKING:
    from ncfast.config.sections import Logging

EXIT_FAILURE = 1
OLDEST_UVLOOP = (0, 23)
FEWEST_CONNECTIONS = 16  # tunnels or targets and a few clients: with less there is no use in a process


def check_uvloop(version: str) -> None:
    """Raises NcfastError for a uvloop that can close a recycled descriptor after a cancelled connect (its issues 645,
    738)."""
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_UVLOOP:
        raise NcfastError(
            f"uvloop {version} is too old, another flow's bytes could be mixed up: pip install 'uvloop>=0.23'"
        )


def check_descriptors(limit: int, reserve: int) -> None:
    """Raises ConfigError when a process that may open `limit` descriptors, and keeps `reserve` of them back from
    clients, would come up and serve nobody."""
    needed = OWN_DESCRIPTORS + reserve + FEWEST_CONNECTIONS
    if limit < needed:
        of_reserve = f" {reserve} of limits.fd_reserve," if reserve else ""
        message = (
            f"the process may have {limit} descriptors, and needs {needed}: {OWN_DESCRIPTORS} of its own,{of_reserve} "
            f"{FEWEST_CONNECTIONS} for connections"
        )
        remedy = "raise the limit (LimitNOFILE= in a unit of systemd, ulimit -n in a shell)"
        raise ConfigError([Problem(ENVIRONMENT, 0, 0, "", "", message, remedy)])


def prepare(logging: Logging, reserve: int = 0) -> None:
    """Log and limits, before anything is opened; `reserve` descriptors are kept back from clients.

    Raises NcfastError for a uvloop, and ConfigError for limits, that cannot be worked with.
    """
    check_uvloop(uvloop.__version__)  # type: ignore[attr-defined]
    log.setup(**logging.model_dump())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    check_descriptors(hard, reserve)


def run(main: Coroutine[Any, Any, int]) -> int:
    """Runs `main` on a loop of its own; returns its exit code, with every log line written, and sent if a collector is
    wanted and takes it in time."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(main)
    otlp.close()
    log.flush()
    return code


@dataclass
class Signals:
    """SIGTERM and SIGINT ask for an orderly end. SIGINT, or a second of them, asks for it without delay, as whoever
    sits at the terminal need not wait; a second one that changes nothing ends at once. SIGHUP reloads,
    SIGUSR2 upgrades."""

    stop: Callable[[bool], bool]  # without delay?; returns whether that was news
    reload: Callable[[], object]
    upgrade: Callable[[], object]
    asked: bool = False

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        loop.add_signal_handler(signal.SIGUSR2, self.upgrade)

    def _stop(self, number: signal.Signals) -> None:
        again, self.asked = self.asked, True
        if not self.stop(again or number is signal.SIGINT) and again:
            raise SystemExit(EXIT_FAILURE)


def network() -> Net:
    """The seam on the loop that runs."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_loop_error)
    return Net(loop, clock=Monotonic())


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What no callback caught. Connections that break are not news: whoever owns them is told by its protocol, and
    counts and logs it; a TLS handshake that fails would otherwise be an error line of the loop's besides."""
    error = context.get("exception")
    kind = error if isinstance(error, type) else type(error)  # aiofastnet 1.2 passes a bare ConnectionResetError
    if not issubclass(kind, OSError):
        loop.default_exception_handler(context)
