"""Whether a service is reached through a route: by the first byte that comes back."""

from __future__ import annotations

import socket
import time

from bench.rig import Address


def until_served(address: Address, patience_sec: float, again_sec: float = 0.0) -> None:
    """Returns when a byte has been there and back; a client that is refused or reset is followed by another after
    `again_sec`. Raises RuntimeError when `patience_sec` have passed."""
    deadline = time.monotonic() + patience_sec
    while True:
        try:
            with socket.create_connection(address, timeout=patience_sec) as client:
                client.sendall(b"x")
                if client.recv(1) == b"x":
                    return
        except ConnectionError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing is served at {address} within {patience_sec:g} s")
        time.sleep(again_sec)
