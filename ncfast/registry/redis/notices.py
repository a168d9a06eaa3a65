"""The subscription to what scripts publish: it is made anew until it stands, and again when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ncfast.net.backoff import Backoff
from ncfast.net.seam import Net
from ncfast.observe import log
from ncfast.observe.stats import Stats
from ncfast.registry.redis.backend import Backend, BackendError

_log = log.get("registry")

RETRY = (0.1, 1.0)  # seconds before it is tried again: the first pause, the longest


class Notices:
    """`on_notice` is told each; `on_change`, whether they come from now on (`hearing`)."""

    def __init__(
        self,
        backend: Backend,
        net: Net,
        stats: Stats,
        on_notice: Callable[[bytes], None],
        on_change: Callable[[bool], None],
    ) -> None:
        self._backend = backend
        self._net = net
        self._stats = stats
        self._on_notice = on_notice
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self.hearing = False

    def start(self) -> None:
        self._task = self._net.spawn(self._listen(), "registry-notices")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _listen(self) -> None:
        pauses = Backoff(self._net.rng, *RETRY, floor=0.5)
        while True:
            try:
                await self._backend.listen(self._heard_up, self._on_notice)
            except BackendError as exc:
                self._stats.registry_errors[exc.reason] += 1
            except Exception:  # a defect must not make us deaf for ever
                self._stats.registry_errors["internal"] += 1
                _log.exception("registry_defect")
            if self.hearing:
                self.hearing = False
                pauses.reset()
                self._on_change(False)
            await asyncio.sleep(pauses.next())

    def _heard_up(self) -> None:
        self.hearing = True
        self._on_change(True)
