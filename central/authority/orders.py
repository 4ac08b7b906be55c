"""What may be ordered about CAs, by command, page or API."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.pki.key_types import KeyType
from shared.pki.partitions import Count
from shared.web.console import Order

CaName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
CaId = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Tenant = Annotated[str, Field(pattern=r"^[a-z0-9-]{0,64}$")]
Days = Annotated[int, Field(ge=1, le=36_525)]


class CreateOrder(Order):
    """Make a CA: a root, or one below ``parent``. Without ``days`` it has no expiry."""

    name: CaName
    kind: Literal["root", "sub", "fleet", "issuing"]
    parent: CaId | None = None
    key_type: KeyType = KeyType.EC_P256
    path_length: Annotated[int, Field(ge=0, le=16)] | None = None
    days: Days | None = None
    tenant: Tenant = ""
    crl_partitions: Count = 1

    @model_validator(mode="after")
    def _root_or_below(self) -> Self:
        if (self.kind == "root") != (self.parent is None):
            raise ValueError("a root has no parent, every other CA has one")
        if self.kind != "issuing" and self.crl_partitions != 1:
            raise ValueError("only the CRL of a CA that issues to end entities has partitions")
        return self


class PartitionOrder(Order):
    """Share out the CRL of a CA."""

    crl_partitions: Count


class RequestOrder(Order):
    """Make the key of a CA that a foreign CA is to certify."""

    name: CaName
    kind: Literal["sub", "fleet", "issuing"]
    key_type: KeyType = KeyType.EC_P256
    tenant: Tenant = ""


class CrossOrder(Order):
    """Certify the CA ``ca_id`` by the CA ``issuer`` too."""

    ca_id: CaId
    issuer: CaId
    days: Days | None = None


class CertificatesOrder(Order):
    """Certificates in PEM: a CA's own and its chain, or a root to trust under a name."""

    pem: Annotated[str, Field(min_length=1, max_length=64 * 1024)]
    name: Annotated[str, Field(max_length=64)] = ""


class CaOrder(Order):
    """Name one CA."""

    ca_id: CaId
