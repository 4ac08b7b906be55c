"""What both products are built from, in layers: a package imports only what lies below it.

kernel < pki < policy < issuance, sync < system, hsm, store, mqtt, web < enroll, validation.
"""
