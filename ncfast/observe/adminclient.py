"""Asking a hub's admin edge."""

from __future__ import annotations

import json
from typing import Any

from ncfast.core.errors import NcfastError

_TIMEOUT_SEC = 5
_MAX_TEXT = 1000  # bytes of a refusal
_MAX_BYTES = 64 * 1024 * 1024  # ten thousand agents take some 4 MiB


class Unavailable(NcfastError):
    """Nothing that answers like a hub's admin edge is there."""


class Refused(NcfastError):
    """The hub does not do what it was asked; the text is its own."""


def status(base: str) -> dict[str, Any]:
    """The document of ``/status``. Raises `Unavailable`."""
    document = ask(base, "/status")
    if document.get("role") != "hub":
        raise Unavailable(f"{base}/status does not answer with a hub's status; is this the admin edge?")
    return document


def ask(base: str, path: str, method: str = "GET") -> dict[str, Any]:
    """A JSON answer of the admin edge. Raises `Unavailable`, or `Refused`."""
    import http.client
    import urllib.error
    import urllib.request

    url = base + path
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # an admin edge is never behind a proxy
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=_TIMEOUT_SEC) as answer:
            document = json.loads(answer.read(_MAX_BYTES))
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise Unavailable(f"no answer from {url}: {error.reason}") from None
        raise Refused(error.read(_MAX_TEXT).decode(errors="replace").strip()) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"no answer from {url}: {getattr(error, 'reason', error)}") from None
    except ValueError:
        raise Unavailable(f"{url} does not answer as a hub does; is this the admin edge?") from None
    if not isinstance(document, dict):
        raise Unavailable(f"{url} does not answer as a hub does; is this the admin edge?")
    return document
