"""A new configuration for a hub that runs (SIGHUP): what can be taken over is, and no flow is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ncfast.config.changes import reloaded, waits_for_restart
from ncfast.config.hub import HubConfig, Jwt, Listener
from ncfast.hub.cluster import Cluster
from ncfast.hub.edge import Edge
from ncfast.hub.ground import Ground
from ncfast.hub.listener import ClientListener
from ncfast.hub.sessions import Sessions
from ncfast.hub.tokens import Tokens
from ncfast.observe import log
from ncfast.observe.readiness import State

_log = log.get("hub")


class Reload:
    """One at a time; `lock` is held meanwhile. What may change is said in `ncfast.config.changes`."""

    def __init__(
        self,
        ground: Ground,
        sessions: Sessions,
        tokens: Tokens,
        cluster: Cluster,
        edge: Edge,
        listeners: dict[str, ClientListener],
        make_listener: Callable[[Listener], ClientListener],
    ) -> None:
        self._ground = ground
        self._sessions = sessions
        self._tokens = tokens
        self._cluster = cluster
        self._edge = edge
        self._listeners = listeners
        self._make_listener = make_listener
        self.lock = asyncio.Lock()

    async def apply(self, config: HubConfig, jwt: Jwt) -> None:
        """Takes listeners, keys, certificates, the cluster's mode and log settings from a new configuration; open flows
        are not touched. What else has changed waits for a restart, and the log says so.

        Raises OSError, also when the hub drains, or AuthSetupError; then nothing has changed.
        """
        async with self.lock:
            if self._ground.readiness.state is not State.SERVING:
                raise OSError(f"the hub is {self._ground.readiness.state}, it takes no new configuration")
            await self._apply(config, jwt)

    async def _apply(self, config: HubConfig, jwt: Jwt) -> None:
        ground = self._ground
        keys = self._tokens.prepare(jwt)
        tls = self._edge.load_tls(config.edge.tls)
        old, ground.config = ground.config, reloaded(ground.config, config)
        wanted = {listener.name: listener for listener in config.listeners}
        leaving = self._leaving(wanted)
        fresh = {
            name: self._make_listener(new)
            for name, new in wanted.items()
            if name not in self._listeners or name in leaving
        }
        ready = [one for one in fresh.values() if not self._overlaps(one.config, leaving)]
        try:
            for listener in ready:
                await listener.open()
            await self._cluster.follow_mode()
        except OSError:
            ground.config = old
            for listener in ready:
                listener.close()
            raise
        # nothing can fail from here on, but a port that is handed from one listener to another
        await self._hand_over(wanted, leaving, fresh)
        self._edge.use_tls(tls)
        await self._tokens.use(jwt, keys)
        if config.ha.mode != old.ha.mode:
            for session in self._sessions:
                session.tell_again()
        log.setup(**config.logging.model_dump())
        if later := waits_for_restart(old, config):
            _log.warning("restart_needed", keys=later, detail="`ncfast upgrade` applies them without a loss")
        _log.info("config_reloaded", listeners={name: listener.address for name, listener in self._listeners.items()})

    def _leaving(self, wanted: dict[str, Listener]) -> list[str]:
        """Listeners that are no longer named, or move to another port, or have none."""
        return [
            name
            for name, listener in self._listeners.items()
            if name not in wanted or wanted[name].bind != listener.config.bind or not listener.bound
        ]

    def _overlaps(self, new: Listener, leaving: list[str]) -> bool:
        """Whether the new listener needs a port that one that leaves still holds."""
        return any(new.bind.overlaps(self._listeners[name].config.bind) for name in leaving)

    async def _hand_over(
        self, wanted: dict[str, Listener], leaving: list[str], fresh: dict[str, ClientListener]
    ) -> None:
        for name in leaving:
            self._listeners.pop(name).close()
        for name, listener in self._listeners.items():
            listener.configure(wanted[name])
        self._listeners.update(fresh)
        for listener in fresh.values():
            if not listener.bound:
                try:
                    await listener.open()
                except OSError as exc:
                    _log.error("listener_down", listener=listener.name, detail=exc.strerror)
