"""Against agents: a scripted hub, and the service beside the agent."""
