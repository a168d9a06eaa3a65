"""What an HTTP edge answers, by path and method; and answers that hub and agent give alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from websockets.http11 import Request

from ncfast.net.request import Answer, Response

Routes = Mapping[str, tuple[str, Callable[[Request], Answer]]]  # path -> method, and who answers
JSON = "application/json"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format


def path_of(request: Request) -> str:
    """Without the query."""
    return request.path.partition("?")[0]


def unfit(routes: Routes, request: Request) -> Response | None:
    """The refusal of a path that is not there, or of another method than its own; None if there is an answer."""
    path = path_of(request)
    if path not in routes:
        return Response.text(404, "Not Found: " + " ".join(routes))
    method = routes[path][0]
    if request.method != method and (request.method, method) != ("HEAD", "GET"):
        allow = "GET, HEAD" if method == "GET" else method
        return Response.text(405, "Method Not Allowed", ("Allow", allow))
    return None


def json_response(status: int, body: dict[str, Any]) -> Response:
    return Response(status, JSON, orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE))


def healthz(request: Request) -> Response:
    """The process answers: always ok."""
    return json_response(200, {"status": "ok"})
