"""A whole installation in one command, with faults: hub, agent, a small service and its clients."""
