"""An echo server, as lean as a Python program gets: one epoll loop, one buffer.

``python -m bench.echo`` prints its port and serves until it is told to end.
"""

from __future__ import annotations

import select
import socket


def serve(listener: socket.socket) -> None:
    """Echoes what small messages arrive. A peer that does not read what it sent is cut off."""
    buffer = bytearray(65536)
    view = memoryview(buffer)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
                continue
            client = clients[fd]
            try:
                received = client.recv_into(buffer)
                if received and client.send(view[:received]) == received:
                    continue
            except (ConnectionError, BlockingIOError):
                pass
            poll.unregister(fd)
            clients.pop(fd).close()


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(f"port {listener.getsockname()[1]}", flush=True)
        serve(listener)


if __name__ == "__main__":
    main()
