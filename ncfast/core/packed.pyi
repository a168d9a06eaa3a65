"""The packed form of what M_OPEN says."""

from ncfast.core.opening import Ends

def packed(
    connector: str, listener: str, secret: bytes, origin: str, client: Ends, agent: str = "", tenant: str = ""
) -> bytes:
    """What `Opening.pack` gives, without the tuple: a hub makes one for each flow. Raises ValueError for what has no
    place in it."""

def unpacked(body: bytes) -> tuple[str, str, bytes, str, Ends, str, str]:
    """The members of `Opening` in their order. Raises RemoteError as `Opening.unpack`."""
