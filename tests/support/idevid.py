"""A manufacturer of machines: an RSA root, a CA below it, and IDevIDs (IEEE 802.1AR)."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_END = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


def _name(text: str, serial: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, text)]
    if serial is not None:
        parts.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial))
    return x509.Name(parts)


@dataclass
class Manufacturer:
    """Makes device certificates that never end."""

    folder: Path
    name: str = "Maker"
    revoked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root_key = rsa.generate_private_key(65537, 2048)
        self.key = ec.generate_private_key(ec.SECP384R1())
        root_name = _name(f"{self.name} root")
        self.root = self._sign(root_name, self.root_key.public_key(), root_name, self.root_key)
        self.ca = self._sign(
            _name(f"{self.name} CA"), self.key.public_key(), root_name, self.root_key
        )

    def write_ca(self, path: Path) -> None:
        """Write root and CA in PEM."""
        path.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in (self.root, self.ca)))

    @property
    def ders(self) -> tuple[bytes, ...]:
        """Root and CA in DER."""
        return tuple(one.public_bytes(Encoding.DER) for one in (self.root, self.ca))

    def device(self, serial: str) -> tuple[Path, Path]:
        """Make an IDevID; gives the files of certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"Machine {serial}", serial)
        certificate = self._sign(
            subject, key.public_key(), self.ca.subject, self.key, authority=False
        )
        pem, key_file = self.folder / f"idevid-{serial}.pem", self.folder / f"idevid-{serial}.key"
        pem.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return pem, key_file

    def crl(self, *pems: Path) -> bytes:
        """Revoke these certificates; gives the CRL in DER."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.ca.subject)
            .last_update(_START)
            .next_update(_START + dt.timedelta(days=1))
        )
        for pem in pems:
            serial = x509.load_pem_x509_certificate(pem.read_bytes()).serial_number
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(_START)
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def _sign(
        self,
        subject: x509.Name,
        key: Any,
        issuer: x509.Name,
        signer: Any,
        *,
        authority: bool = True,
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_START)
            .not_valid_after(_END)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(signer, hashes.SHA256())
        )
