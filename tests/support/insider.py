"""Somebody with a valid token who is no real agent: a tunnel by hand, whose HELLO is answered."""

from __future__ import annotations

import json
import threading

from ncfast._frames import HEADER_SIZE, FrameType, decode, encode
from support.peer import Address
from support.raw_tunnel import BINARY, RawTunnel, ws_frame


class Insider(RawTunnel):
    """`frames` are what has come from the hub since; `epoch` is what was granted, 0 for a standby."""

    def __init__(
        self, edge: Address, token: str, agent_id: str = "mallory", *connectors: str, standby: bool = False
    ) -> None:
        self._sending = threading.Lock()
        super().__init__(edge)
        self.upgrade(token)
        self._behind = b""
        hello = {
            "version": 1,
            "agent_id": agent_id,
            "instance": "0" * 32,
            "connectors": connectors,
            "window": 1 << 18,
            "standby": standby,
        }
        self.say(encode(FrameType.HELLO, payload=json.dumps(hello).encode()))
        self.epoch = json.loads(self.wait(FrameType.HELLO_ACK))["epoch"]

    def send(self, data: bytes) -> None:
        """From any thread: what two of them send does not mix."""
        with self._sending:
            super().send(data)

    def say(self, *frames: bytes) -> None:
        """Frames in one message."""
        self.send(ws_frame(b"".join(frames)))

    def frame(self) -> bytes:
        """The hub's next frame; empty when it has closed."""
        while not self._behind:
            opcode, self._behind = self.message()
            if opcode != BINARY:
                return b""
        end = HEADER_SIZE + int.from_bytes(self._behind[4:8])
        whole, self._behind = self._behind[:end], self._behind[end:]
        return whole

    def wait(self, type: FrameType) -> bytes:
        """The payload of the next frame of a type."""
        return self.wait_frame(type)[HEADER_SIZE:]

    def wait_frame(self, type: FrameType) -> bytes:
        """The next frame of a type; PINGs are answered. Raises AssertionError when the hub closes before."""
        while True:
            frame = self.frame()
            assert frame, f"the hub has closed, and no {type.name} came"
            if frame[0] == type:
                return frame
            self.behave(frame)

    def behave(self, frame: bytes) -> None:
        """Keepalive, as everybody owes it."""
        if frame[0] == FrameType.PING:
            self.say(encode(FrameType.PONG, seq=decode(frame)[5]))

    def behaves(self) -> threading.Thread:
        """Reads and answers PINGs from now on, in a thread that ends with the tunnel."""

        def run() -> None:
            try:
                while frame := self.frame():
                    self.behave(frame)
            except OSError:
                pass  # closed under its hands, by the test

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread
