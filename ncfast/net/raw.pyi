"""The bare byte stream as a carrier, between hubs."""

from ncfast.net.carrier import TransportCarrier

class RawCarrier(TransportCarrier):
    """Nothing but frames is to come when it takes over."""
