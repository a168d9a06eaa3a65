"""What a production file should say beyond what any file may: the check list of docs/hardening.md, which is generated
from here, and what `ncfast check --strict` reports of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ncfast.config.agent import AgentConfig
from ncfast.config.hub import HubConfig

# The shortest prefixes, by version, of networks that are one operator's: RFC 1918's 10.0.0.0/8, RFC 4193's fc00::/7.
WIDEST = {4: 8, 6: 7}
OTHERS_WRITE = 0o022
OTHERS_READ = 0o007


class Advice(NamedTuple):
    """One line of the list. `missed(config)` names, as `listeners[0].bind`, where the file does not follow it."""

    key: str
    says: str
    missed: Callable[[Any], Iterator[str]]


def advice(config: HubConfig | AgentConfig) -> list[str]:
    """What the file leaves open: one line each, ``key: text``."""
    lines = HUB if isinstance(config, HubConfig) else AGENT
    return [f"{path}: {line.says}" for line in lines for path in line.missed(config)]


def _signers(config: HubConfig) -> Iterator[str]:
    if config.auth is not None and "HS256" in config.auth.jwt.algorithms:
        yield "auth.jwt.algorithms"


def _issuer(config: HubConfig) -> Iterator[str]:
    if config.auth is not None and config.auth.jwt.issuer is None:
        yield "auth.jwt.issuer"


def _clients(config: HubConfig) -> Iterator[str]:
    for index, one in enumerate(config.listeners):
        if not one.bind.is_loopback and not one.allow:
            yield f"listeners[{index}].allow"


def _shares(config: HubConfig) -> Iterator[str]:
    for index, one in enumerate(config.listeners):
        # behind a balancer whose header is read, sources are the clients all the same
        if not one.bind.is_loopback and not one.max_connections_per_source:
            yield f"listeners[{index}].max_connections_per_source"


def _idle(config: HubConfig) -> Iterator[str]:
    for index, one in enumerate(config.listeners):
        if not one.idle_timeout_sec:
            yield f"listeners[{index}].idle_timeout_sec"


def _believed(config: HubConfig) -> Iterator[str]:
    believed = {f"listeners[{index}].proxy_from": one.proxy_from for index, one in enumerate(config.listeners)}
    believed |= {
        "edge.trusted_proxies": config.edge.trusted_proxies,
        "ha.mesh.trusted_proxies": config.ha.mesh.trusted_proxies,
    }
    for path, networks in believed.items():
        if any(one.prefixlen < WIDEST[one.version] for one in networks):
            yield path


def _mesh(config: HubConfig) -> Iterator[str]:
    if config.ha.enabled and config.ha.mode == "active" and not config.ha.mesh.require_mtls:
        yield "ha.mesh.require_mtls"


def _redis(config: HubConfig) -> Iterator[str]:
    url = config.ha.redis_url
    if config.ha.enabled and url is not None and not url.startswith("unix:") and not urlsplit(url).password:
        yield "ha.redis_url"


def _masked(config: HubConfig | AgentConfig) -> Iterator[str]:
    if config.logging.mask == "none":
        yield "logging.mask"


def _authority(config: AgentConfig) -> Iterator[str]:
    if any(hub.startswith("wss:") for hub in config.hubs) and (config.tls is None or config.tls.ca_file is None):
        yield "tls.ca_file"


def _secrets_of_hub(config: HubConfig) -> Iterator[str]:
    if config.auth is not None:  # public keys may be read, and not written
        yield from _exposed("auth.jwt.key_file", config.auth.jwt.key_file, OTHERS_READ if any(_signers(config)) else 0)
    if config.edge.tls is not None:
        yield from _exposed("edge.tls.key_file", config.edge.tls.key_file)
    if config.ha.mesh.tls is not None:
        yield from _exposed("ha.mesh.tls.key_file", config.ha.mesh.tls.key_file)
    yield from _exposed("ha.mesh.secret_file", config.ha.mesh.secret_file)


def _secrets_of_agent(config: AgentConfig) -> Iterator[str]:
    yield from _exposed("token_file", config.token_file)
    if config.tls is not None:
        yield from _exposed("tls.key_file", config.tls.key_file)


def _exposed(path: str, file: Path | None, reading: int = OTHERS_READ) -> Iterator[str]:
    """A file that is not here, or not ours to see, is passed over: the configuration may be checked on another
    machine."""
    with suppress(OSError):
        if file is not None and file.stat().st_mode & (OTHERS_WRITE | reading):
            yield path


SECRETS = "every user of the machine may read this file, or others than its owner write it; chmod o=,g-w"
MASKED = "addresses of clients stand in the log as they are; truncate or hash them"

HUB = (
    Advice(
        "auth.jwt.algorithms", "HS256; whoever reads the hub's key signs tokens, which public keys do not", _signers
    ),
    Advice("auth.jwt.issuer", "not set; a token of any issuer that signs with these keys counts", _issuer),
    Advice("listeners[].allow", "empty, and the listener is not on loopback; whoever reaches it is a client", _clients),
    Advice("listeners[].max_connections_per_source", "0; one client may take every place of the listener", _shares),
    Advice("listeners[].idle_timeout_sec", "0; clients that vanished behind a middlebox stay for ever", _idle),
    Advice("*.proxy_from, *.trusted_proxies", "wider than any operator's network; all of it is believed", _believed),
    Advice("ha.mesh.require_mtls", "false; hubs do not prove to each other which they are", _mesh),
    Advice("ha.redis_url", "no password; whoever reaches Redis says which hub an agent is at", _redis),
    Advice("logging.mask", MASKED, _masked),
    Advice("*.key_file, *.secret_file", SECRETS, _secrets_of_hub),
)
AGENT = (
    Advice("tls.ca_file", "not set; a certificate of any public authority is the hub's", _authority),
    Advice("logging.mask", MASKED, _masked),
    Advice("token_file, tls.key_file", SECRETS, _secrets_of_agent),
)
