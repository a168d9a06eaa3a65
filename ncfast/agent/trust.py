"""TLS towards the hubs, by the files as they are now."""

from __future__ import annotations

import asyncio
import ssl
import time

from ncfast.config.sections import ClientTls
from ncfast.net.expiry import ends_at
from ncfast.net.seam import Net
from ncfast.net.tls import client_context
from ncfast.net.watched import Watched
from ncfast.observe import log

_log = log.get("agent")


class Trust:
    """Whom we trust, and the certificate that we show."""

    def __init__(self, tls: ClientTls | None, secure: bool, net: Net) -> None:
        """`secure`: some hub is reached by TLS. Raises OSError when a certificate cannot be read."""
        self._tls = tls
        self._net = net
        named = (tls.ca_file, tls.cert_file, tls.key_file) if tls is not None else ()
        self._files = Watched(path for path in named if path is not None)
        # The system's authorities take 25 ms and 2 MiB: not for an agent that has nobody to judge by them.
        self._context = client_context(tls) if secure or tls is not None else None
        self._reading = asyncio.Lock()

    async def context(self) -> ssl.SSLContext:
        """For a dial from now on."""
        await self.refresh()
        if self._context is None:
            self._context = client_context(self._tls)
        return self._context

    async def refresh(self) -> None:
        """Takes files that were replaced. Those that cannot be used are told once, and leave the former in force."""
        async with self._reading:
            if self._files.changed():
                try:  # in a thread: it may read the system's authorities, too
                    self._context = await self._net.loop.run_in_executor(None, client_context, self._tls)
                except OSError as exc:
                    _log.warning("tls_files_refused", problems=[str(exc)], detail="the former ones stay in use")
                else:
                    _log.info("tls_files_reloaded")

    async def ends_at(self) -> float | None:
        """Unix seconds at which the certificate that we show ends; None if we show none."""
        if self._tls is None or self._tls.cert_file is None:
            return None
        return await self._net.loop.run_in_executor(None, ends_at, self._tls.cert_file)

    @property
    def shows(self) -> bool:
        """Whether we have a certificate to show."""
        return self._tls is not None and self._tls.cert_file is not None

    def lapsed(self) -> bool:
        """Whether the certificate that we show has expired."""
        if self._tls is None or self._tls.cert_file is None:
            return False
        end = ends_at(self._tls.cert_file)
        return end is not None and end < time.time()
