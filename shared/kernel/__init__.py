"""The ground floor: time, identifiers, errors, limits and deterministic CBOR. No I/O."""
