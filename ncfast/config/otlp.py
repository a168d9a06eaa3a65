"""Log lines for an OpenTelemetry Collector, in a hub's file and in an agent's."""

from __future__ import annotations

from importlib.util import find_spec

from pydantic import model_validator

from ncfast.config.sections import ClientTls, Section, key
from ncfast.config.values import Count, EventName, FilePath, OtlpUrl, Seconds, fault

LIBRARY = "opentelemetry.exporter.otlp.proto.http"


class Otlp(Section):
    """Log lines, as they are masked and thinned, to an OpenTelemetry Collector as well: OTLP over HTTP, in batches, by
    a thread of their own; a collector that is away or slow delays nothing. Needs the extra `otlp` of the package. A
    reload takes all of it."""

    endpoint: OtlpUrl = key(why="The collector's URL for logs, path included: https://collector:4318/v1/logs.")
    headers_file: FilePath | None = key(
        None, why="A file with headers to send, one a line: Authorization: Bearer … Read again on reload."
    )
    tls: ClientTls | None = key(None, why="TLS towards the collector (https://); without it the system's CAs.")
    events: list[EventName] = key(
        ["flow_closed"], min_length=1, why="Which lines, by event; '*' for all. By default the access log."
    )
    batch_max: Count = key(
        100,
        ge=1,
        le=10_000,
        unit="lines",
        why=(
            "In one request. Encoding 100 holds the interpreter for 3 to 5 ms, and 5 ms is how long it lets a thread"
            " run before the next."
        ),
    )
    queue_max: Count = key(
        8192,
        ge=1,
        le=1_000_000,
        unit="lines",
        why="That may wait, at some 1 KiB each; further ones are dropped and counted.",
    )
    interval_sec: Seconds = key(1, ge=0.05, le=300, unit="s", why="How long lines gather before they are sent.")
    timeout_sec: Seconds = key(
        10,
        ge=0.1,
        le=300,
        unit="s",
        why="For one batch, repetitions included; then it is given up and counted. The SDKs' default.",
    )

    flush_sec: Seconds = key(
        3, ge=0, le=300, unit="s", why="How long a process's orderly end may take to send what waits."
    )

    @model_validator(mode="after")
    def _library_is_there(self) -> Otlp:
        try:
            found = find_spec(LIBRARY)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise fault(
                "OpenTelemetry's exporter is not installed",
                "pip install 'ncfast[otlp]', or remove the section",
                "",
            )
        return self

    @model_validator(mode="after")
    def _tls_has_a_use(self) -> Otlp:
        if self.tls is not None and self.endpoint.startswith("http://"):
            raise fault("tls, and the endpoint is http://", "write https://, or remove tls", "tls", "endpoint")
        return self
