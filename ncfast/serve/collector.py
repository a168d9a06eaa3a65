"""What a process sends to an OpenTelemetry Collector, by its configuration and the files that this names."""

from __future__ import annotations

import re
from pathlib import Path

from ncfast.config.files import Unreadable, Unusable, read_bounded
from ncfast.config.otlp import Otlp
from ncfast.net.tls import client_context
from ncfast.observe import otlp

MAX_FILE_BYTES = 16 * 1024  # of headers; servers take some 8 KiB in all
_HEADER = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)\s*"
)  # RFC 9110, 5


def wish(config: Otlp, service: str, instance: str | None, mask: str = "none") -> otlp.Wish:
    """What `otlp.follow` takes. `mask` is the log's rule if `instance` is an agent's id.

    Raises Unusable for files of no use.
    """
    if config.tls is not None:
        client_context(config.tls, "otlp.tls")
    headers = read_headers(config.headers_file) if config.headers_file is not None else ()
    return otlp.Wish(config, headers, service, instance, mask)


def read_headers(path: Path) -> tuple[tuple[str, str], ...]:
    """Names and values in the file, one a line. Raises Unusable, which names the line and shows nothing of it."""
    try:
        lines = read_bounded(path, MAX_FILE_BYTES).decode("latin-1").splitlines()
    except Unreadable as exc:
        raise Unusable(f"otlp.headers_file: {path}: {exc}") from None
    headers: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            if (found := _HEADER.fullmatch(line)) is None:
                raise Unusable(f"otlp.headers_file: {path}: line {number} is no header, as `Authorization: Bearer …`")
            headers.append((found[1], found[2]))
    return tuple(headers)
