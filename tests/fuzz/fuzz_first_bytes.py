"""The first bytes on the edge, cut anywhere: a request, an HTTP error of ours, or patience, nothing else."""

import logging
import sys

import atheris

with atheris.instrument_imports():
    from websockets.server import ServerProtocol

    from ncfast.net.request import BadRequest, HttpLimits, RequestReader

logging.disable(logging.CRITICAL)
LIMITS = HttpLimits()
UPGRADE = (
    b"GET /tunnel HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer x\r\n"
)


def one_input(data: bytes) -> None:
    source = atheris.FuzzedDataProvider(data)
    start = UPGRADE[: source.ConsumeIntInRange(0, len(UPGRADE))] if source.ConsumeBool() else b""
    cut = source.ConsumeIntInRange(0, 64)
    stream = start + source.ConsumeBytes(sys.maxsize)
    reader = RequestReader(LIMITS)
    for piece in (stream[:cut], stream[cut:]):
        try:
            request = reader.feed(piece)
        except BadRequest:
            return
        if request is not None:
            response = ServerProtocol(extensions=None).accept(request)
            assert response.status_code in (101, 400, 405, 426, 505), response.status_code
            return


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
