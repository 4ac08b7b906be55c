"""Adapters to the operating system: the clock, randomness, files, processes."""
