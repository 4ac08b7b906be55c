"""Storage: schema, the one writer with group commit, ledger, outbox and inbox tables."""
