"""Profiles, grants and bundles as documents: strict, exact, with errors that name the field."""

import json

import pytest

from shared.kernel.errors import BadRequestError
from shared.policy.bundle import Bundle
from shared.policy.grant import Devices, Grant, SerialRange
from shared.policy.profile import Profile
from shared.policy.shipped import FIRST, FORMER, SHIPPED
from tests.support.pki_hierarchy import NOW_US, Hierarchy

GRANT = Grant(
    grant_id="grant-1",
    version=2,
    profiles=("idevid",),
    quota=1000,
    not_before_us=NOW_US,
    not_after_us=NOW_US + 1,
    last_contact_max_s=86_400,
    devices=Devices(listed=("a",), ranges=(SerialRange(prefix="", first="00", last="99"),)),
)


@pytest.mark.parametrize("profile", SHIPPED, ids=lambda profile: profile.name)
def test_a_profile_reads_back_from_its_document(profile):
    for document in (profile.document, profile.to_document()):
        assert Profile.from_document(document) == profile
    assert Profile.from_document(profile.document).sha256 == profile.sha256
    assert json.loads(profile.document)["name"] == profile.name


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pointers": {"crl_urls": ["http://a.example/{device}"]}}, "no other braces"),
        ({"pointers": {"ocsp_urls": ["no address"]}}, "ocsp_urls"),
        ({"csr_hash_min": "sha1"}, "csr_hash_min"),
        (
            {
                "subject_key_identifier": "none",
                "ca_path_length": 0,
                "key_usage": ["key_cert_sign"],
            },
            "subject_key_identifier",
        ),
    ],
)
def test_wrong_forms_are_refused(changes, problem):
    with pytest.raises(BadRequestError) as caught:
        Profile.from_document(SHIPPED[0].to_document() | changes)
    assert problem in f"{caught.value.message} {caught.value.pointer}"


def test_the_hash_is_of_the_content():
    server = SHIPPED[0]
    spaced = json.dumps(server.to_document(), indent=2)
    assert Profile.from_document(spaced).sha256 == server.sha256
    other = Profile.from_document(server.to_document() | {"version": 7})
    assert other.sha256 != server.sha256
    defaults = server.to_document() | {"mode": "local", "device_id_required": False}
    assert Profile.from_document(defaults).sha256 == server.sha256


@pytest.mark.parametrize(
    ("pointer", "change"),
    [
        ("/name", {"name": "No Slug"}),
        ("/version", {"version": "1"}),
        ("/validity/days_max", {"validity": {"days_default": 1, "days_max": 40_000}}),
        ("/validity", {"validity": {"days_default": 1}}),
        ("/validity", {"validity": {"days_default": 9, "days_max": 8}}),
        ("/subject/0/attribute", {"subject": [{"attribute": "shoe_size"}]}),
        ("", {"subject": [{"attribute": "common_name"}] * 2}),
        ("", {"alt_names": [{"kind": "dns"}] * 2}),
        ("/alt_names/0/kind", {"alt_names": [{"kind": "x400"}]}),
        ("", {"key_usage": ["key_cert_sign"]}),
        ("/extended_key_usage/0", {"extended_key_usage": ["1.99.1"]}),
        ("/key_types", {"key_types": []}),
        ("/mode", {"mode": "elsewhere"}),
        ("/surprise", {"surprise": 1}),
    ],
)
def test_a_wrong_profile_is_refused_by_field(pointer, change):
    with pytest.raises(BadRequestError) as caught:
        Profile.from_document(SHIPPED[0].to_document() | change)
    assert caught.value.pointer == pointer
    assert caught.value.message.endswith(".") and "\n" not in caught.value.message


@pytest.mark.parametrize("document", ["", "[", "[]", "null", '{"name": 1}', {"name": b"x"}])
def test_what_is_no_document_is_refused(document):
    with pytest.raises(BadRequestError):
        Profile.from_document(document)


def test_a_profile_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        SHIPPED[0].version = 2


def test_a_grant_reads_back_from_its_document():
    assert Grant.from_document(GRANT.to_document()) == GRANT


