"""Central's own keys: the hierarchy of CAs, the transport identities, joining, OCSP responders."""
