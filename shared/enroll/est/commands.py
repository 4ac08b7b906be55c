"""Ready-made commands: what a machine types to enroll by an alias, from the live profile."""

import hashlib
import shlex
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.pki import keys
from shared.pki.keys import KeyType
from shared.pki.plan import AltNameKind
from shared.policy.access import Alias, Evidence
from shared.policy.profile import CsrHash, Profile

_CURVES = {
    "ec-p256": "P-256",
    "ec-p384": "P-384",
    "ec-p521": "P-521",
    "ec-brainpool-p256r1": "brainpoolP256r1",
    "ec-brainpool-p384r1": "brainpoolP384r1",
    "ec-brainpool-p512r1": "brainpoolP512r1",
    "ec-secp256k1": "secp256k1",
}
_ALGORITHMS = {"ed25519": "ED25519", "ed448": "ED448"}
_RSA_PREFIX = "rsa-"
_SUBJECT_NAMES = {
    "common_name": "CN",
    "serial_number": "serialNumber",
    "country_name": "C",
    "state_name": "ST",
    "locality_name": "L",
    "organization_name": "O",
    "organizational_unit_name": "OU",
}
_EXAMPLES = {"country_name": "DE"}
_ALT_NAMES = {
    AltNameKind.DNS: "DNS:{name}.example",
    AltNameKind.IP: "IP:192.0.2.1",
    AltNameKind.URI: "URI:urn:example:{name}",
    AltNameKind.EMAIL: "email:{name}@example.org",
}
_BY_LOGIN = {
    Evidence.TOKEN: ("a station's token", "station:TOKEN"),
    Evidence.PASSWORD: ("a requester's password", "NAME:PASSWORD"),
    Evidence.CODE: ("the device's one-time code", "{device}:CODE"),
    Evidence.WEBHOOK: ("a requester that a webhook judges", "NAME:PASSWORD"),
}
_BY_CERTIFICATE = {
    Evidence.CERTIFICATE: "a requester's certificate",
    Evidence.MANUFACTURER: "the machine's IDevID",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a box is reached: base addresses of machine port and status port, and its root."""

    machines: str
    status: str
    root: bytes


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: a title, and lines for a POSIX shell."""

    title: str
    lines: tuple[str, ...]


def ready_made(
    alias: Alias, profile: Profile, place: Place, device: str | None = None
) -> list[Step]:
    """Give the steps from nothing to a renewed certificate; ``device`` is a serial number.

    Secrets stand in a file ``login.conf`` (curl's ``-K``), never in a command line.
    """
    name = device or "device-1"
    base = shlex.quote(f"{place.machines}/.well-known/est/{alias.name}")
    file = shlex.quote(name)
    post = f"-H 'Content-Type: application/pkcs10' --data-binary @{file}.csr"
    unpack = f"base64 -d | openssl pkcs7 -inform der -print_certs -out {file}.pem"
    steps = [
        _trust_anchor(place),
        Step("Make the key", (_key(profile, file),)),
        Step("Make the request", (_request(profile, file, name),)),
    ]
    for evidence, (title, login) in _BY_LOGIN.items():
        if evidence in alias.accepts:
            shown = login.format(device=name)
            ask = f"curl -sS --fail-with-body --cacert ca.pem -K login.conf {post} {base}"
            steps.append(
                Step(
                    f"Enroll by {title}",
                    (
                        f'# login.conf (mode 0600) holds the line: user = "{shown}"',
                        f"{ask}/simpleenroll | {unpack}",
                    ),
                )
            )
    for evidence, title in _BY_CERTIFICATE.items():
        if evidence in alias.accepts:
            ask = "curl -sS --fail-with-body --cacert ca.pem --cert idevid.pem --key idevid.key"
            steps.append(
                Step(f"Enroll by {title}", (f"{ask} {post} {base}/simpleenroll | {unpack}",))
            )
    if alias.renewal and _is_client(profile):
        mine = f"--cert {file}.pem --key {file}.key"
        ask = f"curl -sS --fail-with-body --cacert ca.pem {mine} {post} {base}/simplereenroll"
        steps.append(Step("Renew", (f"{ask} | {unpack}",)))
    if alias.name == "default":
        trust = f"--url {shlex.quote(place.machines)} --cacert ca.pem"
        steps.append(
            Step(
                "The same with strongSwan",
                (f"pki --est {trust} --in {file}.csr --userpass NAME:PASSWORD > {file}.der",),
            )
        )
    return steps


def _is_client(profile: Profile) -> bool:
    """Tell if TLS lets its certificates in as a client's; others are renewed by enrolling again."""
    usages = profile.extended_key_usage
    return not usages or ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string in usages


def _trust_anchor(place: Place) -> Step:
    digest = hashlib.sha256(place.root).hexdigest()
    ca_id = keys.ca_id(keys.of_ca(x509.load_der_x509_certificate(place.root)))
    address = f"{place.status}/ca/{ca_id}.cer"
    return Step(
        "Get the trust anchor, and see that it is the right one",
        (
            f"curl -sS -o ca.der {shlex.quote(address)}",
            f"echo '{digest}  ca.der' | sha256sum -c",
            "openssl x509 -inform der -in ca.der -out ca.pem",
        ),
    )


def _key(profile: Profile, file: str) -> str:
    kind = next(one.value for one in profile.key_types if one is not KeyType.RSA_OTHER)
    if kind in _CURVES:
        options = f"-algorithm EC -pkeyopt ec_paramgen_curve:{_CURVES[kind]}"
    elif kind.startswith(_RSA_PREFIX):
        options = f"-algorithm RSA -pkeyopt rsa_keygen_bits:{kind.removeprefix(_RSA_PREFIX)}"
    else:
        options = f"-algorithm {_ALGORITHMS.get(kind, kind)}"
    return f"openssl genpkey {options} -out {file}.key"


def _request(profile: Profile, file: str, name: str) -> str:
    """Name what the profile requires, the common name if it may be there, and the device."""
    parts = ""
    for rule in profile.subject:
        wanted = rule.required or rule.attribute == "common_name" or rule.device_id
        short = _SUBJECT_NAMES.get(rule.attribute)
        if wanted and short is not None:
            value = _EXAMPLES.get(rule.attribute, name).replace("\\", "\\\\").replace("/", "\\/")
            parts += f"/{short}={value}"
    alt_names = [
        _ALT_NAMES[rule.kind].format(name=name)
        for rule in profile.alt_names
        if rule.required and rule.kind in _ALT_NAMES
    ]
    extra = f" -addext subjectAltName={shlex.quote(','.join(alt_names))}" if alt_names else ""
    subject = shlex.quote(parts or f"/CN={name}")
    return (
        f"openssl req -new{_digest(profile)} -key {file}.key -subj {subject}{extra} "
        f"-outform der -out {file}.csr"
    )


def _digest(profile: Profile) -> str:
    """Ask for a longer hash than OpenSSL's usual one, where keys do not bring their own."""
    usual = profile.csr_hash_min is CsrHash.SHA256 or profile.key_types[0].value in _ALGORITHMS
    return "" if usual else f" -{profile.csr_hash_min.value}"
