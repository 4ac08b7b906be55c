"""Partitions: every serial number is in exactly one of each number, whatever was in force when."""

from dataclasses import replace

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from shared.pki import certificates
from shared.pki.partitions import UNPARTITIONED, Partition, Partitions, kind_of
from tests.support.lint import assert_clean_certificate
from tests.support.pki_hierarchy import Authority, Hierarchy, leaf_plan
from tests.support.pki_twin import twin

GATEWAY = Hierarchy().gateway
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
serials = st.integers(1, (1 << 159) - 1)
counts = st.sampled_from(COUNTS)


@given(serials, st.lists(counts))
def test_each_serial_is_in_exactly_one_partition_of_each_number(serial: int, used: list[int]):
    partitions = UNPARTITIONED
    for count in used:
        partitions = partitions.adopted(count)
    found = [one for one in partitions.every if serial % 256 in one.octets]
    assert found == [Partition.of(serial, count) for count in partitions.counts if count > 1]
    assert {one.count for one in found} == set(used) - {1}


@given(st.lists(st.tuples(st.booleans(), counts)))
def test_a_number_that_was_in_force_stays(steps: list[tuple[bool, int]]):
    now = UNPARTITIONED
    for adopt, count in steps:
        before, now = now, now.adopted(count) if adopt else now.kept(count)
        assert now.in_force == (count if adopt else before.in_force)
        assert set(before.every) <= set(now.every)
        assert len(set(now.counts)) == len(now.counts)
        assert count == 1 or Partition(count, 0) in now.every
        assert Partitions.read(now.written()) == now


@given(serials, counts.filter(lambda count: count > 1))
def test_names_and_addresses_read_back(serial: int, count: int):
    one = Partition.of(serial, count)
    assert Partition.parse(str(one)) == one
    url = f"http://gw-01.example:9080/crl/{GATEWAY.issuer.ca_id}.crl"
    assert Partition.of_url(one.url(url)) == (one, url)
    assert Partition.of_url(url) == (None, url)
    assert kind_of(str(one)) == f"partitions-{count}"


@pytest.mark.parametrize(
    "text", ["", "1-0", "3-0", "16-16", "512-1", "16-03", "16--3", "-3", "16", "complete", "²-1"]
)
def test_what_names_no_partition(text: str):
    assert Partition.parse(text) is None
    assert kind_of(text) == text


def _shared(count: int) -> Authority:
    partitions = UNPARTITIONED.adopted(count).at(GATEWAY.issuer.crl_urls)
    return Authority(GATEWAY.key, replace(GATEWAY.issuer, partitions=partitions))


@given(serials, counts)
def test_a_certificate_names_its_own_partition_only(serial: int, count: int):
    issuer = _shared(count).issuer
    addresses = [
        Partition.of(serial, count).url(url) if count > 1 else url for url in issuer.crl_urls
    ]
    plan = leaf_plan(public_key=_PUBLIC_KEY)
    other = twin(plan, replace(GATEWAY.issuer, crl_urls=tuple(addresses)), serial)
    assert certificates.unsigned(plan, issuer, serial) == other


def test_a_certificate_with_a_partition_is_clean():
    der = _shared(16).issue(leaf_plan(), serial=(1 << 127) + 3)
    points = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.CRLDistributionPoints
    )
    assert not points.critical
    [point] = points.value
    assert [name.value.rpartition("/")[2] for name in point.full_name or ()] == [
        f"{GATEWAY.issuer.ca_id}-16-3.crl"
    ] * 2
    assert_clean_certificate(der)


def test_addresses_of_before_stay_named():
    before = UNPARTITIONED.adopted(4).at(("http://old/1.crl",))
    now = replace(GATEWAY.issuer, partitions=before.at(("http://new/1.crl", "http://old/1.crl")))
    names = now.issuing_point(Partition(4, 3)).full_name or []
    assert [name.value for name in names] == ["http://old/1-4-3.crl", "http://new/1-4-3.crl"]
    assert UNPARTITIONED.at(("http://new/1.crl",)) == UNPARTITIONED


_PUBLIC_KEY = leaf_plan().public_key
