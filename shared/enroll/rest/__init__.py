"""REST ``/api/v2.0``: JSON:API style, RFC 9457 problems, Idempotency-Key, OpenAPI 3.1."""
