"""The wire format of joining: how a newborn gateway and central get to know each other.

1. An operator carries the **join token** (``tma-central gateway invite``) to the gateway.
2. The gateway fetches the transport root, ``GET https://{address}{ROOT_PATH}``, over a connection
   that it does not trust yet, and goes on only if the root's key has the hash in the token.
3. Over a new connection that is verified under that root alone (chain and address), it posts a
   ``JoinRequest`` to ``JOIN_PATH`` as ``application/cbor`` and gets a ``JoinAnswer``. A refusal is
   a problem+json; an equal request (same keys) gets the same answer again.
4. It checks the answer against its own keys and against the token before it keeps anything.

All messages are deterministic CBOR (shared.kernel.cbor). Pure: no I/O here.
"""

import base64
import binascii
import hashlib
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.kernel import cbor
from shared.kernel.errors import BadRequestError

ROOT_PATH = "/join/v1/root"
JOIN_PATH = "/join/v1"
CONTENT_TYPE = "application/cbor"
#: A gateway's name: topic level, broker user and certificate CN at once (design.md §5).
GATEWAY_NAME_PATTERN = r"^[a-z0-9-]{1,64}$"
#: Central's name on the transport; no gateway can bear it.
CENTRAL_NAME = "_central"
SECRET_BYTES = 16
MESSAGE_BYTES_MAX = 1024 * 1024
_TOKEN_PREFIX = "tma-join-1."  # noqa: S105 - the label of the format, not a secret
_TOKEN_CHARS_MAX = 1024
_CHECKSUM_BYTES = 4

Csr = Annotated[bytes, Field(min_length=1, max_length=16 * 1024)]
Der = Annotated[bytes, Field(min_length=1, max_length=16 * 1024)]
Name = Annotated[str, Field(pattern=GATEWAY_NAME_PATTERN)]
Sha256 = Annotated[bytes, Field(min_length=32, max_length=32)]
Text = Annotated[str, Field(min_length=1, max_length=256)]


def spki_hash(spki: bytes) -> bytes:
    """Hash a DER SubjectPublicKeyInfo as join tokens pin it (SHA-256, as RFC 7469 §2.4)."""
    return hashlib.sha256(spki).digest()


class _Message(BaseModel):
    """Strict and closed: what is not named here is refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    def encode(self) -> bytes:
        """Encode for the wire; equal messages give equal bytes."""
        return cbor.encode(self.model_dump())

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Decode and check one message; raises BadRequestError naming the field."""
        document = cbor.decode(data, limit=MESSAGE_BYTES_MAX)
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"])) or "message"
            raise BadRequestError(f"The field “{field}” of the join message is wrong.") from error


class JoinToken(_Message):
    """What the operator carries: whom to call, what to say, and whom to believe.

    ``address`` is ``host:port`` of central's gateway listener, hashes are of SPKIs.
    """

    name: Name
    address: Text
    secret: Annotated[bytes, Field(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    transport_root_hash: Sha256
    directive_key_hash: Sha256

    def text(self) -> str:
        """Write the token as one line that survives mail, chat and typing into a terminal."""
        data = self.encode()
        text = base64.urlsafe_b64encode(data + _checksum(data)).rstrip(b"=").decode()
        return _TOKEN_PREFIX + text

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a line made by ``text``; raises BadRequestError when it is damaged."""
        body = text.strip().removeprefix(_TOKEN_PREFIX)
        if len(body) > _TOKEN_CHARS_MAX or body == text.strip():
            raise BadRequestError(
                "This is no join token.",
                remedy=f"Copy the whole line that begins with {_TOKEN_PREFIX}",
            )
        try:
            data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        message, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if checksum != _checksum(message):
            raise BadRequestError("The join token is damaged.", remedy="Copy the whole line again.")
        return cls.decode(message)


def _checksum(data: bytes) -> bytes:
    """Catch typing errors; who forges a token can forge this too."""
    return hashlib.sha256(data).digest()[:_CHECKSUM_BYTES]


class JoinRequest(_Message):
    """A gateway's keys, each proven by a PKCS#10 request (DER) signed with that key.

    Central reads only the public keys of the requests; names are central's to decide.
    """

    version: Literal[1] = 1
    name: Name
    secret: Annotated[bytes, Field(min_length=SECRET_BYTES, max_length=SECRET_BYTES)]
    software: Text  # the gateway's version, for the registry
    transport_csr: Csr
    event_csr: Csr
    exchange_csr: Csr
    authority_csr: Csr  # the gateway CA's birth CSR, made by hsmd


class JoinAnswer(_Message):
    """What the gateway is from now on. Certificates are DER, ``directive_key`` is a DER SPKI.

    ``authority`` issues until ``issue_until_us`` (UTC µs); ``authority_chain`` runs from its issuer
    to the root. ``status_url`` is the base of central's ``/crl/<ca-id>.crl``, ``/ca/<ca-id>.cer``
    and ``/ocsp``. ``envelopes`` are sealed downlink envelopes (bundle, grant, responder, parents'
    CRLs) in the order to accept them.
    """

    version: Literal[1] = 1
    name: Name
    incarnation: Text
    authority: Der
    issue_until_us: Annotated[int, Field(ge=0, lt=2**63)]
    authority_chain: Annotated[tuple[Der, ...], Field(min_length=1, max_length=8, strict=False)]
    transport_certificate: Der
    transport_root: Der
    directive_key: Der
    broker_host: Text
    broker_port: Annotated[int, Field(ge=1, le=65535)]
    status_url: Text
    envelopes: Annotated[
        tuple[Annotated[bytes, Field(min_length=1, max_length=512 * 1024)], ...],
        Field(max_length=64, strict=False),
    ]
