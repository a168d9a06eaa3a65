"""Where the key that checks tokens comes from: ``/tunnel`` is never open to all."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ncfast.config.hub import HubConfig, Jwt
from ncfast.config.loader import build
from ncfast.config.problems import ENVIRONMENT, ConfigError, Problem
from ncfast.config.yamlfile import Document


def named_in(env: Mapping[str, str]) -> bool:
    """Whether the environment says what tokens are checked with."""
    return bool(env.get("NC_JWT_KEY_FILE") or env.get("NC_JWKS_URL"))


def resolve_auth(config: HubConfig, env: Mapping[str, str] | None = None) -> Jwt:
    """The ``auth.jwt`` section, or one made from ``NC_JWT_KEY_FILE`` or ``NC_JWKS_URL``.

    A key file checks HS256 and a JWKS URL RS256, unless ``NC_JWT_ALGORITHM`` names another. Raises
    :class:`ConfigError` when there is neither section nor variable: the hub must not start.
    """
    if config.auth is not None:
        return config.auth.jwt
    env = os.environ if env is None else env
    key_file, jwks_url = env.get("NC_JWT_KEY_FILE"), env.get("NC_JWKS_URL")
    if not named_in(env):
        message = "no key to check the agents' tokens with; /tunnel is never open to all"
        remedy = "add auth: { jwt: { key_file: ... } } to the file, or set NC_JWT_KEY_FILE or NC_JWKS_URL"
        raise ConfigError([Problem(ENVIRONMENT, 0, 0, "auth", "", message, remedy)])
    algorithm = env.get("NC_JWT_ALGORITHM") or ("RS256" if jwks_url else "HS256")
    given = {"key_file": key_file, "jwks_url": jwks_url}
    data = {"algorithms": [algorithm], **{name: value for name, value in given.items() if value}}
    return build(Jwt, Document.of(ENVIRONMENT, data))
