"""A configuration as a stranger may read it: every key with the value that is in force, and nothing secret.

Secrets are in files, of which the paths are shown. What a URL may carry besides its place, user, password and query, is
hidden, and so is whatever a key's name calls a secret.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

from ncfast.config.problems import is_secret
from ncfast.config.values import mask_url

HIDDEN = "***"
_QUERY = re.compile(r"(://[^?#]*)[?#].*", re.DOTALL)


def shown(config: BaseModel) -> Any:
    """The sections as JSON has them."""
    return _shown((), config.model_dump(mode="json", by_alias=True))


def _shown(path: tuple[str | int, ...], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown((*path, key), one) for key, one in value.items()}
    if isinstance(value, list):
        return [_shown((*path, number), one) for number, one in enumerate(value)]
    if isinstance(value, str):
        return HIDDEN if is_secret(path, value) else _QUERY.sub(rf"\1?{HIDDEN}", mask_url(value))
    return value
