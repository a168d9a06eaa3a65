"""A hub's side of a mesh link by hand: for frames that no real hub would send."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, NamedTuple, Self

from ncfast._frames import FrameType, decode, encode
from ncfast.core.messages import VERSION
from ncfast.mesh import handshake
from ncfast.mesh.binding import place
from support.peer import Address
from support.until import PATIENCE


class Frame(NamedTuple):
    type: FrameType
    flags: int
    code: int
    epoch: int
    cid: bytes
    seq: int
    ack: int
    limit: int
    payload: bytes


class RawPeer:
    """Dials a hub's ``ha.mesh.listen`` and proves that it knows the mesh's secret, as ``replica_id``; a context
    manager."""

    def __init__(
        self,
        address: Address,
        secret: bytes,
        replica_id: str = "hub-0",
        cluster: str = "ncfast",
        *,
        instance: bytes | None = None,
    ) -> None:
        self.instance = instance or os.urandom(8)
        self._buffer = b""
        self._number = 0
        self.sock = socket.create_connection(address, timeout=PATIENCE)
        hello = handshake.Hello(
            version=VERSION,
            cluster=cluster,
            replica_id=replica_id,
            instance=self.instance.hex(),
            nonce=os.urandom(32).hex(),
            software="test",
            place=place(self.sock.getpeername()),
        )
        self.send(FrameType.HELLO, payload=hello.pack())
        ack = self.ack = handshake.HelloAck.model_validate_json(self.wait(FrameType.HELLO_ACK).payload)
        auth = handshake.Auth(proof=handshake.proof(secret, "dialler", hello, ack))
        self.send(FrameType.AUTH, payload=auth.pack())

    def cid(self) -> bytes:
        """A new flow's, as this hub would name it."""
        self._number += 1
        return self.instance + self._number.to_bytes(8, "big")

    def send(self, type: FrameType, **fields: Any) -> None:
        self.sock.sendall(encode(type, **fields))

    def open(
        self, connector: str, agent: str, epoch: int, *, tenant: str | None = None, cid: bytes | None = None
    ) -> bytes:
        """M_OPEN for a flow of ours; its cid."""
        body: dict[str, Any] = {
            "connector": connector,
            "listener": connector,
            "secret": os.urandom(16).hex(),
            "origin": "hub-0",
            "client": ["127.0.0.1", 1, "127.0.0.1", 2],
            "agent": agent,
        }
        if tenant is not None:
            body["tenant"] = tenant
        cid = cid or self.cid()
        self.send(FrameType.M_OPEN, cid=cid, epoch=epoch, limit=65536, payload=json.dumps(body).encode())
        return cid

    def frame(self) -> Frame | None:
        """The next frame, PINGs answered; None when the hub has closed."""
        while True:
            while (found := decode(self._buffer, 0)) is None:
                try:
                    data = self.sock.recv(65536)
                except ConnectionResetError:
                    data = b""
                if not data:
                    return None
                self._buffer += data
            *fields, end = found
            self._buffer = self._buffer[end:]
            frame = Frame(FrameType(fields[0]), *fields[1:])
            if frame.type is not FrameType.PING:
                return frame
            self.send(FrameType.PONG, seq=frame.seq)

    def wait(self, *types: FrameType, cid: bytes = bytes(16)) -> Frame:
        """The next frame of these types, of that flow."""
        while frame := self.frame():
            if frame.type in types and frame.cid == cid:
                return frame
        raise AssertionError(f"the hub closed the link before {types}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
