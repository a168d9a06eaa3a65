"""Runs a hub or an agent as a process: loop, signals, logs, reload, exit code."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from ncfast.agent.agent import Agent
from ncfast.auth import AuthSetupError
from ncfast.config import AgentConfig, ConfigError, HubConfig, Jwt, load_agent, load_hub, resolve_auth
from ncfast.config.auth import ENVIRONMENT
from ncfast.config.exposed import exposed
from ncfast.config.problems import Problem
from ncfast.core.errors import NcfastError
from ncfast.hub.hub import Hub
from ncfast.net.seam import OWN_DESCRIPTORS, Net
from ncfast.observe import log
from ncfast.observe.watchdog import Watchdog, freeze

_log = log.get("serve")

EXIT_OK = 0
EXIT_FAILURE = 1
OLDEST_UVLOOP = (0, 23)
FEWEST_CONNECTIONS = 16  # tunnels or targets and a few clients: with less there is no use in a process


def run_hub(
    config: HubConfig, *, config_path: str | Path | None = None, on_ready: Callable[[Hub], None] | None = None
) -> int:
    """Serves until SIGTERM or SIGINT, which drain; SIGHUP reloads `config_path`. Returns the exit code.

    Raises ConfigError, AuthSetupError or OSError when it cannot start.
    """
    _prepare(config, config.limits.fd_reserve)
    return _run(_hub(config, config_path, on_ready))


def run_agent(config: AgentConfig, *, config_path: str | Path | None = None) -> int:
    """Stays connected until SIGTERM or SIGINT; SIGHUP reads token and log settings again. Returns the exit code.

    Raises ConfigError when it could serve nobody, and OSError when a certificate cannot be read.
    """
    _prepare(config, 0)
    return _run(_agent(config, config_path))


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


def _prepare(config: HubConfig | AgentConfig, reserve: int) -> None:
    check_uvloop(uvloop.__version__)  # type: ignore[attr-defined]
    log.setup(config.logging.level, config.logging.format, config.logging.mask)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    check_descriptors(hard, reserve)


def _tell_exposed(config: HubConfig | AgentConfig, jwt: Jwt | None = None) -> None:
    """Files that others can read or write are used all the same: that they are is for the operator to judge."""
    for text in [*exposed(config), *(exposed(jwt, "auth.jwt") if jwt is not None else ())]:
        _log.warning("file_exposed", detail=text)


def _run(main: Coroutine[Any, Any, int]) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(main)
    log.flush()
    return code


@dataclass
class _Signals:
    """SIGTERM and SIGINT ask for an orderly end. SIGINT, or a second of them, asks for it without delay, as whoever
    sits at the terminal need not wait; a second one that changes nothing ends at once. SIGHUP reloads."""

    stop: Callable[[bool], bool]  # without delay?; returns whether that was news
    reload: Callable[[], object]
    asked: bool = False

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def _stop(self, number: signal.Signals) -> None:
        again, self.asked = self.asked, True
        if not self.stop(again or number is signal.SIGINT) and again:
            raise SystemExit(EXIT_FAILURE)


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What no callback caught. Connections that break are not news: whoever owns them is told by its protocol, and
    counts and logs it; a TLS handshake that fails would otherwise be an error line of the loop's besides."""
    error = context.get("exception")
    kind = error if isinstance(error, type) else type(error)  # aiofastnet 1.2 passes a bare ConnectionResetError
    if not issubclass(kind, OSError):
        loop.default_exception_handler(context)


async def _hub(config: HubConfig, path: str | Path | None, on_ready: Callable[[Hub], None] | None) -> int:
    loop = asyncio.get_running_loop()
    net = Net(loop, clock=time.monotonic)
    loop.set_exception_handler(_on_loop_error)
    jwt = resolve_auth(config)
    _tell_exposed(config, jwt if config.auth is None else None)
    hub = Hub(config, jwt, net)
    started = asyncio.Event()

    async def reload() -> None:
        await started.wait()
        await _reload_hub(hub, path)

    # before `hub_ready` is told: whoever reads it may send a signal at once
    _Signals(lambda at_once: hub.request_drain(at_once=at_once), lambda: net.spawn(reload(), "reload")).install(loop)
    await hub.start()
    started.set()
    watchdog = Watchdog(loop, hub.stats)
    watchdog.start()
    if on_ready is not None:
        on_ready(hub)
    freeze()
    await hub.drain_requested.wait()
    await hub.drain()
    watchdog.stop()
    return EXIT_OK


async def _reload_hub(hub: Hub, path: str | Path | None) -> None:
    if path is None:
        _log.warning("reload_ignored", detail="the hub was started without a configuration file")
        return
    try:
        config = load_hub(path)
        _tell_exposed(config)
        await hub.reload(config, resolve_auth(config))
    except ConfigError as exc:
        hub.stats.config_reloads["refused"] += 1
        _log.error(
            "config_refused", problems=[str(problem) for problem in exc.problems], detail="the old configuration stays"
        )
    except (OSError, AuthSetupError) as exc:
        hub.stats.config_reloads["refused"] += 1
        _log.error("config_refused", problems=[str(exc)], detail="the old configuration stays")
    else:
        hub.stats.config_reloads["ok"] += 1


async def _agent(config: AgentConfig, path: str | Path | None) -> int:
    loop = asyncio.get_running_loop()
    net = Net(loop, clock=time.monotonic)
    loop.set_exception_handler(_on_loop_error)
    _tell_exposed(config)
    agent = Agent(config, net)
    _Signals(lambda at_once: agent.stop(), lambda: net.spawn(_reload_agent(agent, path), "reload")).install(loop)
    freeze()
    await agent.run()
    return EXIT_OK


async def _reload_agent(agent: Agent, path: str | Path | None) -> None:
    if path is not None:
        try:
            config = load_agent(path)
        except ConfigError as exc:
            _log.error(
                "config_refused",
                problems=[str(problem) for problem in exc.problems],
                detail="the old configuration stays",
            )
            return
        log.setup(config.logging.level, config.logging.format, config.logging.mask)
    await agent.refresh()
    _log.info("config_reloaded")
