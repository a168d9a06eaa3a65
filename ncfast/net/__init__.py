"""Sockets: the seam to the outside world, the ends and carriers on top of it, and the handshakes that come first."""
