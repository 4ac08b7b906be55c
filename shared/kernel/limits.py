"""Bounds of everything that comes from outside. Sizes in bytes unless the name says otherwise."""

CSR_BYTES_MAX = 16 * 1024
OCSP_REQUEST_BYTES_MAX = 8 * 1024
OCSP_CERTIDS_MAX = 32
OCSP_CACHE_BYTES_MAX = 64 * 1024 * 1024
REQUEST_BODY_BYTES_MAX = 64 * 1024
BATCH_BODY_BYTES_MAX = 8 * 1024 * 1024
BATCH_REQUESTS_MAX = 1_000
METADATA_PAIRS_MAX = 32
METADATA_KEY_CHARS_MAX = 64
METADATA_VALUE_CHARS_MAX = 256
DEVICE_ID_CHARS_MAX = 64
IDEMPOTENCY_KEY_CHARS_MAX = 128
PAGE_ROWS_MAX = 500
#: Device ids or serial numbers in one revocation by query.
SELECTION_NAMES_MAX = 1_000
EVENT_BYTES_MAX = 128 * 1024
#: What an event weighs beside its bytes: even an empty one takes room in memory and on the wire.
EVENT_OVERHEAD_BYTES = 64
#: Events that carry one large CRL, and what each has room for.
CRL_PARTS_MAX = 512
CRL_PART_BYTES_MAX = EVENT_BYTES_MAX - 1024
#: What a gateway signs and central takes: some 1.5 million entries.
CRL_BYTES_MAX = CRL_PARTS_MAX * CRL_PART_BYTES_MAX
ENVELOPE_EVENTS_MAX = 200
ENVELOPE_BYTES_MAX = 256 * 1024
SEGMENTS_IN_HELLO_MAX = 64
#: Of the segments that are applied as a whole but in no backup yet, a hello asks for so many.
UNARCHIVED_IN_HELLO_MAX = 8
CONCURRENT_ISSUES_MAX = 2_000
#: Requests of a gateway that wait for central to sign.
FORWARDED_WAITING_MAX = 10_000
SIGN_QUEUE_DEPTH_MAX = 2_000
ALIASES_MAX = 200
REQUESTERS_MAX = 300
#: What was issued later is under way, and is not compared (anti-entropy).
COMPARED_AFTER_US = 60 * 1_000_000
