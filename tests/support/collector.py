"""The receiving end of OTLP over HTTP, as a collector has it; requests are parsed by OpenTelemetry's own protobuf."""

from __future__ import annotations

import gzip
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass(frozen=True)
class Record:
    """One log record, with what is said of all of its kind."""

    resource: dict[str, Any]
    scope: str
    at_ns: int
    severity: tuple[int, str]
    event: str
    body: Any
    attributes: dict[str, Any]


@dataclass
class Collector:
    """Answers `status`, as soon as `gate` is open."""

    status: int = 200
    gate: threading.Event = field(default_factory=threading.Event)
    asked: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # of the last request, names in small letters
    raw: bytes = b""  # all that was ever sent, unpacked
    taken: list[Record] = field(default_factory=list)  # what was answered with 200
    tls: ssl.SSLContext | None = None
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}/v1/logs"

    def of(self, service: str) -> list[Record]:
        """What this service has sent."""
        return [record for record in self.taken if record.resource["service.name"] == service]


@contextmanager
def collector(**state: Any) -> Iterator[Collector]:
    """One on a free port; it answers at once unless `gate` is given."""
    made = Collector(**state)
    if "gate" not in state:
        made.gate.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
            made.headers = {name.lower(): value for name, value in self.headers.items()}
            made.raw += body
            made.asked += 1
            made.gate.wait()
            if made.status == 200 and self.path == "/v1/logs":
                made.taken += _records(ExportLogsServiceRequest.FromString(body))
            answer = ExportLogsServiceResponse().SerializeToString()
            self.send_response(made.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Senders that have given up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if made.tls is not None:
            server.socket = made.tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        made.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.gate.set()
            server.shutdown()
            thread.join()


def _records(request: ExportLogsServiceRequest) -> Iterator[Record]:
    for of_resource in request.resource_logs:
        for of_scope in of_resource.scope_logs:
            for one in of_scope.log_records:
                yield Record(
                    _plain(of_resource.resource.attributes),
                    of_scope.scope.name,
                    one.time_unix_nano,
                    (one.severity_number, one.severity_text),
                    one.event_name,
                    _value(one.body),
                    _plain(one.attributes),
                )


def _plain(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return _plain(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)
