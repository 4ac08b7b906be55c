"""Central's CAs, at any depth, with their keys; and what makes the first ones."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from cryptography import x509
from sqlalchemy import bindparam, insert, select

from central.authority import plans
from central.first_order import FirstOrder, transport_name
from shared.hsm.software import SoftwareIssuingKey
from shared.issuance.ports import IssuingKey, Priority, Purpose
from shared.kernel.clock import US_PER_SECOND, utc_us_of
from shared.kernel.errors import NotFoundError, UnavailableError
from shared.kernel.ids import Random, random_serial, serial_text
from shared.pki import algorithms, certificates, keys
from shared.pki.certificates import Issuer
from shared.pki.keys import PrivateKey
from shared.pki.partitions import UNPARTITIONED
from shared.pki.plan import NO_EXPIRY_US, Plan
from shared.store import partitions
from shared.store.certificates import record_issued
from shared.store.database import Database
from shared.store.schema import ca
from shared.store.transaction import Transaction
from shared.store.vault import Vault

#: Origin of what central issues to itself and to gateways: it is inventoried, but counted apart.
INFRASTRUCTURE = "_central"

#: Kinds of CAs. A sub CA certifies CAs only; a foreign one is trusted, its key is elsewhere.
ROOT, SUB, FLEET, ISSUING, TRANSPORT = "root", "sub", "fleet", "issuing", "transport_root"
GATEWAY, FOREIGN = "gateway", "foreign"
#: Issues; keeps its status only.
ACTIVE, RETIRED = "active", "retired"

_DAY_US = 24 * 3600 * US_PER_SECOND
_ALL = select(ca).order_by(ca.c.created_at)
_OF_GATEWAY = select(ca.c.ca_id).where(ca.c.gateway == bindparam("owner"))


class Hierarchy:
    """Every CA that central knows, and the keys of its own; ``refresh`` follows the database."""

    def __init__(
        self, database: Database, vault: Vault, status_url: str, *, deltas: bool = False
    ) -> None:
        """Take where CAs and keys lie; use ``load``. ``deltas``: they sign delta CRLs, too."""
        self._database = database
        self._vault = vault
        self._status_url = status_url
        self._deltas = deltas
        self._keys: dict[str, SoftwareIssuingKey] = {}
        self.rows: dict[str, Any] = {}  # oldest first

    @classmethod
    async def load(
        cls, database: Database, vault: Vault, status_url: str, *, deltas: bool = False
    ) -> Self:
        """Unwrap the keys; raises NotFoundError before ``tma-central init``."""
        loaded = cls(database, vault, status_url, deltas=deltas)
        await loaded.refresh()
        if not any(row.kind == TRANSPORT for row in loaded.rows.values()):
            raise NotFoundError("This central has no CAs yet.", remedy="Run `tma-central init`.")
        return loaded

    async def refresh(self) -> None:
        """Take over what the database says; keys that are known are not unwrapped again."""
        self.rows = {row.ca_id: row for row in await self._database.read(_ALL)}
        keys_now: dict[str, SoftwareIssuingKey] = {}
        for ca_id, row in self.rows.items():
            if row.key_uri is None or row.state not in {ACTIVE, RETIRED}:
                continue
            chain = (row.der, *self.parents(row.parent_id))
            known = self._keys.get(ca_id)
            urls = (_crl_url(self._status_url, ca_id),)
            parts = await partitions.in_force(self._database, row, urls)
            if known is None or (known.issuer.chain, known.issuer.partitions) != (chain, parts):
                url = self._status_url if row.kind != TRANSPORT else None
                private_key = await self._vault.private_key(key_name(ca_id))
                issuer = issuer_of(row.der, chain[1:], url, role=row.kind, deltas=self._deltas)
                known = SoftwareIssuingKey(replace(issuer, partitions=parts), private_key)
            keys_now[ca_id] = known
        self._keys = keys_now

    def parents(self, ca_id: str | None) -> list[bytes]:
        """Certificates (DER) from a CA up to its root."""
        chain: list[bytes] = []
        while ca_id is not None and (row := self.rows.get(ca_id)) is not None:
            chain.append(row.der)
            ca_id = row.parent_id
        return chain

    def newest(self, kind: str, tenant: str = "") -> SoftwareIssuingKey:
        """Give the youngest active CA of a kind, of the tenant or else of nobody in particular.

        Raises UnavailableError when there is none.
        """
        for owner in dict.fromkeys((tenant, "")):
            for ca_id in reversed(self.rows):
                row = self.rows[ca_id]
                mine = (row.kind, row.tenant or "", row.state) == (kind, owner, ACTIVE)
                if mine and ca_id in self._keys:
                    return self._keys[ca_id]
        raise UnavailableError(
            f"No CA of the kind {kind} can issue now.",
            remedy=f"Create one: `tma-central ca create NAME --kind {kind}`.",
        )

    @property
    def root(self) -> SoftwareIssuingKey:
        """The root above the CAs that are used unless another one is named."""
        return self.of(self._root_of(self.fleet.issuer.ca_id))

    @property
    def fleet(self) -> SoftwareIssuingKey:
        """The CA that certifies gateways."""
        return self.newest(FLEET)

    @property
    def issuing(self) -> SoftwareIssuingKey:
        """The CA that issues what names no other one."""
        return self.newest(ISSUING)

    @property
    def transport(self) -> SoftwareIssuingKey:
        """The root of the link."""
        return self.newest(TRANSPORT)

    @property
    def own(self) -> tuple[SoftwareIssuingKey, ...]:
        """All CAs whose keys are here: each keeps a CRL."""
        return tuple(self._keys.values())

    @property
    def public(self) -> tuple[SoftwareIssuingKey, ...]:
        """Those that relying parties ask about; the transport is a matter of central only."""
        return tuple(key for ca_id, key in self._keys.items() if self.rows[ca_id].kind != TRANSPORT)

    def find(self, ca_id: str) -> SoftwareIssuingKey | None:
        """Give the key of a CA, None if it is not here."""
        return self._keys.get(ca_id)

    def of(self, ca_id: str) -> SoftwareIssuingKey:
        """Give the key of one of central's CAs; raises NotFoundError."""
        key = self._keys.get(ca_id)
        if key is None:
            raise NotFoundError(f"The key of the CA {ca_id} is not at central.")
        return key

    def named(self, wanted: str) -> SoftwareIssuingKey:
        """Give the active CA that a profile names, by id or kind; raises UnavailableError."""
        row = self.rows.get(wanted)
        if row is not None and row.state == ACTIVE and wanted in self._keys:
            return self._keys[wanted]
        return self.newest(wanted)

    def _root_of(self, ca_id: str) -> str:
        while (parent := self.rows[ca_id].parent_id) is not None:
            ca_id = parent
        return ca_id


