"""The core without event loop, sockets and clock: bytes in, bytes out."""
