"""The half of a flow that sends, from its socket to its path."""

from ncfast.core.receiving import Receiver

class Sender(Receiver):
    snd_nxt: int
    snd_una: int
    snd_max: int
    snd_limit: int
    inflight: int
    congestion: int

    def finish(self) -> None:
        """The socket's end of stream: this direction ends after what was pushed."""
