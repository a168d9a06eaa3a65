"""What both ends of a tunnel share about the connection that carries it."""

from __future__ import annotations

import logging
import ssl

from ncfast._websocket import WebSocketCarrier
from ncfast.net import Net

QUIET = logging.getLogger("ncfast.websockets")     # what we have to say of a handshake, we say in our own log
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False
QUIET.setLevel(logging.CRITICAL)


def unreadable(section: str, exc: OSError) -> OSError:
    """What to tell of certificates that cannot be loaded; never their content."""
    what = exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
    return OSError(f"{section}: cannot load certificate, key or CA ({what or type(exc).__name__}); "
                   "check that the files exist, are PEM, belong together and are readable")


class TunnelCarrier(WebSocketCarrier):
    """A WebSocket carrier whose connection is counted and watched."""

    def attend(self, net: Net) -> None:
        """Call when the connection is the carrier's."""
        self.net = net
        self.watch = net.watch(self.transport, self.broken)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.net.unwatch(self.watch)
        self.net.gone()
