"""Runs a hub as a process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from ncfast.auth import AuthSetupError
from ncfast.config.auth import resolve_auth
from ncfast.config.exposed import exposed
from ncfast.config.hub import HubConfig, Jwt
from ncfast.config.loader import load_hub
from ncfast.config.problems import ConfigError
from ncfast.hub import giving  # noqa: F401  # now: later a newer release may lie where it is read from
from ncfast.hub.hub import Hub
from ncfast.hub.taking import Heritage
from ncfast.observe import log, otlp
from ncfast.observe.watchdog import Watchdog, freeze
from ncfast.serve.heir import Heir, summoned
from ncfast.serve.notify import Supervisor
from ncfast.serve.process import Signals, network, prepare, run
from ncfast.serve.stacks import forget_stacks, tell_stacks
from ncfast.serve.upgrade import Upgrading

_log = log.get("serve")


def run_hub(
    config: HubConfig,
    *,
    config_path: str | Path | None = None,
    on_ready: Callable[[Hub], None] | None = None,
    stay: bool = False,
) -> int:
    """Serves until SIGTERM or SIGINT, which drain; SIGHUP reloads `config_path`, SIGUSR2 upgrades, and with `stay` the
    process is the parent of the next one then. Returns the exit code.

    Raises ConfigError, AuthSetupError, OSError or NotOurs when it cannot start.
    """
    descriptor = summoned()
    prepare(config.logging, config.limits.fd_reserve)
    otlp.begin(_wish(config))
    return run(_hub(config, config_path, on_ready, stay, descriptor))


def _wish(config: HubConfig) -> otlp.Wish | None:
    if config.otlp is None:
        return None
    from ncfast.serve.collector import wish  # of use to few

    return wish(config.otlp, "ncfast-hub", config.ha.replica_id)


def _tell_exposed(config: HubConfig, jwt: Jwt | None = None) -> None:
    """Files that others can read or write are used all the same: that they are is for the operator to judge."""
    for text in [*exposed(config), *(exposed(jwt, "auth.jwt") if jwt is not None else ())]:
        _log.warning("file_exposed", detail=text)


async def _hub(
    config: HubConfig,
    path: str | Path | None,
    on_ready: Callable[[Hub], None] | None,
    stay: bool,
    descriptor: int | None,
) -> int:
    net = network()
    jwt = resolve_auth(config)
    _tell_exposed(config, jwt if config.auth is None else None)
    heir = Heir(net, descriptor) if descriptor is not None else None
    if heir is None:
        hub = Hub(config, jwt, net)
    else:
        with heir.refusing():
            hub = Hub(config, jwt, net, heritage=Heritage.read(await heir.heritage()))
    started = asyncio.Event()
    supervisor = Supervisor(net, silent=heir is not None)
    upgrading = hub.upgrades = Upgrading(net, hub, lambda: hub.config.upgrade.timeout_sec, heir, stay)

    def refusal() -> str:
        if hub.drain_requested.is_set():
            return "the hub is about to end"
        if not started.is_set():
            return "the hub does not serve yet"
        return "" if path is not None else "the hub was started without a configuration file"

    async def reload() -> None:
        await started.wait()
        if not await upgrading.reload():
            async with supervisor.reloading():
                await _reload_hub(hub, path)

    def begin_reload() -> None:
        net.spawn(reload(), "reload")

    upgrading.refusal, upgrading.reloads = refusal, begin_reload

    def stop(at_once: bool) -> bool:
        if upgrading.passes(signal.SIGTERM):
            return True
        upgrading.at_once |= at_once
        return hub.request_drain(at_once=at_once)

    # before `hub_ready` is told: whoever reads it may send a signal at once
    Signals(stop, begin_reload, upgrading.on_signal).install(net.loop)
    tell_stacks(net)
    if heir is None:
        await hub.start()
        supervisor.ready()
    else:
        with heir.refusing():
            await hub.start()
        heir.on_main, heir.on_reload, heir.on_stop = supervisor.ready, begin_reload, stop
        heir.take_over(hub)
    started.set()
    watchdog = Watchdog(net.loop, hub.stats)
    watchdog.start()
    if on_ready is not None:
        on_ready(hub)
    freeze()
    if await upgrading.until(hub.drain_requested):
        supervisor.passes_to(upgrading.pid)
        await upgrading.part()
        await upgrading.linger()
        await hub.stop()
    else:
        supervisor.stopping()
        await hub.drain()
    watchdog.stop()
    supervisor.close()
    code = upgrading.outcome()
    if code is None:  # while handlers stand: without them a signal would end the process
        await upgrading.stay()
    forget_stacks(net.loop)
    return code


async def _reload_hub(hub: Hub, path: str | Path | None) -> None:
    if path is None:
        _log.warning("reload_ignored", detail="the hub was started without a configuration file")
        return
    try:
        config = load_hub(path)
        _tell_exposed(config)
        wanted = _wish(config)
        await hub.reload(config, resolve_auth(config))
    except ConfigError as exc:
        _refused(hub, [str(problem) for problem in exc.problems])
    except (OSError, AuthSetupError) as exc:
        _refused(hub, [str(exc)])
    else:
        otlp.follow(wanted)
        hub.stats.config_reloads["ok"] += 1
        hub.stats.config_refused = False


def _refused(hub: Hub, problems: list[str]) -> None:
    hub.stats.config_reloads["refused"] += 1
    hub.stats.config_refused = True
    _log.error("config_refused", problems=problems, detail="the old configuration stays")
