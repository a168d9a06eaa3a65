"""Against hubs of a cluster: a scripted hub that dials their mesh, beside the scripted agent and clients."""
