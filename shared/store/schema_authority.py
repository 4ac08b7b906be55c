"""Tables of central's orders: CAs and what they wait for, who may ask, and gateways' lines."""

from sqlalchemy import Index, Table

from shared.store.columns import blob as _blob
from shared.store.columns import integer as _int
from shared.store.columns import key as _key
from shared.store.columns import metadata
from shared.store.columns import text as _text

#: Further certificates of CAs: cross-certificates, and the links of a roll-over (RFC 4210 §4.4).
cross_certificate = Table(
    "cross_certificate",
    metadata,
    _key("sha256"),
    _text("ca_id"),  # whose key it certifies
    _text("issuer_id"),
    _blob("der"),
    _int("created_at"),
    Index("cross_certificate_by_ca", "ca_id"),
)

#: CAs whose key is here and whose certificate a foreign CA has yet to make.
ca_request = Table(
    "ca_request",
    metadata,
    _key("ca_id"),
    _text("name"),
    _text("kind"),
    _text("tenant"),
    _blob("csr"),
    _int("created_at"),
)

#: What gateways asked to be certified and what is not signed yet. kind: identity, authority.
renewal = Table(
    "renewal",
    metadata,
    _key("gateway"),
    _key("kind"),
    _blob("document"),  # CBOR: names to DER SubjectPublicKeyInfos whose possession is proven
    _int("requested_at"),
)

#: Aliases, requesters and manufacturers (shared.policy.access), each a JSON document.
access_rule = Table(
    "access_rule",
    metadata,
    _key("kind"),
    _key("name"),
    _text("document"),
    _int("updated_at"),
)

#: Which lines a gateway serves; one without any serves the line of its own name.
gateway_line = Table("gateway_line", metadata, _key("gateway"), _key("line"))
