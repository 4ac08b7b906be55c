"""Who asks, for the protocols that are reached by an alias: deny by default."""
