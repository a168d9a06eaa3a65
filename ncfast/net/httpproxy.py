"""The way out through an HTTP(S) proxy, to hubs and to an issuer's keys: which one to take, and the CONNECT handshake
with it.

Sans-I/O. The environment is read with urllib's rules (`http_proxy` for ws, `https_proxy` for wss and https, `all_proxy`
for each; an upper-case HTTP_PROXY is ignored under CGI, where a request header can set it), but for `no_proxy`, of
which urllib knows neither networks nor `*.`. Why not by `websockets.proxy`: docs/decisions/0020-sentinel.md.
Credentials stay out of every message and repr.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import urllib.parse
from dataclasses import dataclass, field

from ncfast import __version__
from ncfast.core.errors import NcfastError

REPLY_MAX = 8192  # bytes of the proxy's reply up to its blank line, as for every HTTP head here
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
_TUNNELLED = {"ws": "http", "wss": "https", "https": "https"}


class ProxySettingError(NcfastError):
    """The proxy's URL cannot be used (local misconfiguration). The text shows no credentials."""


class ProxyReplyError(NcfastError):
    """The proxy's reply is not an HTTP/1 response head within `REPLY_MAX` bytes."""


class ProxyRefused(NcfastError):
    """The proxy answered CONNECT with `status` instead of opening the tunnel."""

    def __init__(self, status: int) -> None:
        hint = ": it wants credentials (user:password@ in the proxy's URL)" if status == 407 else ""
        super().__init__(f"the HTTP proxy refused to connect, status {status}{hint}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where to dial instead of the hub. `tls` says whether the proxy itself is spoken to over TLS."""

    host: str
    port: int
    tls: bool
    credentials: tuple[str, str] | None = field(default=None, repr=False)


def choose(target: str, setting: str) -> Proxy | None:
    """The proxy for the URL `target` (ws://, wss:// or https://), or None to dial it directly.

    `setting` is 'env' (ask the environment), 'off', or the proxy's URL. Raises `ProxySettingError`.
    """
    if setting == "off":
        return None
    if setting != "env":
        return parse(setting)
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    import urllib.request  # with HTTP and mail's headers, which mostly nobody needs

    url = urllib.parse.urlsplit(target)
    proxies = urllib.request.getproxies_environment()
    chosen = proxies.get(url.scheme) or proxies.get(_TUNNELLED[url.scheme]) or proxies.get("all")
    port = url.port or (80 if url.scheme == "ws" else 443)
    if chosen is None or spares(proxies.get("no", ""), url.hostname or "", port):
        return None
    return parse(chosen)


def spares(no_proxy: str, host: str, port: int) -> bool:
    """Whether `no_proxy` has `host:port` dialled directly, as curl and Go read it.

    Entries are parted by commas or blanks, in any case. `*` is all; `example.net` and `.example.net` are the domain
    and what is below it, `*.example.net` only what is below; an address is itself, a network (`10.0.0.0/8`,
    `2001:db8::/32`) the addresses in it, of hubs whose URL has an address: names are not looked up. `:port` behind one
    asks for that port, too. What is none of these matches nothing.
    """
    name = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    for entry in no_proxy.lower().replace(",", " ").split():
        if entry == "*":
            return True
        if address is None:
            where, _, at = entry.partition(":")
            domain = where.removeprefix("*.").strip(".")
            below = bool(domain) and name.endswith("." + domain)
            matches = below or name == domain and not where.startswith("*")
        else:
            where, at = _parted(entry)
            matches = _holds(where, address)
        if matches and at in ("", str(port)):
            return True
    return False


def _parted(entry: str) -> tuple[str, str]:
    """Address or network, and port: `10.0.0.1:80`, `[::1]:80`, `[::1]`; a bare IPv6 address has none."""
    if entry.startswith("["):
        where, _, rest = entry[1:].partition("]")
        return where, rest.removeprefix(":")
    if entry.count(":") == 1:
        where, _, at = entry.partition(":")
        return where, at
    return entry, ""


def _holds(where: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(where, strict=False)
    except ValueError:
        return False


def parse(url: str) -> Proxy:
    """Read a proxy's URL: http(s)://, optional user:password@, host, port. Raises `ProxySettingError`."""
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise ProxySettingError("the HTTP proxy's URL is malformed") from None
    if parts.scheme not in ("http", "https"):
        raise ProxySettingError(f"a {parts.scheme}:// proxy is not supported, use http:// or https://")
    if not parts.hostname or not _HOST.fullmatch(parts.hostname):
        raise ProxySettingError("the HTTP proxy's URL has no usable host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ProxySettingError("the HTTP proxy's URL must end after host and port")
    credentials = None
    if parts.username is not None:
        credentials = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
    tls = parts.scheme == "https"
    return Proxy(parts.hostname, port or (443 if tls else 80), tls, credentials)


def connect_request(host: str, port: int, credentials: tuple[str, str] | None = None) -> bytes:
    """The CONNECT request for a tunnel to `host:port`; `credentials` (user, password) go as Basic."""
    if not _HOST.fullmatch(host):
        raise ValueError("the host of a CONNECT request must be a name or an address")
    authority = _authority(host, port)
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", f"User-Agent: ncfast/{__version__}"]
    if credentials is not None:
        basic = base64.b64encode(":".join(credentials).encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {basic}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class ConnectReply:
    """Reads the proxy's answer to CONNECT: `feed` until it returns the bytes that follow it, often none."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """Take the next bytes; None asks for more. Raises `ProxyRefused` or `ProxyReplyError`.

        Any 2xx opens the tunnel, and such a reply has no body (RFC 9110, section 9.3.6).
        """
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", 0, REPLY_MAX)
        if end < 0:
            if len(self._buffer) >= REPLY_MAX:
                raise ProxyReplyError(f"the HTTP proxy's reply has no end within {REPLY_MAX} bytes")
            return None
        match = _STATUS_LINE.fullmatch(self._buffer[: self._buffer.find(b"\r\n")])
        if match is None:
            raise ProxyReplyError("the HTTP proxy's reply does not start with an HTTP/1 status line")
        status = int(match[1])
        if not 200 <= status < 300:
            raise ProxyRefused(status)
        return bytes(self._buffer[end + 4 :])


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