def issuer_of(
    der: bytes,
    parents: Sequence[bytes],
    status_url: str | None,
    *,
    role: str = ISSUING,
    deltas: bool = False,
) -> Issuer:
    """Make an issuer of a CA certificate; ``parents`` are DER from its own issuer to the root.

    Without ``status_url`` its certificates point nowhere: nobody asks about transport identities.
    ``deltas`` are for what issues to end entities: the CRLs of CAs above are short, and gateways
    get them whole.
    """
    certificate = x509.load_der_x509_certificate(der)
    ca_id = keys.ca_id(keys.of_ca(certificate))
    if status_url is None:
        return Issuer(ca_id, certificate, (der, *parents), role=role)
    issuer = Issuer(
        ca_id,
        certificate,
        (der, *parents),
        crl_urls=(_crl_url(status_url, ca_id),),
        ocsp_urls=(f"{status_url}/ocsp",),
        ca_urls=(f"{status_url}/ca/{ca_id}.cer",),
        role=role,
    )
    if not deltas or issuer.path_length != 0:
        return issuer
    return replace(issuer, delta_urls=(f"{status_url}/crl/{ca_id}-delta.crl",))


def _crl_url(status_url: str, ca_id: str) -> str:
    return f"{status_url}/crl/{ca_id}.crl"


@dataclass(frozen=True, slots=True)
class NewAuthority:
    """A CA that was just made and is not stored yet."""

    kind: str
    name: str
    parent_id: str | None
    key: SoftwareIssuingKey
    private_key: PrivateKey

    @property
    def der(self) -> bytes:
        """Its certificate."""
        return self.key.issuer.chain[0]


@dataclass(frozen=True, slots=True)
class Founder:
    """Makes the CAs of a new central."""

    order: FirstOrder
    status_url: str
    now_us: int
    random: Random

    async def found(self) -> list[NewAuthority]:
        """Make the four CAs, parents first; nothing is stored here.

        The transport stays P-256, without expiry: its certificates are our own messages' affair.
        """
        order = self.order
        kind = order.key_type
        private_keys = await asyncio.gather(
            *(
                asyncio.to_thread(keys.generate, one)
                for one in (order.root_key_type or kind, kind, kind)
            )
        )
        of_root, of_fleet, of_issuing = private_keys
        root = self._self_signed(ROOT, order.root_name, 2, self.status_url, of_root)
        fleet = await self._below(root, FLEET, order.fleet_name, 1, of_fleet)
        issuing = await self._below(fleet, ISSUING, order.issuing_name, 0, of_issuing)
        name = transport_name(order.organization)
        transport = self._self_signed(TRANSPORT, name, 0, None, keys.generate())
        return [root, fleet, issuing, transport]

    def _self_signed(
        self,
        kind: str,
        name: str,
        path_length: int,
        status_url: str | None,
        private_key: PrivateKey,
    ) -> NewAuthority:
        is_root = kind == ROOT
        plan = self._plan(name, private_key, path_length, self.order.days if is_root else None)
        public_key = private_key.public_key()
        algorithm = algorithms.chosen(public_key, self.order.signature if is_root else None)
        tbs = certificates.unsigned_root(plan, random_serial(self.random), algorithm)
        signature = algorithm.sign(private_key, tbs)
        der = certificates.assemble_root(tbs, signature, public_key, algorithm)
        key = SoftwareIssuingKey(issuer_of(der, (), status_url), private_key)
        return NewAuthority(kind, name, None, key, private_key)

    async def _below(
        self,
        parent: NewAuthority,
        kind: str,
        name: str,
        path_length: int,
        private_key: PrivateKey,
    ) -> NewAuthority:
        plan = self._plan(name, private_key, path_length, self.order.days)
        der = await certify(parent.key, plan, Purpose.CA, self.random)
        issuer = issuer_of(der, parent.key.issuer.chain, self.status_url)
        key = SoftwareIssuingKey(issuer, private_key)
        return NewAuthority(kind, name, parent.key.issuer.ca_id, key, private_key)

    def _plan(self, name: str, key: PrivateKey, path_length: int, days: int | None) -> Plan:
        return plans.authority(
            name,
            self.order.organization,
            keys.spki(key.public_key()),
            path_length=path_length,
            now_us=self.now_us,
            not_after_us=NO_EXPIRY_US if days is None else self.now_us + days * _DAY_US,
        )


