"""One module per schema version, oldest first; what is released never changes."""
