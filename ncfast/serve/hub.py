"""Runs a hub as a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ncfast.auth import AuthSetupError
from ncfast.config.auth import resolve_auth
from ncfast.config.exposed import exposed
from ncfast.config.hub import HubConfig, Jwt
from ncfast.config.loader import load_hub
from ncfast.config.problems import ConfigError
from ncfast.hub.hub import Hub
from ncfast.observe import log, otlp
from ncfast.observe.watchdog import Watchdog, freeze
from ncfast.serve.notify import Supervisor
from ncfast.serve.process import EXIT_OK, Signals, network, prepare, run
from ncfast.serve.stacks import forget_stacks, tell_stacks

_log = log.get("serve")


def run_hub(
    config: HubConfig, *, config_path: str | Path | None = None, on_ready: Callable[[Hub], None] | None = None
) -> int:
    """Serves until SIGTERM or SIGINT, which drain; SIGHUP reloads `config_path`. Returns the exit code.

    Raises ConfigError, AuthSetupError or OSError when it cannot start.
    """
    prepare(config.logging, config.limits.fd_reserve)
    otlp.begin(_wish(config))
    return run(_hub(config, config_path, on_ready))


def _wish(config: HubConfig) -> otlp.Wish | None:
    if config.otlp is None:
        return None
    from ncfast.serve.collector import wish  # of use to few

    return wish(config.otlp, "ncfast-hub", config.ha.replica_id)


def _tell_exposed(config: HubConfig, jwt: Jwt | None = None) -> None:
    """Files that others can read or write are used all the same: that they are is for the operator to judge."""
    for text in [*exposed(config), *(exposed(jwt, "auth.jwt") if jwt is not None else ())]:
        _log.warning("file_exposed", detail=text)


async def _hub(config: HubConfig, path: str | Path | None, on_ready: Callable[[Hub], None] | None) -> int:
    net = network()
    jwt = resolve_auth(config)
    _tell_exposed(config, jwt if config.auth is None else None)
    hub = Hub(config, jwt, net)
    started = asyncio.Event()
    supervisor = Supervisor(net)

    async def reload() -> None:
        await started.wait()
        with supervisor.reloading():
            await _reload_hub(hub, path)

    # before `hub_ready` is told: whoever reads it may send a signal at once
    Signals(lambda at_once: hub.request_drain(at_once=at_once), lambda: net.spawn(reload(), "reload")).install(net.loop)
    tell_stacks(net)
    await hub.start()
    supervisor.ready()
    started.set()
    watchdog = Watchdog(net.loop, hub.stats)
    watchdog.start()
    if on_ready is not None:
        on_ready(hub)
    freeze()
    await hub.drain_requested.wait()
    supervisor.stopping()
    await hub.drain()
    watchdog.stop()
    supervisor.close()
    forget_stacks(net.loop)
    return EXIT_OK


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
