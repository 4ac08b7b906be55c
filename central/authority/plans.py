"""What the certificates say that central issues to itself and to gateways. Pure."""

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from shared.kernel.clock import US_PER_SECOND
from shared.pki import certificates, keys, names
from shared.pki.plan import NO_EXPIRY_US, AltName, AltNameKind, NameAttribute, Plan

_COMMON_NAME = names.COMMON_NAME
_DAY_US = 24 * 3600 * US_PER_SECOND
_BACK_DATE_US = 3600 * US_PER_SECOND  # a gateway's clock may be a little behind at its birth
SERVER_DAYS = 397
RESPONDER_DAYS = 7
GATEWAY_TRANSPORT_DAYS = 3 * 365
_CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string
_SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH.dotted_string


def authority(
    common_name: str,
    organization: str,
    public_key: bytes,
    *,
    path_length: int,
    now_us: int,
    not_after_us: int = NO_EXPIRY_US,
) -> Plan:
    """Plan a CA; unless asked for, without expiry: it must outlive the IDevIDs below it."""
    return certificates.ca_plan(
        _subject(common_name, organization),
        public_key,
        path_length=path_length,
        not_before_us=_start_us(now_us),
        not_after_us=_second(not_after_us),
    )


def cross(subject: bytes, *, now_us: int, not_after_us: int) -> Plan:
    """Plan another certificate for a CA (DER): its name, its key, its path length.

    Raises BadRequestError when its name or key is of a kind that is not certified here.
    """
    certificate = x509.load_der_x509_certificate(subject)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    return certificates.ca_plan(
        names.decode_name(certificate.subject),
        keys.spki(keys.of_ca(certificate)),
        path_length=basic.path_length or 0,
        not_before_us=_start_us(now_us),
        not_after_us=_second(not_after_us),
    )


def responder(common_name: str, public_key: bytes, now_us: int) -> Plan:
    """Plan an OCSP responder of one of central's own CAs, for as long as ``hsm`` lets it live."""
    start_us = now_us // US_PER_SECOND * US_PER_SECOND
    return certificates.responder_plan(
        (NameAttribute(_COMMON_NAME, common_name),),
        public_key,
        not_before_us=start_us,
        not_after_us=start_us + RESPONDER_DAYS * _DAY_US,
    )


def gateway_transport(name: str, public_key: bytes, now_us: int) -> Plan:
    """Plan a gateway's transport identity: it may call, never serve."""
    return _identity(
        name,
        public_key,
        hosts=(),
        usages=(_CLIENT_AUTH,),
        days=GATEWAY_TRANSPORT_DAYS,
        now_us=now_us,
    )


def central_transport(name: str, hosts: tuple[str, ...], public_key: bytes, now_us: int) -> Plan:
    """Plan an identity of central or its broker on the transport: it calls and serves."""
    usages = (_SERVER_AUTH, _CLIENT_AUTH)
    return _identity(name, public_key, hosts=hosts, usages=usages, days=SERVER_DAYS, now_us=now_us)


def web_server(hosts: tuple[str, ...], public_key: bytes, now_us: int) -> Plan:
    """Plan the certificate of the pages and APIs."""
    usages = (_SERVER_AUTH,)
    return _identity(
        hosts[0], public_key, hosts=hosts, usages=usages, days=SERVER_DAYS, now_us=now_us
    )


def _identity(
    common_name: str,
    public_key: bytes,
    *,
    hosts: tuple[str, ...],
    usages: tuple[str, ...],
    days: int,
    now_us: int,
) -> Plan:
    return Plan(
        profile="internal",
        profile_version=1,
        purpose="internal",
        subject=(NameAttribute(_COMMON_NAME, common_name),),
        alt_names=tuple(map(_alt_name, hosts)),
        public_key=public_key,
        not_before_us=_start_us(now_us),
        not_after_us=_start_us(now_us) + days * _DAY_US,
        key_usage=("digital_signature",),
        extended_key_usage=usages,
    )


def _alt_name(host: str) -> AltName:
    address = AltName(AltNameKind.IP, host)
    if names.alt_name_problem(address) is None:
        return address
    return AltName(AltNameKind.DNS, host)


def _subject(common_name: str, organization: str) -> tuple[NameAttribute, ...]:
    return (
        NameAttribute(names.BY_NAME["organization_name"].oid.dotted_string, organization),
        NameAttribute(_COMMON_NAME, common_name),
    )


def _second(utc_us: int) -> int:
    return utc_us // US_PER_SECOND * US_PER_SECOND


def _start_us(now_us: int) -> int:
    """Back-date, on a whole second."""
    return (now_us - _BACK_DATE_US) // US_PER_SECOND * US_PER_SECOND