async def certify(key: IssuingKey, plan: Plan, purpose: Purpose, random: Random) -> bytes:
    """Sign one certificate of central's own needs; gives its DER. ``record`` inventories it.

    It ends with the CA at the latest.
    """
    end_us = min(plan.not_after_us, key.issuer.limits.not_after_us)
    plan = replace(plan, not_after_us=end_us)
    tbs = certificates.unsigned(plan, key.issuer, random_serial(random))
    signature = await key.sign(
        tbs, purpose, priority=Priority.INTERACTIVE, reference=f"{purpose} of central"
    )
    return certificates.assemble(tbs, signature, key.issuer)


def store_authority(
    transaction: Transaction,
    *,
    kind: str,
    name: str,
    der: bytes,
    parent_id: str | None,
    gateway: str | None = None,
    issue_until_us: int | None = None,
    tenant: str = "",
    is_foreign: bool = False,
    crl_partitions: int = 1,
) -> str:
    """Add a CA, and inventory its certificate if another CA issued it; gives its id."""
    issuer = issuer_of(der, (), None)
    row = {
        "ca_id": issuer.ca_id,
        "name": name,
        "kind": kind,
        "parent_id": parent_id,
        "gateway": gateway,
        "der": der,
        "key_uri": None if gateway or is_foreign else f"vault:{key_name(issuer.ca_id)}",
        "state": "active",
        "issue_until": issue_until_us,
        "not_after": issuer.limits.not_after_us,
        "crl_number": 0,
        "created_at": transaction.now.utc_us,
        "tenant": tenant or None,
        "crl_partitions": UNPARTITIONED.adopted(crl_partitions).written(),
    }
    transaction.execute(insert(ca), row)
    if parent_id is not None and not is_foreign:
        record(transaction, parent_id, der, "ca")
    return issuer.ca_id


def gateway_title(transaction: Transaction, gateway: str) -> str:
    """Name a gateway's next CA; two CAs with one name would share it on their CRLs."""
    generation = 1 + len(transaction.all(_OF_GATEWAY, {"owner": gateway}))
    return f"Gateway CA {gateway}" + (f" G{generation}" if generation > 1 else "")


def store_new(transaction: Transaction, vault: Vault, made: Sequence[NewAuthority]) -> None:
    """Store what ``Founder.found`` made, with the keys."""
    for new in made:
        ca_id = store_authority(
            transaction, kind=new.kind, name=new.name, der=new.der, parent_id=new.parent_id
        )
        vault.keep_key(transaction, key_name(ca_id), new.private_key)


def record(transaction: Transaction, issuer_id: str, der: bytes, purpose: str) -> None:
    """Inventory a certificate that central issued to itself or to a gateway."""
    serial = x509.load_der_x509_certificate(der).serial_number
    body: dict[str, Any] = {
        "ca_id": issuer_id,
        "serial": serial_text(serial),
        "der": der,
        "profile": "internal",
        "profile_version": 1,
        "purpose": purpose,
        "device_id": None,
        "alias": "",
        "protocol": "internal",
        "principal": INFRASTRUCTURE,
        "metadata": {},
        "grant_id": None,
        "test": False,
        "replaces": None,
    }
    record_issued(
        transaction,
        INFRASTRUCTURE,
        body,
        issued_at_us=transaction.now.utc_us,
        clock_quality=transaction.now.quality.value,
    )


def not_after_us(der: bytes) -> int:
    """When a certificate ends, UTC µs."""
    return utc_us_of(x509.load_der_x509_certificate(der).not_valid_after_utc)


def key_name(ca_id: str) -> str:
    """Name the vault's row with the key of a CA."""
    return f"ca/{ca_id}"
