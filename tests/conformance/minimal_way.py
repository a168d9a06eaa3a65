"""The minimal agent's way to a hub: TLS, and a proxy; with the faults that are theirs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from ncfast.conformance.certificates import only_old
from ncfast.conformance.stage import Places


async def way(places: Places, token: str, faults: Collection[str]) -> dict[str, Any]:
    """What `websockets` is told of it."""
    url = urlsplit(places["hub"])
    said: dict[str, Any] = {"proxy": places["proxy"] or None}
    if url.scheme == "wss":
        said |= {"ssl": _context(places, faults), "server_hostname": url.hostname}
    if "asks for another server name" in faults and said["proxy"] is None:
        said["server_hostname"] = "127.0.0.1"
    place = f"{url.hostname}:{url.port}"
    if "shows the proxy its token" in faults and said["proxy"]:
        await _ask(said["proxy"], f"CONNECT {place} HTTP/1.1\r\nAuthorization: Bearer {token}")
    if "asks the proxy for a page" in faults and said["proxy"]:
        await _ask(said["proxy"], f"GET http://{place}/tunnel HTTP/1.1")
    return said


def _context(places: Places, faults: Collection[str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=places["ca_file"])
    if {"does not look at the certificate's name", "asks for another server name"} & set(faults):
        context.check_hostname = False
    if "takes any certificate" in faults:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if "offers HTTP/2" in faults:
        context.set_alpn_protocols(["h2", "http/1.1"])
    if "speaks TLS 1.1" in faults:
        only_old(context)
        context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    return context


async def _ask(proxy: str, head: str) -> None:
    """In a way that leads nowhere."""
    at = urlsplit(proxy)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    writer.write(f"{head}\r\n\r\n".encode())
    await reader.read()
    writer.close()
    raise ConnectionResetError
