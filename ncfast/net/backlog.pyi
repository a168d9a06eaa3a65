"""Bytes that wait for a socket."""

class Backlog:
    """Copies of what the kernel did not take, in order."""
