"""The journey of the demo, and a stranger's look at everything that came out of it."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from rich.console import Console

from tests.demo.journey import Journey
from tests.support.fleet import Fleet
from tests.support.lint import assert_clean_certificate, assert_clean_crl, assert_clean_ocsp
from tests.support.openssl import fetch
from tests.support.processes import PortBlocks
from tests.support.rest import PROFILES, Rest, connect

_DEVICES = 24


@pytest.fixture(scope="module")
def travelled(tmp_path_factory: pytest.TempPathFactory):
    """A fleet at the end of the demo's journey, still running, with what the journey found."""
    folder = tmp_path_factory.mktemp("spine")
    blocks = PortBlocks()
    fleet = Fleet(folder / "fleet", blocks.take())
    console = Console(file=(folder / "story.txt").open("w"))
    try:
        agreed = Journey(fleet, folder / "results", console).run(_DEVICES)
        yield fleet, agreed
    finally:
        fleet.stop()
        blocks.close()
        console.file.close()


def test_all_counts_agree(travelled: tuple[Fleet, bool]):
    assert travelled[1]


def test_lint_finds_nothing(travelled: tuple[Fleet, bool]):
    """One certificate of each profile, each CA certificate, each CRL, and OCSP of both servers."""
    fleet = travelled[0]
    leaves, authorities = asyncio.run(_look(fleet))
    assert leaves.keys() == set(PROFILES)
    for der in [*leaves.values(), *(row[1] for row in authorities)]:
        assert_clean_certificate(der)
    issuer_of = {x509.load_der_x509_certificate(der).subject: der for _id, der in authorities}
    for server in (fleet.central.status_url, fleet.gateways[0].status_url):
        for ca_id, _der in authorities:
            assert_clean_crl(fetch(f"{server}/crl/{ca_id}.crl"))
        leaf = x509.load_der_x509_certificate(leaves["idevid"])
        issuer = x509.load_der_x509_certificate(issuer_of[leaf.issuer])
        assert_clean_ocsp(_ask_ocsp(server, leaf, issuer))


async def _look(fleet: Fleet) -> tuple[dict[str, bytes], list[tuple[str, bytes]]]:
    """Give one certificate by profile, and (id, DER) of the CAs above them."""
    central = fleet.central
    async with connect(central.web_url, central.admin_token, central.ca_bundle) as rest:
        rows = {row["profile"]: row for row in await rest.certificates(origin="gw-01")}
        leaves = {profile: await _der(rest, rows[profile]) for profile in PROFILES}
        document = await rest.get("/cas")
    return leaves, [
        (item["id"], _from_pem(item["attributes"]["certificate"]))
        for item in document["data"]
        if item["attributes"]["kind"] in {"root", "fleet", "gateway"}
    ]


async def _der(rest: Rest, row: dict[str, Any]) -> bytes:
    document = await rest.get(f"/certificates/{row['ca_id']}-{row['serial']}")
    return _from_pem(document["data"]["attributes"]["certificate"])


def _from_pem(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def _ask_ocsp(server: str, leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    request = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, SHA256()).build()
    answer = httpx.post(
        f"{server}/ocsp",
        content=request.public_bytes(Encoding.DER),
        headers={"Content-Type": "application/ocsp-request"},
        trust_env=False,
    )
    assert answer.status_code == httpx.codes.OK
    return answer.content


def test_what_the_demo_leaves(travelled: tuple[Fleet, bool]):
    fleet = travelled[0]
    results: Path = fleet.folder.parent / "results"
    for name in ("endpoints.json", "report.json"):
        assert (results / name).stat().st_mode & 0o077 == 0
