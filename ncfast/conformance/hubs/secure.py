"""The scripted agent by TLS, with certificates of its own."""

from __future__ import annotations

import asyncio
import ssl
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

from ncfast.conformance.broken import Broken
from ncfast.conformance.certificates import authority, client_certificate, hub_certificate, load, only_old
from ncfast.conformance.hubs.player import ScriptedAgent
from ncfast.conformance.scenario import Scenario
from ncfast.conformance.stage import Places
from ncfast.net.tls import web_context

HOST = "localhost"


class SecureAgent(ScriptedAgent):
    """The same, and every tunnel by TLS. A step that dials shows the certificate `own`, or its `certificate`: another
    word for another one."""

    def __init__(self, scenario: Scenario, directory: Path, patience: float) -> None:
        super().__init__(scenario, directory, patience)
        self._files = {name: directory / f"{name}.pem" for name in ("tls_cert_file", "tls_key_file", "client_ca_file")}

    @property
    def places(self) -> Places:
        return {**super().places, **{name: str(path) for name, path in self._files.items()}}

    async def start(self) -> None:
        """Writes the hub's certificate, and the authority of agents'."""
        await super().start()
        hub_certificate("right", HOST).write(self._files["tls_cert_file"], self._files["tls_key_file"])
        self._files["client_ca_file"].write_bytes(authority().pem)

    def _thumbprint(self, certificate: str) -> str:
        return urlsafe_b64encode(client_certificate(certificate).thumbprint).rstrip(b"=").decode()

    async def _edge(self, step: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = web_context(self._files["client_ca_file"])
        load(context, client_certificate(step.get("certificate", "own")))
        if step.get("old"):
            only_old(context)
        try:
            return await asyncio.open_connection(sock=await self._connect(0), ssl=context, server_hostname=HOST)
        except ssl.SSLError as exc:
            raise Broken("1.21", f"TLS does not come about: {exc.reason}") from None

    # verbs

    async def _do_old(self, _: bool, step: dict[str, Any]) -> None:
        """TLS 1.1, which does not come about."""
        try:
            writer = (await self._edge({"old": True}))[1]
        except (Broken, ConnectionError):
            return
        writer.close()
        raise Broken(self._rule, "the hub speaks TLS 1.1")
