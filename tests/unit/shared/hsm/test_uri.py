"""RFC 7512 URIs: what is understood, and that nothing else is."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.hsm.uri import Pkcs11Uri, SoftwareUri, parse
from shared.kernel.errors import BadRequestError

_MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
_QUERY = f"?module-path={_MODULE}&pin-source=file:/etc/pin"


def test_token():
    uri = parse(f"pkcs11:token=gw%2001;serial=1f{_QUERY}", [_MODULE])
    assert uri == Pkcs11Uri(_MODULE, "file:/etc/pin", "gw 01", "1f", None, None)


def test_software():
    uri = parse("software:/var/lib/keys?pin-source=credential:box", [])
    assert uri == SoftwareUri(Path("/var/lib/keys"), "credential:box")


@pytest.mark.parametrize(
    ("uri", "word"),
    [
        ("pkcs11:token=a?module-path=/tmp/evil.so&pin-source=file:/p", "allowed"),
        (f"pkcs11:token=a?module-path={_MODULE}", "pin-source"),
        (f"pkcs11:token=a?module-path={_MODULE}&pin-value=1234", "not understood"),
        (f"pkcs11:token=a;token=b{_QUERY}", "not understood"),
        (f"pkcs11:manufacturer=x{_QUERY}", "name the token"),
        (f"pkcs11:token{_QUERY}", "not understood"),
        ("https://token?pin-source=file:/p", "begin with"),
        (f"pkcs11:token=%ff{_QUERY}", "percent"),
    ],
)
def test_refused(uri: str, word: str):
    with pytest.raises(BadRequestError, match=word):
        parse(uri, [_MODULE])


@given(st.text(max_size=200))
def test_noise(text: str):
    for prefix in ("", "pkcs11:", "software:"):
        with suppress(BadRequestError):
            parse(prefix + text, [_MODULE])
