"""How certificates name keys, status and issuer, and with what requests are signed, by profile."""

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from shared.policy.profile import Profile
from tests.support import lint, rest_server
from tests.support.rest_server import Server, request_pem, wish

PATH = "/api/v2.0/certificates"
_FORMS = {
    "pointers": {"crl_urls": ["http://pki.plant.example/{ca_id}.crl"], "ocsp_urls": []},
    "subject_key_identifier": "sha1",
    "authority_key_identifier": "key_and_issuer",
    "csr_hash_min": "sha384",
}


@pytest.fixture(autouse=True)
def formed_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped profiles in the other forms."""
    others = [Profile.from_document(one.to_document() | _FORMS) for one in rest_server.SHIPPED]
    monkeypatch.setattr(rest_server, "SHIPPED", tuple(others))


def _read_by_openssl(pem: str, path: Path) -> str:
    path.write_text(pem, "ascii")
    read = ["openssl", "x509", "-in", path, "-noout", "-text"]
    return subprocess.run(read, capture_output=True, text=True, check=True, timeout=30).stdout


async def test_openssl_reads_the_forms_of_the_profile(server: Server, tmp_path: Path):
    csr = request_pem("line-7.example", ec.generate_private_key(ec.SECP384R1()), SHA384())
    async with server.client() as client:
        answer = await client.post(PATH, json=wish({"profile": "tls-server", "csr": csr}))
    assert answer.status_code == 201, answer.text
    issued = answer.json()["data"]["attributes"]
    text = _read_by_openssl(issued["certificate"], tmp_path / "leaf.pem")
    assert f"URI:http://pki.plant.example/{issued['ca_id']}.crl" in text
    assert "OCSP - URI" not in text
    assert "CA Issuers - URI" in text
    assert "DirName:" in text
    assert "serial:" in text
    lint.assert_clean_certificate(
        x509.load_pem_x509_certificate(issued["certificate"].encode()).public_bytes(Encoding.DER)
    )


async def test_a_request_with_a_shorter_hash_is_refused(server: Server):
    csr = request_pem("line-7.example", ec.generate_private_key(ec.SECP384R1()), SHA256())
    async with server.client() as client:
        answer = await client.post(PATH, json=wish({"profile": "tls-server", "csr": csr}))
        made_here = await client.post(PATH, json=wish({"profile": "tls-server", "cn": "a.example"}))
    assert answer.status_code == 403, answer.text
    assert answer.json()["rule"] == "csr_hash"
    assert "sha384" in answer.text
    assert made_here.status_code == 201
