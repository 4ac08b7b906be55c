"""Keys that are made here: a retry gets the same key and certificate for 15 minutes.

The key is kept (wrapped, durable) before the certificate is issued, so that no crash can leave a
certificate whose key nobody has while its requester still asks. A later retry gets a new key, and
the certificate of the earlier one is revoked (design.md §3).
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

from shared.enroll.key_maker import KeyMaker
from shared.enroll.rest.ports import CertificateRow, KeptKey
from shared.issuance.ports import CertificateRecord
from shared.issuance.retries import explicit_key
from shared.issuance.service import Issued
from shared.kernel.clock import Clock
from shared.pki import keys
from shared.pki.keys import KeyType, PrivateKey
from shared.policy.request import EnrollmentRequest

#: Completes a request: for which key (DER SPKI), under which idempotency key.
ForKey = Callable[[bytes, str], EnrollmentRequest]


class Issuance(Protocol):
    """The use case (shared.issuance.service)."""

    async def issue(self, request: EnrollmentRequest) -> Issued:
        """Issue one certificate, or give the one that an equal request got."""
        ...


class Status(Protocol):
    """Revocation (shared.issuance.status)."""

    async def revoke(self, ca_id: str, serial: str, reason: str, actor: str) -> CertificateRecord:
        """Revoke for good."""
        ...


class Reads(Protocol):
    """What is looked up."""

    async def certificate_of(self, idempotency_key: str) -> CertificateRow | None:
        """Find the newest certificate that was issued under this key of ours."""
        ...


class Kept(Protocol):
    """Server-made keys that wait for a retry."""

    async def kept_key(self, name: str) -> KeptKey | None:
        """Give the key that is kept under this name; None when there is none, or no more."""
        ...

    async def keep_key(self, name: str, private_key: bytes, *, after: int = 0) -> KeptKey:
        """Give the key that is kept under this name, else keep this one for 15 minutes, wrapped."""
        ...


class Ports(Protocol):
    """What it takes to make keys and have them certified."""

    @property
    def issuance(self) -> Issuance: ...  # noqa: D102
    @property
    def status(self) -> Status: ...  # noqa: D102
    @property
    def reads(self) -> Reads: ...  # noqa: D102
    @property
    def kept(self) -> Kept: ...  # noqa: D102
    @property
    def maker(self) -> KeyMaker: ...  # noqa: D102
    @property
    def clock(self) -> Clock: ...  # noqa: D102


class Made(NamedTuple):
    """A key that is kept as ``name``, the same one ready for use, and its certificate."""

    name: str
    kept: KeptKey
    private_key: PrivateKey
    issued: Issued


class MadeKeys:
    """Issues certificates for keys that are made here."""

    def __init__(self, ports: Ports) -> None:
        """Take the ports."""
        self._ports = ports

    async def certify(self, base: str, kind: KeyType, request: ForKey, replay_us: int) -> Made:
        """Issue for a new key, or give again what the same ``base`` got; raises as ``issue``.

        ``replay_us``: for so long an equal request would find the certificate of its earlier key.
        """
        name = hashlib.sha256(base.encode()).hexdigest()  # routes and keys of clients may be long
        kept = await self._key(name, base, kind)
        private_key = keys.load_private(kept.private_key)
        spki = keys.spki(private_key.public_key())
        wish = replace(request(spki, _issue_key(base, kept.generation)), key_made_here=True)
        issued = await self._ports.issuance.issue(wish)
        if kept.generation > 1:
            await self._revoke(wish.principal, _issue_key(base, kept.generation - 1), replay_us)
        return Made(name, kept, private_key, issued)

    async def _key(self, name: str, base: str, kind: KeyType) -> KeptKey:
        """Give the key that is kept, or a new one if its certificate is not good any more."""
        kept = await self._ports.kept.kept_key(name) if keys.FORMS[kind].slow else None
        fresh = b""
        if kept is None:
            fresh = await self._ports.maker.make(name, kind)
            kept = await self._ports.kept.keep_key(name, fresh)
            self._ports.maker.fetched(name)
        if kept.private_key == fresh:
            return kept
        row = await self._certificate(_issue_key(base, kept.generation))
        if row is None or row.status == "good":
            return kept
        again = f"{name} {kept.generation}"
        fresh = fresh or await self._ports.maker.make(again, kind)
        kept = await self._ports.kept.keep_key(name, fresh, after=kept.generation)
        self._ports.maker.fetched(again)
        return kept

    async def _revoke(self, principal: str, issue_key: str, replay_us: int) -> None:
        row = await self._certificate(issue_key)
        now_us = self._ports.clock.now().utc_us
        if row is not None and row.status == "good" and now_us < row.issued_at_us + replay_us:
            await self._ports.status.revoke(row.ca_id, row.serial, "superseded", principal)

    async def _certificate(self, issue_key: str) -> CertificateRow | None:
        return await self._ports.reads.certificate_of(explicit_key(issue_key))


def _issue_key(base: str, generation: int) -> str:
    """Give each key's certificate its own; the first has the client's, as one for a CSR would."""
    return base if generation == 1 else f"{base} #{generation}"
