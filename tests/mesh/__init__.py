"""Links between hubs, on real sockets: a hub is here nothing but what its mesh needs of it."""
