"""What validation needs from outside; each composition root plugs in its own."""

from collections.abc import Sequence
from typing import Protocol

from cryptography import x509

from shared.pki.keys import PrivateKey
from shared.pki.ocsp import Status
from shared.pki.partitions import Partition


class CrlRow(Protocol):
    """A signed CRL; times in UTC µs."""

    @property
    def der(self) -> bytes: ...  # noqa: D102
    @property
    def this_update_us(self) -> int: ...  # noqa: D102
    @property
    def next_update_us(self) -> int: ...  # noqa: D102


class AuthorityRow(Protocol):
    """A CA that is known here."""

    @property
    def ca_id(self) -> str: ...  # noqa: D102
    @property
    def der(self) -> bytes: ...  # noqa: D102


class Responder(Protocol):
    """Who answers for one CA: a delegated OCSP responder (RFC 6960 §4.2.2.2)."""

    @property
    def key(self) -> PrivateKey: ...  # noqa: D102
    @property
    def certificate(self) -> x509.Certificate: ...  # noqa: D102


class Validation(Protocol):
    """What is known of CAs and certificates, as of the last commit."""

    async def authorities(self) -> Sequence[AuthorityRow]:
        """Give all CAs that are known here."""
        ...

    async def ca_certificate(self, ca_id: str) -> bytes | None:
        """Give the DER certificate of one CA."""
        ...

    async def current_crl(self, ca_id: str) -> CrlRow | None:
        """Give the newest complete CRL of a CA."""
        ...

    async def current_partition(self, ca_id: str, partition: Partition) -> CrlRow | None:
        """Give the newest CRL of a partition; None if the CA never had it."""
        ...

    async def current_delta(self, ca_id: str) -> CrlRow | None:
        """Give the newest delta CRL of a CA; None if it has no deltas."""
        ...

    async def ocsp_status(self, ca_id: str, serial: str) -> Status:
        """Give the status of a certificate, also of one that is not known (good or unknown)."""
        ...

    async def responder(self, ca_id: str) -> Responder | None:
        """Give the responder for a CA; None: OCSP is not answered for it here.

        Raises UnavailableError where no answer can be given now (``tryLater``).
        """
        ...

    def responder_now(self, ca_id: str) -> Responder | None:
        """Do what ``responder`` does without looking anything up; None also for *not now*."""
        ...

    def ocsp_status_now(self, ca_id: str, serial: str) -> Status | None:
        """Do what ``ocsp_status`` does at once; None while that could make others wait."""
        ...
