"""The language of search."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from central.inventory import query, terms
from central.inventory.query import Column, Free, Range, Term
from shared.kernel.errors import BadRequestError
from shared.pki.plan import AltName, AltNameKind
from tests.support.pki_hierarchy import NOW_US, leaf_plan, root_authority, subject

_LAST = chr(0x10FFFF)


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", []),
        ("press-7", [Free("press-7")]),
        ("status:revoked gateway:gw-07", [Column("status", "revoked"), Column("gateway", "gw-07")]),
        ('o:"ACME GmbH" CN', [Term("organization_name", "acme gmbh"), Free("CN")]),
        ("dns:Press-*", [Range("dns", "press-", f"press-{_LAST}")]),
        ("uri:urn:acme:7", [Term("uri", "urn:acme:7")]),
        ("meta.Order:4711", [Term("meta.order", "4711")]),
        ("expires<2027-01-31", [Range("expires", "", "2027-01-31")]),
        ("expires>2027-01-31", [Range("expires", "2027-02-01", _LAST)]),
        ("issued:2026-11-26", [Term("issued", "2026-11-26")]),
        ("AB:CD:0f", [Free("AB:CD:0f")]),
    ],
)
def test_words_are_read(text: str, conditions: list[query.Condition]) -> None:
    assert query.parse(text) == conditions


@pytest.mark.parametrize(
    "text", ["colour:red", "dns<2027", "expires<tomorrow", '"open', "a " * 17, "x" * 513]
)
def test_what_is_not_understood_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        query.parse(text)
    assert caught.value.message.endswith(".")


@given(st.text(max_size=600))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    try:
        conditions = query.parse(text)
    except BadRequestError:
        return
    assert all(isinstance(one, Column | Free | Term | Range) for one in conditions)


def test_everything_that_a_certificate_says_is_a_term() -> None:
    plan = leaf_plan(
        subject=subject("Press-7", "SN-7"),
        alt_names=(
            AltName(AltNameKind.DNS, "press-7.example"),
            AltName(AltNameKind.DNS_WILDCARD, "*.press-7.example"),
            AltName(AltNameKind.IP, "10.0.0.7"),
            AltName(AltNameKind.URI, "urn:acme:Press:7"),
        ),
    )
    der = root_authority().issue(plan, 77)
    found = terms.Found("station:line-7", None, "rest", NOW_US, {"Order": "4711"})
    told = terms.terms_of(der, found)
    assert told >= {
        ("common_name", "press-7"),
        ("serial_number", "sn-7"),
        ("dns", "press-7.example"),
        ("dns", "*.press-7.example"),
        ("ip", "10.0.0.7"),
        ("uri", "urn:acme:press:7"),
        ("requester", "station:line-7"),
        ("protocol", "rest"),
        ("meta.order", "4711"),
        ("key_type", "ec-p256"),
        ("issued", terms.day(NOW_US)),
    }
    assert {name for name, _ in told} >= {"key", "expires"}
    assert "alias" not in {name for name, _ in told}
