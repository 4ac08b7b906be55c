"""What is done once: tokens, ceremonies, wrapped keys."""
