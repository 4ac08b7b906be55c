"""What administrators do with CAs: create, hang below a foreign root, cross-certify, roll over.

Each act is one commit, with its audit entry.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from sqlalchemy import bindparam, delete, insert, select, update

from central.authority import generations, sharing
from central.authority import hierarchy as kinds
from central.authority.hierarchy import (
    Hierarchy,
    issuer_of,
    key_name,
    record,
    store_authority,
)
from central.authority.making import Maker, Subject
from central.authority.orders import CreateOrder, CrossOrder, RequestOrder
from central.inventory import audit
from central.metadata import pairs
from central.metadata.orders import Kind, Wanted
from central.sync import directives
from shared.issuance.status import StatusService
from shared.kernel.clock import Clock
from shared.kernel.errors import BadRequestError, ConflictError, NotFoundError, UntrustedError
from shared.kernel.ids import Random
from shared.pki import chain, formats, keys
from shared.pki.partitions import Partitions
from shared.pki.plan import NO_EXPIRY_US
from shared.store.database import Database
from shared.store.schema import ca, ca_request, certificate, cross_certificate, profile
from shared.store.transaction import Transaction
from shared.store.vault import Vault

_CHAIN_MAX = 8

_SET_STATE = update(ca).where(ca.c.ca_id == bindparam("which")).values(state=bindparam("new"))
_RECERTIFY = (
    update(ca)
    .where(ca.c.ca_id == bindparam("which"))
    .values(der=bindparam("new_der"), parent_id=bindparam("parent"))
)
_DELETE = delete(ca).where(ca.c.ca_id == bindparam("which"))
_REQUEST = select(ca_request).where(ca_request.c.ca_id == bindparam("which"))
_DROP_REQUEST = delete(ca_request).where(ca_request.c.ca_id == bindparam("which"))
_DROP_CROSS = delete(cross_certificate).where(
    (cross_certificate.c.ca_id == bindparam("which"))
    | (cross_certificate.c.issuer_id == bindparam("which"))
)
_CHILDREN = select(ca.c.name).where(ca.c.parent_id == bindparam("which")).limit(3)
_ISSUED = select(certificate.c.serial).where(certificate.c.ca_id == bindparam("which")).limit(1)
_NAMED_BY = select(profile.c.name, profile.c.document).where(profile.c.state == "active")
_CROSS_OF = select(cross_certificate).where(cross_certificate.c.ca_id == bindparam("which"))
_REQUESTS = select(ca_request).order_by(ca_request.c.created_at)


class Administration:
    """Changes the hierarchy; ``accept`` hears of each new CA whose devices may log in, DER."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        *,
        database: Database,
        vault: Vault,
        status: StatusService,
        organization: str,
        clock: Clock,
        random: Random,
        accept: Callable[[bytes], None],
    ) -> None:
        """Take what signs, what stores, and whom to tell."""
        self._hierarchy = hierarchy
        self._database = database
        self._vault = vault
        self._status = status
        self._maker = Maker(organization, clock, random)
        self._clock = clock
        self._accept = accept

    async def listed(self, wanted: Wanted | None = None) -> list[dict[str, Any]]:
        """Describe every CA, parents before children, then those that wait for a certificate.

        With ``wanted`` only those that carry these pairs.
        """
        found: list[dict[str, Any]] = []

        def descend(parent_id: str | None, depth: int) -> None:
            for row in self._hierarchy.rows.values():
                if row.parent_id == parent_id:
                    found.append(self._described(row, depth))
                    descend(row.ca_id, depth + 1)

        descend(None, 0)
        for row in await self._database.read(_REQUESTS):
            waiting = {"ca_id": row.ca_id, "name": row.name, "kind": row.kind, "depth": 0}
            found.append(waiting | {"state": "waiting", "tenant": row.tenant, "key": "here"})
        return await pairs.joined(self._database, Kind.CA, found, "ca_id", wanted)

    async def certificates(self, ca_id: str) -> list[bytes]:
        """Give a CA's certificate, then its cross-certificates (DER); raises NotFoundError."""
        row = self._row(ca_id)
        crossed = await self._database.read(_CROSS_OF, {"which": ca_id})
        return [row.der, *(one.der for one in crossed)]

    async def shown(self, ca_id: str) -> dict[str, Any]:
        """Give all of one CA: what it is below, what uses it, its certificates in PEM.

        Raises NotFoundError.
        """
        row = self._row(ca_id)
        return self._described(row, 0) | {
            "parent": row.parent_id,
            "parent_name": self._row(row.parent_id).name if row.parent_id else "",
            "gateway": row.gateway,
            "used_by": await self._database.writer.run(lambda tx: _uses(tx, row)),
            "certificates": formats.pem(await self.certificates(ca_id)),
            "metadata": await pairs.of(self._database, Kind.CA, ca_id),
        }

    async def create(self, order: CreateOrder, actor: str) -> str:
        """Make a root, or a CA below one of ours; gives its id.

        Raises NotFoundError (no such parent here), BadRequestError (the parent allows no CA of
        this depth), UnavailableError.
        """
        subject = await self._new_subject(order.name, order.kind, order.tenant, order.key_type)
        end_us = self._maker.end_us(order.days)
        if order.kind == kinds.ROOT:
            der = self._maker.self_signed(subject, order.path_length, end_us)
        else:
            parent = self._hierarchy.of(order.parent or "")
            der = await self._maker.below(parent, subject, order.path_length, end_us)
        await self._store(
            subject, der, order.parent, actor, "ca.created", crl_partitions=order.crl_partitions
        )
        return subject.ca_id

    async def request(self, order: RequestOrder, actor: str) -> bytes:
        """Make the key of a CA below a foreign one; gives the CSR (DER) for that one."""
        subject = await self._new_subject(order.name, order.kind, order.tenant, order.key_type)
        csr = self._maker.request(subject)

        def unit(transaction: Transaction) -> None:
            row = {
                "ca_id": subject.ca_id,
                "name": subject.name,
                "kind": subject.kind,
                "tenant": subject.tenant,
                "csr": csr,
                "created_at": transaction.now.utc_us,
            }
            transaction.execute(insert(ca_request), row)
            self._vault.keep_key(transaction, key_name(subject.ca_id), subject.private_key)
            detail = {"name": subject.name, "kind": subject.kind}
            audit.add(transaction, actor, "ca.requested", subject.ca_id, detail)

        await self._database.writer.run(unit)
        return csr

    async def install(self, ders: Sequence[bytes], actor: str) -> str:
        """Take the certificate that a foreign CA made of a request, with its chain; gives the id.

        Its root must be trusted already. Raises NotFoundError (not requested here),
        BadRequestError, UntrustedError.
        """
        if not 1 < len(ders) <= _CHAIN_MAX:
            raise BadRequestError("Give the CA's certificate and its whole chain up to the root.")
        own, *parents = ders
        wanted = keys.ca_id(keys.of_ca(x509.load_der_x509_certificate(own)))
        rows = await self._database.read(_REQUEST, {"which": wanted})
        if not rows:
            raise NotFoundError("No CA with this key waits for a certificate here.")
        root_id = issuer_of(parents[-1], (), None).ca_id
        if root_id not in self._hierarchy.rows:
            raise UntrustedError(
                "The root of this chain is not trusted here.",
                remedy="Compare its fingerprint, then trust it: `tma-central ca trust FILE`.",
            )
        chain.verify(own, parents[:-1], parents[-1:], self._clock.now().utc_us)
        _require_ca(own)
        request = rows[0]
        private_key = await self._vault.private_key(key_name(wanted))
        subject = Subject(request.name, request.kind, request.tenant, private_key, request.name)

        def unit(transaction: Transaction) -> None:
            for der, above in zip(reversed(parents[:-1]), reversed(parents[1:]), strict=True):
                self._store_foreign(transaction, der, issuer_of(above, (), None).ca_id)
            transaction.execute(_DROP_REQUEST, {"which": wanted})

        parent_id = issuer_of(parents[0], (), None).ca_id
        await self._store(subject, own, parent_id, actor, "ca.installed", unit)
        return wanted

    async def trust(self, der: bytes, name: str, actor: str) -> str:
        """Trust a foreign root; gives its id. Trusted already, nothing changes."""
        _require_ca(der)
        root = x509.load_der_x509_certificate(der)
        if root.issuer != root.subject:
            raise BadRequestError("This is not a root: another CA issued it.")
        try:
            root.verify_directly_issued_by(root)
        except (InvalidSignature, TypeError, ValueError) as error:
            raise UntrustedError("The root's signature of itself does not hold.") from error
        if kinds.not_after_us(der) <= self._clock.now().utc_us:
            raise BadRequestError("This root has ended.")
        ca_id = issuer_of(der, (), None).ca_id

        def unit(transaction: Transaction) -> None:
            if self._store_foreign(transaction, der, None, name):
                detail = {"name": name, "sha256": hashlib.sha256(der).hexdigest()}
                audit.add(transaction, actor, "ca.trusted", ca_id, detail)

        await self._database.writer.run(unit)
        await self._hierarchy.refresh()
        return ca_id

    async def cross_certify(self, order: CrossOrder, actor: str) -> bytes:
        """Certify another CA's key and name by one of ours; gives the certificate (DER)."""
        issuer = self._hierarchy.of(order.issuer)
        subject = self._row(order.ca_id)
        if subject.ca_id == order.issuer:
            raise BadRequestError("A CA does not cross-certify itself.")
        der = await self._maker.cross(issuer, subject.der, self._maker.end_us(order.days))
        await self._database.writer.run(
            lambda tx: self._keep_cross(tx, subject.ca_id, order.issuer, der, actor)
        )
        return der

    async def roll_over(self, ca_id: str, actor: str) -> str:
        """Follow a CA by its next generation, with a new key and the same place; gives its id.

        Below a parent that was rolled over that is below the parent's next generation.
        The former one keeps its status. Where a root is followed, each certifies the other, so
        that who trusts either one verifies both (RFC 4210 §4.4). Below a fleet CA each gateway's
        CA is certified anew, with its key, and hears of it.
        """
        former, row = self._hierarchy.of(ca_id), self._row(ca_id)
        if row.state != kinds.ACTIVE or row.kind == kinds.TRANSPORT:
            raise ConflictError("Only an active CA of the public hierarchy is rolled over.")
        kind = keys.key_type(keys.spki(former.issuer.public_key))
        assert kind is not None  # it issues
        # A root keeps its name: so the links are self-issued, and no path length is in their way.
        kept = _common_name(row.der) if row.parent_id is None else ""
        name = generations.next_name(row.name)
        subject = await self._new_subject(name, row.kind, row.tenant or "", kind, kept)
        end_us = former.issuer.limits.not_after_us
        parent_id = row.parent_id and generations.in_force(self._hierarchy, row.parent_id)
        if parent_id is None:
            der = self._maker.self_signed(subject, former.issuer.path_length, end_us)
        else:
            parent = self._hierarchy.of(parent_id)
            der = await self._maker.below(parent, subject, former.issuer.path_length, end_us)
        crossed = await self._maker.links(former, subject, der) if parent_id is None else []

        def unit(transaction: Transaction) -> None:
            transaction.execute(_SET_STATE, {"which": ca_id, "new": kinds.RETIRED})
            for certified, issuer_id, link in crossed:
                self._keep_cross(transaction, certified, issuer_id, link, actor)

        count = former.issuer.partitions.in_force
        await self._store(
            subject, der, parent_id, actor, "ca.rolled-over", unit, crl_partitions=count
        )
        if row.kind == kinds.FLEET:
            await self._recertify_gateways(ca_id, subject.ca_id, actor)
        return subject.ca_id

    async def partition(self, ca_id: str, count: int, actor: str) -> None:
        """Share out a CA's CRL to so many partitions (see ``sharing.partition``)."""
        row = self._row(ca_id)
        await sharing.partition(self._hierarchy, self._database, self._status, row, count, actor)

    async def retire(self, ca_id: str, actor: str) -> None:
        """Let a CA issue no more; its CRL and OCSP go on. Raises ConflictError, NotFoundError."""
        row = self._row(ca_id)
        if row.kind in {kinds.TRANSPORT, kinds.GATEWAY, kinds.FOREIGN}:
            raise ConflictError("Only CAs that central itself issues with are retired.")
        others = [one for one in self._hierarchy.rows.values() if one.kind == row.kind]
        needed = row.kind in {kinds.FLEET, kinds.ISSUING} and not row.tenant
        if needed and not any(
            one.state == kinds.ACTIVE and one.ca_id != ca_id and not one.tenant for one in others
        ):
            raise ConflictError(
                f"It is the last CA of the kind {row.kind}: nothing could be issued any more.",
                remedy="Roll it over, or create another one first.",
            )

        def unit(transaction: Transaction) -> None:
            transaction.execute(_SET_STATE, {"which": ca_id, "new": kinds.RETIRED})
            audit.add(transaction, actor, "ca.retired", ca_id, {"name": row.name})

        await self._database.writer.run(unit)
        await self._hierarchy.refresh()

    async def delete(self, ca_id: str, actor: str) -> None:
        """Forget a CA that nothing uses, with its key. Raises ConflictError saying what uses it."""
        row = self._row(ca_id)

        def unit(transaction: Transaction) -> None:
            if uses := _uses(transaction, row):
                raise ConflictError(
                    f"The CA {row.name} is in use: {'; '.join(uses)}.",
                    remedy="Retire it instead; what it issued goes on being answered for.",
                )
            for statement in (_DROP_CROSS, _DELETE):
                transaction.execute(statement, {"which": ca_id})
            self._vault.drop(transaction, key_name(ca_id))
            pairs.forget(transaction, Kind.CA, ca_id)
            audit.add(transaction, actor, "ca.deleted", ca_id, {"name": row.name})

        await self._database.writer.run(unit)
        await self._hierarchy.refresh()

    async def _store(  # noqa: PLR0917 - what every new CA has
        self,
        subject: Subject,
        der: bytes,
        parent_id: str | None,
        actor: str,
        action: str,
        also: Callable[[Transaction], None] = lambda _transaction: None,
        *,
        crl_partitions: int = 1,
    ) -> None:
        """Store a CA with its key, then let memory, CRLs and listeners follow."""

        def unit(transaction: Transaction) -> None:
            also(transaction)
            store_authority(
                transaction,
                kind=subject.kind,
                name=subject.name,
                der=der,
                parent_id=parent_id,
                tenant=subject.tenant,
                crl_partitions=crl_partitions,
            )
            self._vault.keep_key(transaction, key_name(subject.ca_id), subject.private_key)
            detail = {"name": subject.name, "kind": subject.kind, "tenant": subject.tenant}
            audit.add(transaction, actor, action, subject.ca_id, detail)

        await self._database.writer.run(unit)
        await self._hierarchy.refresh()
        self._status.add_ca(subject.ca_id)
        self._accept(der)

    async def _new_subject(
        self, name: str, kind: str, tenant: str, key_type: Any, common_name: str = ""
    ) -> Subject:
        """Make the key of a CA whose name no other CA bears."""
        if any(row.name == name for row in self._hierarchy.rows.values()):
            raise ConflictError(f"There is a CA {name} already.", remedy="Choose another name.")
        private_key = await asyncio.to_thread(keys.generate, key_type)
        return Subject(name, kind, tenant, private_key, common_name or name)

    async def _recertify_gateways(self, former_id: str, fleet_id: str, actor: str) -> None:
        """Certify each gateway's CA below the new fleet CA, with its key; the order says so."""
        fleet, links = self._hierarchy.of(fleet_id), await generations.links(self._database)
        for row in list(self._hierarchy.rows.values()):
            if row.parent_id != former_id or row.kind != kinds.GATEWAY or row.state != kinds.ACTIVE:
                continue
            der = await self._maker.cross(fleet, row.der, NO_EXPIRY_US)
            order = {
                "ca_id": row.ca_id,
                "der": der,
                "chain": list(fleet.issuer.chain),
                "links": links,
                "issue_until_us": row.issue_until or row.not_after,
            }

            def unit(
                transaction: Transaction, row: Any = row, der: bytes = der, order: Any = order
            ) -> None:
                changed = {"which": row.ca_id, "new_der": der, "parent": fleet_id}
                transaction.execute(_RECERTIFY, changed)
                record(transaction, fleet_id, der, "ca")
                directives.order_authority(transaction, row.gateway, order, actor)

            await self._database.writer.run(unit)
        await self._hierarchy.refresh()

    def _keep_cross(
        self, transaction: Transaction, ca_id: str, issuer_id: str, der: bytes, actor: str
    ) -> None:
        row = {
            "sha256": hashlib.sha256(der).hexdigest(),
            "ca_id": ca_id,
            "issuer_id": issuer_id,
            "der": der,
            "created_at": transaction.now.utc_us,
        }
        transaction.execute(insert(cross_certificate), row)
        record(transaction, issuer_id, der, "ca")
        audit.add(transaction, actor, "ca.cross-certified", ca_id, {"issuer": issuer_id})

    def _store_foreign(
        self, transaction: Transaction, der: bytes, parent_id: str | None, name: str = ""
    ) -> bool:
        """Store a CA whose key is elsewhere; tells if it is new."""
        ca_id = issuer_of(der, (), None).ca_id
        if transaction.one(select(ca.c.ca_id).where(ca.c.ca_id == ca_id)) is not None:
            return False
        subject = x509.load_der_x509_certificate(der).subject.rfc4514_string()
        store_authority(
            transaction,
            kind=kinds.FOREIGN,
            name=name or subject,
            der=der,
            parent_id=parent_id,
            is_foreign=True,
        )
        return True

    def _row(self, ca_id: str) -> Any:
        row = self._hierarchy.rows.get(ca_id)
        if row is None:
            raise NotFoundError(
                f"There is no CA {ca_id}.", remedy="`tma-central ca list` shows all."
            )
        return row

    def _described(self, row: Any, depth: int) -> dict[str, Any]:
        parsed = x509.load_der_x509_certificate(row.der)
        shared = Partitions.read(row.crl_partitions)
        return {
            "ca_id": row.ca_id,
            "name": row.name,
            "kind": row.kind,
            "state": row.state,
            "tenant": row.tenant or "",
            "depth": depth,
            "key": "here" if row.key_uri else "at its gateway" if row.gateway else "elsewhere",
            "algorithm": str(keys.key_type(keys.spki(keys.of_ca(parsed))) or "other"),
            "subject": parsed.subject.rfc4514_string(),
            "not_after": parsed.not_valid_after_utc.date().isoformat(),
            "crl_partitions": shared.in_force,
            "crl_partitions_kept": [one for one in shared.counts[:-1] if one > 1],
            "sha256": hashlib.sha256(row.der).hexdigest(),
        }


def _common_name(der: bytes) -> str:
    subject = x509.load_der_x509_certificate(der).subject
    return str(subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


def _require_ca(der: bytes) -> None:
    """Let pass what may certify (RFC 5280 §4.2.1.9, §4.2.1.3)."""
    extensions = x509.load_der_x509_certificate(der).extensions
    try:
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        raise BadRequestError("This is not the certificate of a CA.") from error
    if not basic.ca or not usage.key_cert_sign:
        raise BadRequestError("This certificate does not allow to certify.")


def _uses(transaction: Transaction, row: Any) -> list[str]:
    """Say what a CA is used by; nothing, if it may go."""
    which = {"which": row.ca_id}
    uses = [f"the CA {child.name} is below it" for child in transaction.all(_CHILDREN, which)]
    if row.key_uri is not None and transaction.one(_ISSUED, which) is not None:
        uses.append("it has issued certificates")
    if row.gateway is not None:
        uses.append(f"it belongs to the gateway {row.gateway}")
    if row.kind == kinds.TRANSPORT:
        uses.append("the link to the gateways stands on it")
    uses.extend(
        f"the profile {one.name} names it"
        for one in transaction.all(_NAMED_BY)
        if row.ca_id in one.document
    )
    return uses
