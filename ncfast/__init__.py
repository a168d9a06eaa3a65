"""ncfast: a reverse-TCP hub whose flows survive the links they cross."""

__version__ = "0.1.0"
