"""Files named in a configuration that others than us may read, where they hold a secret, or write.

What counts is the file behind all links, as mounted secrets are links. Its owner's bits never do. Of others: reading a
secret, and writing anything, as whoever writes an authority's certificate decides whom we trust. Of the group: writing;
and reading a secret that is our own file, while a secret that belongs to another user, root for one, is given to us by
the group (PostgreSQL's rule for its key: 0600, or 0640 if root's). So a Kubernetes secret with `fsGroup` is right with
`defaultMode: 0400`, which shows as 0440 of root, and wrong with the default of 0644.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from ncfast.config.agent import AgentConfig
    from ncfast.config.hub import HubConfig, Jwt

# keys that name a file of which nobody else may know the content; of other files only the writing matters
SECRET = frozenset({"key_file", "token_file", "secret_file", "redis_password_file", "redis_key_file", "headers_file"})


def exposed(config: HubConfig | AgentConfig | Jwt, key: str = "") -> Iterator[str]:
    """One line for each such file that is here, ``key: text``."""
    for name, path in _named(config, key):
        try:
            found = os.stat(path)
        except OSError:
            continue  # whoever reads it will tell
        what = [*_may_read(found, name, config), *_may_write(found)]
        if what:
            yield f"{name}: {path} can be {' and '.join(what)} (mode {stat.S_IMODE(found.st_mode):04o}); chmod 600 it"


def _named(section: BaseModel, key: str) -> Iterator[tuple[str, Path]]:
    """The paths of regular files, with their keys as `ha.mesh.secret_file`."""
    for name, value in section:
        where = f"{key}.{name}" if key else name
        if isinstance(value, BaseModel):
            yield from _named(value, where)
        elif isinstance(value, Path) and os.path.isfile(value):  # false in a closed directory
            yield where, value


def _may_read(found: os.stat_result, name: str, config: Any) -> Iterator[str]:
    if name.rpartition(".")[2] not in SECRET or _is_public(name, config):
        return
    if found.st_mode & stat.S_IROTH:
        yield "read by others"
    elif found.st_mode & stat.S_IRGRP and found.st_uid == os.geteuid():
        yield "read by its group"


def _may_write(found: os.stat_result) -> Iterator[str]:
    if found.st_mode & stat.S_IWOTH:
        yield "written by others"
    elif found.st_mode & stat.S_IWGRP:
        yield "written by its group"


def _is_public(name: str, config: Any) -> bool:
    """Whether the file holds the issuer's public keys, which anybody may know."""
    if not name.endswith("jwt.key_file"):
        return False
    auth = getattr(config, "auth", None)  # of a hub's file; else it is the section itself, from the environment
    algorithms: list[str] = (config if auth is None else auth.jwt).algorithms
    return algorithms != ["HS256"]
