"""Revocation lists: entries, holds, numbers, chain heads; signed by the CA or not released."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.kernel.clock import datetime_of, utc_us_of
from shared.kernel.errors import BadRequestError, IntegrityError
from shared.pki import crl, oids, signed
from shared.pki.crl import CrlEntry
from shared.pki.partitions import UNPARTITIONED, Partition
from tests.support.pki_hierarchy import DAY_US, NOW_US, Hierarchy

GATEWAY = Hierarchy().gateway
_DELTA_URLS = ("http://gw-1.example/1-delta.crl", "http://central.example/1-delta.crl")


def signed_crl(entries: list[CrlEntry], heads: bytes | None = None, number: int = NOW_US) -> bytes:
    tbs = crl.unsigned(GATEWAY.issuer, number, NOW_US, NOW_US + DAY_US, entries, heads)
    return crl.assemble(tbs, GATEWAY.sign(tbs), GATEWAY.issuer)


def test_every_reason_reads_back():
    entries = [
        CrlEntry(serial, NOW_US + serial, reason)
        for serial, reason in enumerate(sorted(crl.REASONS), start=1)
    ]
    der = signed_crl(entries)
    found = {item.serial_number: item for item in x509.load_der_x509_crl(der)}
    assert len(found) == len(entries) == 9
    for entry in entries:
        extensions = found[entry.serial].extensions
        if entry.reason == "unspecified":
            assert not list(extensions)
        else:
            reason = extensions.get_extension_for_class(x509.CRLReason).value.reason
            assert reason.name == entry.reason


def test_number_key_and_times():
    parsed = x509.load_der_x509_crl(signed_crl([]))
    number = parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    authority = parsed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert number == NOW_US
    assert authority.key_identifier.hex() == GATEWAY.issuer.ca_id
    assert utc_us_of(parsed.last_update_utc) == NOW_US
    assert utc_us_of(parsed.next_update_utc) == NOW_US + DAY_US
    assert len(parsed) == 0


def test_chain_heads_travel_in_a_private_extension_that_nobody_must_know():
    extensions = x509.load_der_x509_crl(signed_crl([], b"heads")).extensions
    extension = extensions.get_extension_for_oid(oids.CHAIN_HEADS)
    assert not extension.critical
    assert asn1.decode_der(bytes, extension.value.value) == b"heads"


@pytest.mark.parametrize("reason", ["remove_from_crl", "keyCompromise", ""])
def test_an_unknown_reason_is_refused(reason):
    with pytest.raises(BadRequestError, match="key_compromise"):
        signed_crl([CrlEntry(1, NOW_US, reason)])


def test_a_foreign_signature_is_not_released():
    tbs = crl.unsigned(GATEWAY.issuer, 1, NOW_US, NOW_US + DAY_US, [], None)
    with pytest.raises(IntegrityError):
        crl.assemble(tbs, Hierarchy().gateway.sign(tbs), GATEWAY.issuer)
    with pytest.raises(IntegrityError):
        crl.assemble(b"\x30\x00", GATEWAY.sign(b"\x30\x00"), GATEWAY.issuer)


@given(st.integers(0, 300) | st.integers(65_000, 66_000), st.binary(max_size=3), st.integers(0, 9))
def test_only_one_whole_value_is_a_sequence(size, behind, lacking):
    document = signed.tlv(signed.SEQUENCE, bytes(size))
    assert signed.is_sequence(document)
    assert signed.is_sequence(document + behind) == (not behind)
    assert signed.is_sequence(document[: len(document) - lacking]) == (not lacking)
    assert not signed.is_sequence(b"\x31" + document[1:])
    assert not signed.is_sequence(b"\x30\x80" + bytes(size))


def test_what_has_something_behind_it_is_not_released():
    """Such as another algorithm and signature, which a reader would take for those of the CRL."""
    tbs = crl.unsigned(GATEWAY.issuer, 1, NOW_US, NOW_US + DAY_US, [], None)
    more = GATEWAY.issuer.algorithm.identifier
    rest = len(more) + len(signed.tlv(signed.BIT_STRING, b"\x00" + GATEWAY.sign(tbs)))
    for document in (tbs + more, tbs + more + bytes((signed.BIT_STRING, rest + 1, 0))):
        with pytest.raises(IntegrityError):
            crl.assemble(document, GATEWAY.sign(document), GATEWAY.issuer)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2**159 - 1),
            st.integers(0, 2_600_000_000),
            st.sampled_from([*sorted(crl.REASONS), crl.REMOVED]),
        ),
        max_size=5,
        unique_by=lambda item: item[0],
    ),
    st.integers(1, 2**63 - 1),
    st.none() | st.binary(max_size=300),
    st.none() | st.integers(0, 2**63 - 2) | st.builds(Partition, st.just(16), st.integers(0, 15)),
)
@settings(deadline=None)
def test_the_bytes_are_those_of_an_independent_builder(found, number, heads, base):
    """cryptography's builder says the same, byte for byte (years beyond 2049 included)."""
    base, partition = (None, base) if isinstance(base, Partition) else (base, None)
    entries = [
        CrlEntry(serial, at_s * 1_000_000, reason)
        for serial, at_s, reason in found
        if base is not None or reason != crl.REMOVED
    ]
    shares = UNPARTITIONED.adopted(16).at(GATEWAY.issuer.crl_urls)
    issuer = replace(GATEWAY.issuer, delta_urls=_DELTA_URLS, partitions=shares)
    end_us = NOW_US + 100 * 366 * DAY_US
    ours = crl.unsigned(
        issuer, number, NOW_US, end_us, entries, heads, base=base, partition=partition
    )
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(GATEWAY.issuer.name)
        .last_update(datetime_of(NOW_US))
        .next_update(datetime_of(end_us))
        .add_extension(GATEWAY.issuer.authority_key_identifier, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    if partition is not None:
        names = [x509.UniformResourceIdentifier(partition.url(url)) for url in issuer.crl_urls]
        point = x509.IssuingDistributionPoint(names, None, False, False, None, False, False)
        builder = builder.add_extension(point, critical=True)
    elif base is None:
        names = [x509.UniformResourceIdentifier(url) for url in _DELTA_URLS]
        point = x509.DistributionPoint(names, None, None, None)
        builder = builder.add_extension(x509.FreshestCRL([point]), critical=False)
    else:
        builder = builder.add_extension(x509.DeltaCRLIndicator(base), critical=True)
    if heads is not None:
        value = signed.tlv(signed.OCTET_STRING, heads)
        further = x509.UnrecognizedExtension(oids.CHAIN_HEADS, value)
        builder = builder.add_extension(further, critical=False)
    for entry in entries:
        revoked = (
            x509.RevokedCertificateBuilder()
            .serial_number(entry.serial)
            .revocation_date(datetime_of(entry.revoked_at_us))
        )
        if entry.reason != "unspecified":
            reason = x509.CRLReason(x509.ReasonFlags[entry.reason])
            revoked = revoked.add_extension(reason, critical=False)
        builder = builder.add_revoked_certificate(revoked.build())
    assert builder.sign(signed.THROWAWAY_KEY, SHA256()).tbs_certlist_bytes == ours
