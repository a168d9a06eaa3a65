"""WebSocket messages as a carrier."""

from collections.abc import Callable
from typing import Any

from websockets.protocol import Protocol

from ncfast.net.carrier import ReceiveBuffer, TransportCarrier

class WebSocketCarrier(TransportCarrier):
    """It takes over when the opening handshake is done."""

    ws: Protocol

    def __init__(
        self,
        ws: Protocol,
        transport: Any,
        call_later: Callable[..., Any],
        buffer: ReceiveBuffer,
        *,
        client: bool,
        max_message: int,
        entropy: Callable[[int], bytes],
    ) -> None: ...
