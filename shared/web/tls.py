"""TLS contexts of the listeners. Keys come in as bytes and never touch a disk here."""

import os
import ssl
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from shared.kernel.clock import US_PER_SECOND, datetime_of
from shared.kernel.errors import IntegrityError
from shared.pki import names

_DAY_US = 24 * 3600 * US_PER_SECOND


def people_context(certificate_pem: bytes, key_pem: bytes) -> ssl.SSLContext:
    """For browsers and tokens: no client certificate is asked for, so no browser dialog opens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    load_identity(context, certificate_pem, key_pem)
    return context


def machine_context(
    certificate_pem: bytes, key_pem: bytes, device_cas: Sequence[bytes]
) -> ssl.SSLContext:
    """For machines: a client certificate is optional and must come from a device CA (DER).

    Python's CERT_OPTIONAL ends the handshake on a foreign, expired or serverAuth-only
    certificate: the client sees only a dropped connection. Never list the transport root here.
    """
    context = people_context(certificate_pem, key_pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    # The issuing CA itself is the anchor: devices send their leaf, rarely the chain above it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trust(context, device_cas)
    return context


def card_context(
    certificate_pem: bytes, key_pem: bytes, login_cas: Sequence[bytes]
) -> ssl.SSLContext:
    """For logins by smart card: a client certificate of one of these CAs (DER) is demanded.

    A port of its own, never ``sni_callback``: a context that is swapped in by it lets everybody
    pass without a certificate.
    """
    context = people_context(certificate_pem, key_pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trust(context, login_cas)
    return context


def load_identity(context: ssl.SSLContext, certificate_pem: bytes, key_pem: bytes) -> None:
    """Give the context this certificate chain and key; new connections use it from now on.

    OpenSSL reads files only, so the two pass through an anonymous file in memory. Raises
    IntegrityError when certificate and key do not belong together; the old ones then stay in use.
    """
    descriptor = os.memfd_create("tls-identity", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(certificate_pem + b"\n" + key_pem)
        path = f"/proc/self/fd/{descriptor}"
        # Tried elsewhere first: a context whose loading failed has lost its old pair as well.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
        context.load_cert_chain(path)
    except ssl.SSLError as error:
        raise IntegrityError("The web certificate and its key do not belong together.") from error
    finally:
        os.close(descriptor)


def trust(context: ssl.SSLContext, device_cas: Sequence[bytes]) -> None:
    """Accept client certificates of these CAs (DER) too, from the next connection on.

    Trust is only added. What ended is refused by ``auth``: it asks the ledger about each
    certificate.
    """
    for der in device_cas:
        pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        context.load_verify_locations(cadata=pem.decode("ascii"))


def self_signed(key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], now_us: int) -> bytes:
    """Make a certificate (DER) of these hosts by their own key: what stands in until a CA is there.

    It holds from the day before, for a clock that is behind, for a year.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    alternatives = [names.encode_alt_name(names.host_name(host)) for host in hosts]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime_of(now_us - _DAY_US))
        .not_valid_after(datetime_of(now_us + 365 * _DAY_US))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, SHA256())
    )
    return certificate.public_bytes(Encoding.DER)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a key as a context takes it; it stays in memory."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
