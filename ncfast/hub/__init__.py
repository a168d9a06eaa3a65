"""The hub: clients in at the listeners, agents in at the edge, and the rooms that bring them together."""
