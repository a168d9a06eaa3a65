"""The registry in Redis: scripts that change it in one step each, and the one task that runs them."""
