"""Keys that sign documents: the daemon of one token, its providers, and the client door."""
