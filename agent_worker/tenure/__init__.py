"""Being the one agent of a conversation: the lease, the heartbeat, what waits to be told, the succession."""
