"""What clients may ask of the daemon, checked field by field before anything is done."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from shared.hsm import frames
from shared.issuance.ports import Priority, Purpose
from shared.kernel.errors import BadRequestError
from shared.pki.keys import KeyType

#: Names a key on its token and its files: CKA_LABEL.
KeyLabel = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Bytes = Annotated[bytes, Strict()]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[int, Field(ge=0, lt=2**63)]


class Document(BaseModel):
    """One TBS to sign. ``reference`` names its intent in the daemon's log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tbs: Annotated[_Bytes, Field(min_length=1, max_length=frames.DOCUMENT_BYTES_MAX)]
    purpose: Purpose
    reference: Annotated[str, Field(max_length=frames.REFERENCE_CHARS_MAX)]


class Sign(_Request):
    """Sign documents in their order; ``ok``: [{"ok": signature} | {"error": …}, …].

    A document that the queue would not reach within ``deadline_ms`` is refused at once.
    """

    do: Literal["sign"] = "sign"
    key: KeyLabel
    priority: Priority
    deadline_ms: Annotated[int, Field(ge=1, le=frames.DEADLINE_MS_MAX)]
    documents: Annotated[list[Document], Field(min_length=1, max_length=frames.DOCUMENTS_MAX)]


class State(_Request):
    """Tell how token and queue are; ``ok`` is a map of the fields of ``client.TokenState``."""

    do: Literal["state"] = "state"


class Generate(_Request):
    """Make a key on the token; ``ok``: its DER SubjectPublicKeyInfo."""

    do: Literal["generate"] = "generate"
    key: KeyLabel
    kind: KeyType = KeyType.EC_P256


class BirthRequest(_Request):
    """Make and sign a PKCS#10 request for the key; ``subject``: [[OID, text], …]; ``ok``: DER."""

    do: Literal["birth_csr"] = "birth_csr"
    key: KeyLabel
    subject: Annotated[list[tuple[str, str]], Field(min_length=1, max_length=16)]


class Prove(_Request):
    """Prove possession of the key; ``ok``: {"statement", "signature"}, see ``client.Proof``."""

    do: Literal["prove"] = "prove"
    key: KeyLabel
    context: Annotated[_Bytes, Field(max_length=256)]


class Adopt(_Request):
    """Hand in the CA certificate that was issued for the key; ``ok``: null."""

    do: Literal["adopt"] = "adopt"
    key: KeyLabel
    certificate: Annotated[_Bytes, Field(max_length=16 * 1024)]


class PinResponder(_Request):
    """Pin, once, the key of central's OCSP responder for this CA; ``ok``: null."""

    do: Literal["pin_responder"] = "pin_responder"
    key: KeyLabel
    spki: Annotated[_Bytes, Field(max_length=4096)]


Request = Sign | State | Generate | BirthRequest | Prove | Adopt | PinResponder
_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="do")])


def parse(message: dict[str, Any]) -> Request:
    """Check a request's map; raises BadRequestError naming the first wrong field."""
    try:
        return _REQUEST.validate_python(message)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise BadRequestError(f"The request is wrong at {field}: {problem['msg']}.") from error
