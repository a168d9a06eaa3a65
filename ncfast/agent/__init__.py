"""The agent: tunnels to hubs, and the services that their flows are for."""
