"""Whether the files that a configuration names are of use: read by the rules of the process that will read them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ncfast.agent.token import TokenFault, token_of
from ncfast.auth import AuthSetupError, StaticKeys
from ncfast.config.agent import AgentConfig
from ncfast.config.hub import HubConfig, Jwt
from ncfast.hub.guard import read_admin_token
from ncfast.mesh.certificates import Certificates, read_secret
from ncfast.net.tls import client_context, server_context, unreadable, web_context
from ncfast.registry.redis.access import Access
from ncfast.serve.collector import wish

Reader = tuple[list[Path | None], Callable[[], object]]  # the files, and what reads them


def unusable(config: HubConfig | AgentConfig, jwt: Jwt | None) -> Iterator[str]:
    """What is wrong with each set of files; `jwt` is what a hub checks tokens with, by its file or its environment. One
    of which a file is not here, or not ours to read, is passed over: the configuration may be checked on another
    machine."""
    for files, read in _of_hub(config, jwt) if isinstance(config, HubConfig) else _of_agent(config):
        if all(os.access(path, os.R_OK) for path in files if path is not None):
            try:
                read()
            except (OSError, AuthSetupError, TokenFault) as exc:
                yield str(exc)


def _of_hub(config: HubConfig, jwt: Jwt | None) -> Iterator[Reader]:
    edge, mesh, name = config.edge.tls, config.ha.mesh, config.ha.replica_id
    if jwt is not None and jwt.key_file is not None:
        key_file, algorithms = jwt.key_file, jwt.algorithms
        yield [key_file], lambda: StaticKeys.from_file(key_file, algorithms)
    if jwt is not None and jwt.jwks_ca_file is not None:
        jwks_ca = jwt.jwks_ca_file
        yield [jwks_ca], lambda: _authority("auth.jwt.jwks_ca_file", jwks_ca)
    if config.ha.enabled and config.ha.redis_url is not None:
        ha, secure = config.ha, config.ha.redis_url.startswith("rediss")
        files = [ha.redis_password_file, ha.redis_ca_file, ha.redis_cert_file, ha.redis_key_file]
        yield files, lambda: Access(ha, tls=secure, password=None)
    if edge is not None:
        yield [edge.cert_file, edge.key_file, edge.client_ca_file], lambda: server_context(edge)
    if config.admin.tls is not None:
        admin = config.admin.tls
        yield [admin.cert_file, admin.key_file, admin.client_ca_file], lambda: server_context(admin, "admin.tls")
    yield from _of_both(config)
    if config.admin.token_file is not None:
        admin_token = config.admin.token_file
        yield [admin_token], lambda: read_admin_token(admin_token)
    if config.ha.enabled and mesh.secret_file is not None:
        secret = mesh.secret_file
        yield [secret], lambda: read_secret(secret)
    if config.ha.enabled and mesh.tls is not None and name is not None:
        tls = mesh.tls
        yield [tls.ca_bundle, tls.cert_file, tls.key_file], lambda: Certificates(tls, config.ha.cluster, name)


def _of_both(config: HubConfig | AgentConfig) -> Iterator[Reader]:
    if config.otlp is not None:
        export, tls = config.otlp, config.otlp.tls
        files = [export.headers_file, *((tls.ca_file, tls.cert_file, tls.key_file) if tls is not None else ())]
        yield files, lambda: wish(export, "", None)


def _authority(key: str, path: Path) -> None:
    try:
        web_context(path)
    except OSError as exc:
        section, _, name = key.rpartition(".")
        raise unreadable(section, exc, **{name: path}) from None


def _of_agent(config: AgentConfig) -> Iterator[Reader]:
    tls = config.tls
    yield from _of_both(config)
    yield [config.token_file], lambda: token_of(config.token_file)
    if tls is not None:
        yield [tls.ca_file, tls.cert_file, tls.key_file], lambda: client_context(tls)
