"""What a hub needs of others, tried once before it runs: its ports, Redis and the rights there, the issuer's keys, the
other hubs. Nothing is left behind, and no peer is told more than a connection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ncfast.auth import AuthSetupError
from ncfast.config.ha import Ha
from ncfast.config.hub import HubConfig, Jwt
from ncfast.config.values import Address
from ncfast.core.errors import NcfastError
from ncfast.net import reach
from ncfast.net.seam import Net
from ncfast.observe.findings import Findings

if TYPE_CHECKING:
    from ncfast.mesh.certificates import Certificates
    from ncfast.registry.redis.backend import Backend

PEER_TIMEOUT = 5.0  # seconds for look-up, TCP, TLS each, as `ncfast.mesh.dial` has for all of them

_REDIS = {  # by the reason of a BackendError
    "unreachable": "is Redis up at ha.redis_url, and does a firewall let this machine through?",
    "timeout": "Redis, or a firewall on the way, does not answer within ha.redis_timeout_sec",
    "unauthorized": "user and password: ha.redis_url, ha.redis_password_file",
    "no_master": "the Sentinels know no master of that name: ha.redis_url",
    "read_only": "that is a replica: ha.redis_url has to lead to the master",
    "out_of_memory": "Redis has reached maxmemory, and its policy evicts nothing",
}
_ACL = "the user's ACL lacks it: compare the line in docs/high-availability.md, Redis"
_REMEDY = "docs/high-availability.md, Redis"


async def precheck(config: HubConfig, jwt: Jwt, net: Net) -> Findings:
    """Tries all of it. Raises OSError for a certificate, or a password file, that is of no use."""
    findings = Findings()
    for key, address in _ports(config):
        await _port(net, key, address, findings)
    if jwt.jwks_url is not None:
        await _keys(jwt, jwt.jwks_url, net, findings)
    if config.ha.enabled and config.ha.redis_url is not None:
        await _redis(config.ha, config.ha.redis_url, net, findings)
    if config.ha.enabled and config.ha.mode != "off":
        await _peers(config.ha, net, findings)
    return findings


# ports


def _ports(config: HubConfig) -> Iterator[tuple[str, Address]]:
    for index, listener in enumerate(config.listeners):
        yield f"listeners[{index}].bind", listener.bind
    yield "edge.bind", config.edge.bind
    yield "admin.bind", config.admin.bind
    if config.ha.enabled and config.ha.mode != "off" and config.ha.mesh.listen is not None:
        yield "ha.mesh.listen", config.ha.mesh.listen


async def _port(net: Net, key: str, address: Address, findings: Findings) -> None:
    try:
        acceptor = await net.listen(address, lambda sock, peer: sock.close())
    except OSError as exc:
        remedy = "if it is this hub that has it, it runs already; else another port, or that program another"
        findings.failed(key, "port", exc.strerror or str(exc), remedy)
    else:
        acceptor.close()
        findings.passed(key, "port", str(address))


# the issuer


async def _keys(jwt: Jwt, url: str, net: Net, findings: Findings) -> None:
    from ncfast.auth.jwks import parse_jwks  # heavy, and of use only here
    from ncfast.net.fetch import FetchError, HttpsFetch

    try:
        keys = parse_jwks(await HttpsFetch(net, url, jwt.jwks_ca_file, jwt.jwks_proxy)(), jwt.algorithms).keys
    except FetchError as exc:
        remedy = "URL, firewall, auth.jwt.jwks_proxy and jwks_ca_file: try curl with the same"
        findings.failed("auth.jwt.jwks_url", "keys", f"{url}: {exc}", remedy)
    except AuthSetupError as exc:
        findings.failed("auth.jwt.jwks_url", "keys", f"{url}: {exc}", "URL, and auth.jwt.algorithms")
    else:
        findings.passed("auth.jwt.jwks_url", "keys", f"{url}: {len(keys)} for {', '.join(jwt.algorithms)}")


# Redis


async def _redis(ha: Ha, url: str, net: Net, findings: Findings) -> None:
    from ncfast.registry.redis.backend import PING, BackendError, Call
    from ncfast.registry.redis.connection import RedisBackend
    from ncfast.registry.redis.scripts import RIGHTS

    backend = RedisBackend(url, ha, net, "ncfast-check")
    rights = Call(RIGHTS, request=f"check-{net.entropy(8).hex()}")
    step = "PING"
    try:
        async with asyncio.timeout(ha.redis_timeout_sec * backend.patience):
            await backend.open()
            await backend.run([PING])
        findings.passed("ha.redis_url", step)
        step = "rights"
        async with asyncio.timeout(ha.redis_timeout_sec):
            (reply,) = await backend.run([rights])
        if isinstance(reply, BackendError):
            raise reply
        await _subscribe(backend)
        findings.passed("ha.redis_url", step, "every command of a hub, its keys, its channel")
    except (BackendError, TimeoutError) as exc:
        reason = exc.reason if isinstance(exc, BackendError) else "timeout"
        remedy = _ACL if reason.endswith("_denied") else _REDIS.get(reason, _REMEDY)
        findings.failed("ha.redis_url", step, reason, remedy)
        findings.skipped("ha.redis_url", ("rights",) if step == "PING" else ())
    finally:
        await backend.aclose()


class _Subscribed(NcfastError):
    """It has come so far."""


async def _subscribe(backend: Backend) -> None:
    """Hears notices, and leaves again. Raises BackendError."""

    def up() -> None:
        raise _Subscribed

    with suppress(_Subscribed):
        await backend.listen(up, lambda notice: None)


# the mesh


async def _peers(ha: Ha, net: Net, findings: Findings) -> None:
    certificates = None
    if ha.mesh.tls is not None and ha.replica_id is not None:
        from ncfast.mesh.certificates import Certificates

        certificates = Certificates(ha.mesh.tls, ha.cluster, ha.replica_id)
    for url in ha.mesh.peers:
        await _peer(net, url, certificates, findings)


async def _peer(net: Net, url: str, certificates: Certificates | None, findings: Findings) -> None:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        try:
            (await net.connect_unix(parts.path, asyncio.Protocol(), timeout=PEER_TIMEOUT)).close()
        except OSError as exc:
            findings.failed(url, "socket", reach.words(exc, PEER_TIMEOUT), "is that hub up, and its user ours?")
        else:
            findings.passed(url, "socket")
        return
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
    secure = parts.scheme in ("tls", "wss")
    if not await reach.look_up(net, findings, url, host, PEER_TIMEOUT, "peer"):
        findings.skipped(url, ("TCP", "TLS") if secure else ("TCP",))
    elif not await reach.connect(net, findings, url, host, port, PEER_TIMEOUT, "peer"):
        findings.skipped(url, ("TLS",) if secure else ())
    elif secure:
        context = await _context(net, parts.scheme, certificates)
        await _tls(net, url, host, port, context, findings)


async def _context(net: Net, scheme: str, certificates: Certificates | None) -> ssl.SSLContext:
    from ncfast.mesh.certificates import WebTls

    if scheme == "tls":
        assert certificates is not None  # the file is refused without
        return certificates.client
    web = certificates.web if certificates is not None else WebTls()
    return await web.context(net.loop)


async def _tls(net: Net, url: str, host: str, port: int, context: ssl.SSLContext, findings: Findings) -> None:
    from ncfast.mesh.trust import names_in_der

    try:
        transport = await net.connect(host, port, asyncio.Protocol(), timeout=PEER_TIMEOUT, share="peer", ssl=context)
    except ssl.SSLCertVerificationError as exc:
        remedy = "another authority than ha.mesh.tls.ca_bundle, or a certificate that has ended: docs/runbooks"
        findings.failed(url, "TLS", exc.verify_message, remedy)
    except OSError as exc:
        what = exc.reason if isinstance(exc, ssl.SSLError) else reach.words(exc, PEER_TIMEOUT)
        findings.failed(url, "TLS", what, "does the far end speak TLS there, and take our certificate?")
    else:
        names = names_in_der(transport.get_extra_info("ssl_object").getpeercert(True))
        transport.abort()
        findings.passed(url, "TLS", f"certificate for {', '.join(sorted(names)) or 'no name'}")
