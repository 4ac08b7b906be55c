"""What clients send, whatever they wrap it in: DER, base64 with or without lines, PEM armour.

Content-Transfer-Encoding is never looked at (RFC 8951 §3.1).
"""

import binascii
import re
from base64 import b64decode

from shared.kernel.errors import BadRequestError
from shared.pki.signed import SEQUENCE

_ARMOUR = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----\s(.*?)-----END [A-Z0-9 ]+-----", re.DOTALL)
_DER_MARK = bytes((SEQUENCE,))


def der(body: bytes) -> bytes:
    """Unwrap a certification request; raises BadRequestError when it is none of these forms."""
    if body[:1] == _DER_MARK:
        return body
    unwrapped = _decoded(body)
    if unwrapped[:1] == _DER_MARK:
        return unwrapped
    unwrapped = _decoded(unwrapped)  # some clients put PEM into base64
    if unwrapped[:1] == _DER_MARK:
        return unwrapped
    raise BadRequestError("The body is no PKCS#10 request in DER, base64 or PEM.")


def _decoded(text: bytes) -> bytes:
    armour = _ARMOUR.search(text)
    try:
        return b64decode(b"".join((armour[1] if armour else text).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError("The body is no PKCS#10 request in DER, base64 or PEM.") from error
