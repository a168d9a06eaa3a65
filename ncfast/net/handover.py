"""What the predecessor does of every hand-over, whether it is a hub or an agent: `ncfast.net.channel` is between it and
its successor."""

from __future__ import annotations

from ncfast.core.errors import NcfastError
from ncfast.net.channel import Channel
from ncfast.net.seam import Net


class HandoverFailed(NcfastError):
    """The successor did not take over; this process has everything that it had not taken, and goes on."""


def pass_doors(net: Net, channel: Channel) -> None:
    """Every socket that listens; they stay ours as well. None may be opened or closed meanwhile."""
    for key, socks in net.doors():
        channel.send("doors", {"doors": [[key, len(socks)]]}, fds=[sock.fileno() for sock in socks])
