"""Enrollment protocols: each parses, authenticates, calls ``IssuanceService.issue`` and encodes."""
