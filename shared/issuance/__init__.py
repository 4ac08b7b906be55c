"""The use case: decide, intend, sign, compare, complete; and its ports."""
