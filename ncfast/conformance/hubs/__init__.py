"""Against hubs: a scripted agent, and clients at the hub's listener."""
