"""Replication without I/O: events, envelopes, outbox, inbox, receipts, reconcile, scheduling."""
