"""A CA certificate from central becomes the gateway's: the key is proven, the rows are written."""

import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.hsm.client import HsmClient
from shared.kernel.clock import utc_us_of
from shared.kernel.errors import UntrustedError
from shared.pki import algorithms, chain, keys
from shared.pki.keys import PublicKey
from shared.store.schema import ca, cross_certificate
from shared.store.transaction import Transaction

_KNOWN = select(ca.c.ca_id).where(ca.c.ca_id == bindparam("wanted"))
_ROOTS = select(ca.c.der).where(ca.c.kind == "root")
_LINK = insert(cross_certificate).on_conflict_do_nothing()
_INSERT = insert(ca)
_RECERTIFY = update(ca).where(ca.c.ca_id == bindparam("wanted"))
_RETIRE = (
    update(ca)
    .where(ca.c.key_uri.is_not(None), ca.c.ca_id != bindparam("wanted"), ca.c.state == "active")
    .values(state="retired")
)


async def prove(client: HsmClient, label: str, context: str, authority: bytes) -> None:
    """See that the token holds the key that central certified, before anything relies on it.

    Raises UntrustedError, TokenUnavailableError.
    """
    proof = await client.prove(label, context.encode())
    key = _key(authority)
    try:
        algorithms.usual(key).verify(key, proof.statement, proof.signature)
    except InvalidSignature as error:
        raise UntrustedError("The token did not prove the key of the CA certificate.") from error


def store(
    transaction: Transaction,
    authority: bytes,
    chain: Sequence[bytes],
    *,
    gateway: str,
    label: str,
    issue_until_us: int,
) -> None:
    """Let this CA issue; ``chain`` is DER from its issuer to the root.

    An earlier CA of this gateway only keeps its status from now on. A CA that is known already
    gets this certificate and this end of issuing: its parent was rolled over, or it goes on.
    """
    know(transaction, chain)
    own = _row(transaction, authority, chain[0], kind="gateway") | {
        "gateway": gateway,
        "key_uri": f"hsmd:{label}",
        "issue_until": issue_until_us,
    }
    wanted = {"wanted": own["ca_id"]}
    if transaction.one(_KNOWN, wanted) is None:
        transaction.execute(_INSERT, own)
    else:
        changed = ("der", "parent_id", "issue_until", "not_after", "state")
        transaction.execute(_RECERTIFY, wanted | {name: own[name] for name in changed})
    transaction.execute(_RETIRE, wanted)


def know(transaction: Transaction, chain: Sequence[bytes], *, first: str = "fleet") -> None:
    """Write down the CAs of a chain (DER, to the root) that are not known; ``first``: its kind."""
    for der, issuer in zip(chain, (*chain[1:], None), strict=True):
        kind = "root" if issuer is None else first if der is chain[0] else "fleet"
        if transaction.one(_KNOWN, {"wanted": ca_id(der)}) is None:
            transaction.execute(_INSERT, _row(transaction, der, issuer, kind=kind))


def keep_links(transaction: Transaction, links: Sequence[bytes]) -> None:
    """Keep what the generations of a root say of each other, as far as its signer is known here.

    Machines that trust one generation reach the other by it (RFC 7030 §4.1.3).
    """
    roots = [row.der for row in transaction.all(_ROOTS)]
    for der in links:
        try:
            path = chain.verify(der, (), roots, transaction.now.utc_us)
        except UntrustedError:
            continue
        row = {
            "sha256": hashlib.sha256(der).hexdigest(),
            "ca_id": ca_id(der),
            "issuer_id": ca_id(path[-1].public_bytes(Encoding.DER)),
            "der": der,
            "created_at": transaction.now.utc_us,
        }
        transaction.execute(_LINK, row)


def ca_id(der: bytes) -> str:
    """Name the CA of a DER certificate."""
    return keys.ca_id(_key(der))


def _key(der: bytes) -> PublicKey:
    key = keys.of(x509.load_der_x509_certificate(der))
    if key is None:
        raise UntrustedError("A CA certificate has a key of a type that is not used here.")
    return key


def _row(
    transaction: Transaction, der: bytes, issuer: bytes | None, *, kind: str
) -> dict[str, object]:
    certificate = x509.load_der_x509_certificate(der)
    common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {
        "ca_id": ca_id(der),
        "name": common_names[0].value if common_names else certificate.subject.rfc4514_string(),
        "kind": kind,
        "parent_id": None if issuer is None else ca_id(issuer),
        "gateway": None,
        "der": der,
        "key_uri": None,
        "state": "active",
        "issue_until": None,
        "not_after": utc_us_of(certificate.not_valid_after_utc),
        "crl_number": 0,
        "created_at": transaction.now.utc_us,
    }
