"""The gateway's own CAs: the one that issues, and those that only keep their status.

Issuing begins with ``active``, so nothing is intended while the token is away or this box's
history is in doubt; ``of`` also guards CRL signing.
"""

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from sqlalchemy import select

from gateway.config import CrlSettings
from gateway.snapshot import HistoryState, TokenState, TokenView
from shared.hsm.client import HsmClient, RemoteIssuingKey
from shared.kernel.errors import NotFoundError, TokenUnavailableError, UnavailableError
from shared.pki.certificates import Issuer
from shared.pki.partitions import Partitions
from shared.store import partitions
from shared.store.database import Database
from shared.store.schema import ca

_KEY_SCHEME = "hsmd:"
#: What a CA of central is called here that signs for this gateway's requesters.
ISSUING = "issuing"
_ALL = select(ca)
_RETRY_AFTER_S = 5


class Authorities:
    """Implements ``shared.issuance.ports.IssuingKeys``; ``load`` reads what the database says."""

    def __init__(
        self,
        database: Database,
        client: HsmClient,
        status_urls: Sequence[str],
        wanted: CrlSettings,
    ) -> None:
        """Take the addresses at which status is served, this gateway's first, and which CRLs."""
        self._database = database
        self._client = client
        self._status_urls = tuple(status_urls)
        self._wanted = wanted
        self._keys: dict[str, RemoteIssuingKey] = {}
        self._active: RemoteIssuingKey | None = None
        self.token = TokenView(TokenState.STARTING)
        self.history = HistoryState.CONTINUOUS
        self.rows: dict[str, Any] = {}  # every CA that this box knows, by id

    async def load(self) -> None:
        """Take over what the database says; call again after a directive changed it."""
        self.rows = {row.ca_id: row for row in await self._database.read(_ALL)}
        own = [row for row in self.rows.values() if row.key_uri is not None]
        self._keys = {row.ca_id: await self._loaded(row) for row in own}
        newest = max((row for row in own if row.state == "active"), key=_created, default=None)
        self._active = newest and self._keys[newest.ca_id]

    @property
    def own(self) -> tuple[RemoteIssuingKey, ...]:
        """Every CA whose key is here."""
        return tuple(self._keys.values())

    @property
    def issuing(self) -> Any:
        """The row of the CA that issues; None when it was ended."""
        return self._active and self.rows[self._active.issuer.ca_id]

    @property
    def of_central(self) -> list[Any]:
        """The rows of central's CAs that signed for requesters of this gateway, oldest first."""
        found = [row for row in self.rows.values() if row.kind == ISSUING]
        return sorted(found, key=_created)

    @property
    def newest(self) -> RemoteIssuingKey:
        """The CA to show: the one that issues, else the last one that did."""
        return self._active or self._keys[max(self._keys, key=lambda one: _created(self.rows[one]))]

    def active(self, profile: str) -> RemoteIssuingKey:
        """Give the key for every profile; raises TokenUnavailableError, UnavailableError."""
        del profile
        self._require_history()
        if self.token.state is not TokenState.READY:
            raise TokenUnavailableError(
                f"The token with the issuing key is not ready. {self.token.detail}".rstrip(),
                retry_after_s=_RETRY_AFTER_S,
            )
        if self._active is None:
            raise UnavailableError(
                "This gateway's issuing CA was ended.",
                remedy="Ask the administrator of central for a new one.",
            )
        return self._active

    def of(self, ca_id: str) -> RemoteIssuingKey:
        """Give the key of one of our CAs; raises NotFoundError, UnavailableError."""
        self._require_history()
        key = self._keys.get(ca_id)
        if key is None:
            raise NotFoundError(f"The key of the CA {ca_id} is not in this gateway's token.")
        return key

    def label(self, ca_id: str) -> str:
        """Name the CA's key in the token."""
        return self.rows[ca_id].key_uri.removeprefix(_KEY_SCHEME)

    def parents(self, ca_id: str | None) -> list[bytes]:
        """Certificates (DER) from a CA up to its root."""
        chain: list[bytes] = []
        while ca_id is not None and (row := self.rows.get(ca_id)) is not None:
            chain.append(row.der)
            ca_id = row.parent_id
        return chain

    def _require_history(self) -> None:
        if self.history is not HistoryState.CONTINUOUS:
            raise UnavailableError(
                f"This gateway's database is {self.history.value}; it must not sign anything.",
                remedy="Call the administrator of central, who decides how it goes on.",
            )

    async def _loaded(self, row: Any) -> RemoteIssuingKey:
        count = self._wanted.partitions if row.state == "active" else None
        urls = self._at("crl", f"{row.ca_id}.crl")
        parts = await partitions.in_force(self._database, row, urls, count)
        return self._known(row, parts) or self._key(row, parts)

    def _known(self, row: Any, parts: Partitions) -> RemoteIssuingKey | None:
        """Give the key as it was loaded before, unless the CA was certified anew meanwhile."""
        known = self._keys.get(row.ca_id)
        same = (
            known is not None
            and known.issuer.chain == (row.der, *self.parents(row.parent_id))
            and known.issuer.issue_until_us == row.issue_until
            and known.issuer.partitions == parts
        )
        return known if same else None

    def _key(self, row: Any, parts: Partitions) -> RemoteIssuingKey:
        issuer = Issuer(
            row.ca_id,
            x509.load_der_x509_certificate(row.der),
            (row.der, *self.parents(row.parent_id)),
            crl_urls=self._at("crl", f"{row.ca_id}.crl"),
            ocsp_urls=self._at("ocsp"),
            ca_urls=self._at("ca", f"{row.ca_id}.cer"),
            issue_until_us=row.issue_until,
            delta_urls=self._at("crl", f"{row.ca_id}-delta.crl")
            if self._wanted.delta_hours
            else (),
            partitions=parts,
        )
        return RemoteIssuingKey(issuer, self._client, self.label(row.ca_id))

    def _at(self, *path: str) -> tuple[str, ...]:
        return tuple("/".join((base, *path)) for base in self._status_urls)


def _created(row: Any) -> int:
    return row.created_at
