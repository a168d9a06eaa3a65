"""What the tests stand on: real processes, real services, a misbehaving network."""
