"""A real mosquitto on a free loopback port, with a generated transport hierarchy."""

import asyncio
import datetime as dt
import getpass
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.mqtt.broker import BrokerFiles, acl, configuration
from shared.mqtt.link import BrokerAddress
from shared.mqtt.session import presence, subscription
from shared.sync.join import CENTRAL_NAME

_BEGIN = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_END = dt.datetime(2049, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key as PEM files."""

    certificate: x509.Certificate
    certificate_file: Path
    key_file: Path


class Hierarchy:
    """A root that issues transport identities (or, in some tests, device certificates)."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.root = self._certificate(self._name, self._key.public_key(), ca=True)
        self.root_file = directory / "root.pem"
        self.root_file.write_bytes(self.root.public_bytes(Encoding.PEM))
        self.crl_file = directory / "root.crl"
        self.revoke()

    def issue(self, common_name: str) -> Identity:
        """Issue a certificate that may be client and, for 127.0.0.1, server."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = self._certificate(subject, key.public_key(), ca=False)
        stem = f"{common_name}-{certificate.serial_number:x}"
        identity = Identity(
            certificate, self._directory / f"{stem}.pem", self._directory / f"{stem}.key"
        )
        identity.certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        identity.key_file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return identity

    def revoke(self, *identities: Identity) -> None:
        """Write the CRL anew with exactly these."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(_BEGIN)
            .next_update(_END)
        )
        for identity in identities:
            entry = x509.RevokedCertificateBuilder()
            entry = entry.serial_number(identity.certificate.serial_number).revocation_date(_BEGIN)
            builder = builder.add_revoked_certificate(entry.build())
        crl = builder.sign(self._key, SHA256())
        self.crl_file.write_bytes(crl.public_bytes(Encoding.PEM))

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_BEGIN)
            .not_valid_after(_END)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(_key_usage(ca=ca), critical=True)
        )
        if not ca:
            purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            names = [x509.DNSName("localhost")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, SHA256())


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass
class Broker:
    """One mosquitto, started and killed by its own process handle only."""

    directory: Path
    hierarchy: Hierarchy
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.port = free_port()
        server = self.hierarchy.issue("broker")
        acl_file = self.directory / "acl"
        acl_file.write_text(acl(), encoding="ascii")
        acl_file.chmod(0o600)
        files = BrokerFiles(
            transport_root=self.hierarchy.root_file,
            transport_crl=self.hierarchy.crl_file,
            certificate=server.certificate_file,
            key=server.key_file,
            acl=acl_file,
        )
        self._configuration = self.directory / "mosquitto.conf"
        text = configuration(files, port=self.port, host="127.0.0.1", user=getpass.getuser())
        self._configuration.write_text(text, encoding="utf-8")

    def start(self) -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        assert program, "the Debian package mosquitto is not installed"
        with (self.directory / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([program, "-c", self._configuration], stderr=log)

    async def started(self) -> None:
        """Start, and wait until the port answers."""
        self.start()
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return
        raise AssertionError((self.directory / "mosquitto.log").read_text())

    def kill(self) -> None:
        """SIGKILL: what it held is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def reload(self) -> None:
        """SIGHUP, as central does when the CRL changed."""
        assert self.process is not None
        self.process.send_signal(1)

    def address(self, identity: Identity, name: str) -> BrokerAddress:
        """Give the address for a gateway, or for central (``_central``)."""
        central = name == CENTRAL_NAME
        return BrokerAddress(
            host="localhost",
            port=self.port,
            tls=client_tls(self.hierarchy.root_file, identity),
            subscription=subscription(None if central else name),
            presence=None if central else presence(name),
        )


def client_tls(root: Path, identity: Identity) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(root))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    return context


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
