"""Runs a hub or an agent as a process. Each has a module of its own, and loads nothing of the other's."""