@pytest.mark.parametrize(
    ("pointer", "change"),
    [
        ("/quota", {"quota": -1}),
        ("", {"not_after_us": NOW_US}),
        ("/profiles", {"profiles": []}),
        ("/devices/ranges/0", {"devices": {"ranges": [{"prefix": "", "first": "1", "last": "0"}]}}),
        (
            "/devices/ranges/0",
            {"devices": {"ranges": [{"prefix": "", "first": "1", "last": "10"}]}},
        ),
        (
            "/devices/ranges/0/first",
            {"devices": {"ranges": [{"prefix": "", "first": "a", "last": "b"}]}},
        ),
    ],
)
def test_a_wrong_grant_is_refused_by_field(pointer, change):
    with pytest.raises(BadRequestError) as caught:
        Grant.from_document(GRANT.to_document() | change)
    assert caught.value.pointer == pointer


def test_a_bundle_reads_back_from_its_document():
    bundle = Bundle(version=3, profiles=SHIPPED, certificates=Hierarchy().fleet.issuer.chain)
    assert Bundle.from_document(json.loads(json.dumps(bundle.to_document()))) == bundle


@pytest.mark.parametrize(
    ("pointer", "change"),
    [
        ("/version", {"version": 0}),
        ("/profiles/0/version", {"profiles": [{"name": "x"}]}),
        ("", {"profiles": [SHIPPED[0].to_document()] * 2}),
        ("/certificates/0", {"certificates": ["AAAA"]}),
        ("/certificates/0", {"certificates": ["no base64!"]}),
    ],
)
def test_a_wrong_bundle_is_refused_by_field(pointer, change):
    document = {"version": 1, "profiles": [], "certificates": []}
    with pytest.raises(BadRequestError) as caught:
        Bundle.from_document(document | change)
    assert caught.value.pointer == pointer


def test_a_shipped_version_never_changes_its_content():
    """They are in the field: what shall say more is the next version (design.md §4)."""
    field = {
        ("tls-server", 1): "0fa40365c08cf7ca1c4987a55b528d799f359a7025d3f1aeb34365e581bc1c2e",
        ("tls-client", 1): "1088c265df7f4ccc877a65a0c20ada10513a5ad8b72a3c47e3262097b85f3491",
        ("idevid", 1): "00b6f780b69d18a8db800a293e08b918c9c0a4aece8f116b2744976b1eae7d54",
        ("tls-server", 2): "4e9f87f82f7374a72617426b5f47528838d45ff94c615349ff20ef543a91d7ab",
        ("tls-client", 2): "572cde3f99460a40b32e8baf226014e86bfba95b57a15bb0dfb12c8ab66ad246",
        ("idevid", 2): "72644ce3501218864c47ac641f37003ba83ec9d1b09cbc1b9ddfc6db79fc33a6",
        ("ldevid", 1): "833e2ef8b4b23d4cca2550dad92a310b2f9dc2e0ba9a5d106c681d36535ea7d0",
        ("opc-ua-rsa", 1): "bae36dfd6b2b799c808f5f5282af1df9cded6a50c1f5a317a8fb5a09612f92f0",
        ("opc-ua-ecc", 1): "1ab8c207a169f096012a6946347025fa667a9ba66b399b9bf44c6101fea21f48",
        ("dot1x-client", 1): "6f917fadebf802f0fe135a61d6895f458a5ce6e376e90b7b54c3572a5840f00c",
        ("smime", 1): "a9b68c3daafd3b7421dd86a53a742a4fb4956dc6844b79ca10105fe2bafb7114",
        ("code-signing", 1): "76d8b4de305d4a247b512bc9f4c56a01e399e0954cd91d822104e44695ab59d3",
        ("ocsp-responder", 1): "369c812df1ec33ea4e2ae64017ff9a76375e0dbecd92a5719d304db727f99ff1",
        ("ocsp-responder", 2): "cd29b5c63171faddd06feb362e33426994db7a2ae04d94bdbc4b5845b7211bc2",
        ("sub-ca", 1): "126ddcfb94e29cf6bc14a42a6ec2521d223c90a0e35cee30990f77fec8358ebc",
    }
    published = (*FIRST, *FORMER, *SHIPPED)
    shipped = {(profile.name, profile.version): profile.sha256 for profile in published}
    assert shipped == field
