"""The core: flows, links and relays as bytes in, bytes out. No event loop, no socket, no clock, no log."""
