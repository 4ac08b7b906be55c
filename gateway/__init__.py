"""The box at the line: issues from its own CA, with or without a link to central."""
