"""Batches of lines to a collector, by OpenTelemetry's own exporter: records, protobuf, gzip, repetitions."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from typing import Any

import requests
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ncfast import __version__
from ncfast.observe import log
from ncfast.observe.otlp.attributes import PREFIX, SEVERITIES, attributes, nanoseconds
from ncfast.observe.otlp.wish import Wish

MAX_ANSWER = 64 * 1024  # bytes read of what a collector answers; of use is the status alone

# What the library has to say of each attempt we say once, as an event.
logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
logging.getLogger("opentelemetry").propagate = False


class Client:
    """Of one thread, but for `close`. Raises OSError for files of no use."""

    def __init__(self, wish: Wish) -> None:
        config, tls = wish.config, wish.config.tls
        self._session = _Session()
        self._exporter = OTLPLogExporter(
            config.endpoint,
            certificate_file=str(tls.ca_file) if tls is not None and tls.ca_file is not None else _system(),
            client_key_file=str(tls.key_file) if tls is not None and tls.key_file is not None else None,
            client_certificate_file=str(tls.cert_file) if tls is not None and tls.cert_file is not None else None,
            headers=dict(wish.headers),
            timeout=config.timeout_sec,
            compression=Compression.Gzip,
            session=self._session,
        )
        who = {"service.name": wish.service, "service.version": __version__}
        if wish.instance is not None:
            who["service.instance.id"] = wish.instance if wish.mask == "none" else log.mask_identity(wish.instance)
        self._resource = Resource.create(who)
        self._scopes: dict[str, InstrumentationScope] = {}

    def send(self, lines: Sequence[dict[str, Any]]) -> str:
        """ "" if the collector took them, else why not. Takes `timeout_sec` at most, or as long as the collector says a
        little again and again."""
        self._session.outcome = ""
        sent = self._exporter.export([self._record(line) for line in lines])
        return "" if sent is LogRecordExportResult.SUCCESS else self._session.outcome or "internal"

    def close(self) -> None:
        """Ends the repetitions of a `send` that is under way in another thread, too."""
        self._exporter.shutdown()

    def _record(self, line: dict[str, Any]) -> ReadableLogRecord:
        record = LogRecord(
            timestamp=nanoseconds(line["ts"]),
            severity_number=SeverityNumber(SEVERITIES[line["level"]]),
            severity_text=line["level"],
            body=line["event"],
            event_name=PREFIX + line["event"],
            attributes=attributes(line),
        )
        name = line["logger"]
        scope = self._scopes.get(name) or self._scopes.setdefault(name, InstrumentationScope(name, __version__))
        return ReadableLogRecord(record, self._resource, scope)


class _Session(requests.Session):
    """Remembers what came of the last request, and reads a bounded part of its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = True
        self.auth = lambda request: request  # else ~/.netrc comes before a header that is given
        self.outcome = ""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["verify"] = self.verify  # else $REQUESTS_CA_BUNDLE comes before what a session says
        try:
            response = super().request(*args, **kwargs)
        except requests.RequestException as exc:
            self.outcome = _words(exc)
            raise
        self.outcome = f"http_{response.status_code}"
        response.raw.read(MAX_ANSWER)
        response.close()  # back to the pool, if that was all
        return response


def _words(exc: requests.RequestException) -> str:
    if isinstance(exc, requests.exceptions.SSLError):
        return "tls"
    if isinstance(exc, requests.exceptions.ProxyError):
        return "proxy"
    if isinstance(exc, requests.exceptions.Timeout):
        return "timeout"
    return "unreachable" if isinstance(exc, requests.exceptions.ConnectionError) else type(exc).__name__


def _system() -> str | None:
    """The system's authorities, by which everything here judges; requests would bring its own."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath
