"""The profiles that every installation begins with. A published version never changes.

What comes later is a new version here; an installation that has an older one takes it up when its
administrator publishes it (``tma-central profile shipped``).
"""

from shared.pki.keys import KeyType
from shared.pki.plan import AltNameKind
from shared.policy.conditions import Condition
from shared.policy.profile import AltNameRule, KeyUsage, Profile, SubjectRule, TooLong, Validity

_SERVER_AUTH, _CLIENT_AUTH = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
_DESCRIPTIVE = tuple(
    SubjectRule(attribute=attribute, count_max=count_max)
    for attribute, count_max in (
        ("country_name", 1),
        ("state_name", 1),
        ("locality_name", 1),
        ("organization_name", 1),
        ("organizational_unit_name", 4),
    )
)

#: The first versions, which installations in the field hold.
FIRST = (
    Profile(
        name="tls-server",
        version=1,
        title="TLS server",
        purpose="tls-server",
        key_types=(KeyType.EC_P256,),
        subject=(
            SubjectRule(attribute="common_name"),
            SubjectRule(attribute="serial_number"),
            *_DESCRIPTIVE,
        ),
        alt_names=(
            AltNameRule(kind=AltNameKind.DNS, count_max=100),
            AltNameRule(kind=AltNameKind.IP, count_max=100),
            AltNameRule(kind=AltNameKind.URI),
        ),
        common_name_as_host=True,
        extended_key_usage=(_SERVER_AUTH,),
        validity=Validity(days_default=365, days_max=825),
    ),
    Profile(
        name="tls-client",
        version=1,
        title="TLS client",
        purpose="tls-client",
        key_types=(KeyType.EC_P256,),
        subject=(
            SubjectRule(attribute="common_name", required=True),
            SubjectRule(attribute="serial_number"),
            *_DESCRIPTIVE,
        ),
        alt_names=(
            AltNameRule(kind=AltNameKind.DNS),
            AltNameRule(kind=AltNameKind.IP),
            AltNameRule(kind=AltNameKind.URI),
            AltNameRule(kind=AltNameKind.EMAIL),
            AltNameRule(kind=AltNameKind.HARDWARE_MODULE),
        ),
        extended_key_usage=(_CLIENT_AUTH,),
        validity=Validity(days_default=365, days_max=825),
    ),
    Profile(
        name="idevid",
        version=1,
        title="Device identity for life (IEEE 802.1AR IDevID)",
        purpose="idevid",
        key_types=(KeyType.EC_P256,),
        subject=(
            SubjectRule(attribute="common_name"),
            SubjectRule(attribute="serial_number", required=True, device_id=True),
            *_DESCRIPTIVE,
        ),
        alt_names=(AltNameRule(kind=AltNameKind.HARDWARE_MODULE, count_max=1),),
        validity=Validity(too_long=TooLong.REFUSE),
        device_id_required=True,
    ),
)

_ECC = (KeyType.EC_P256, KeyType.EC_P384)
_RSA = (KeyType.RSA_2048, KeyType.RSA_3072, KeyType.RSA_4096)
_SIGN = "digital_signature"
_PERSON = (
    SubjectRule(attribute="common_name", required=True),
    SubjectRule(attribute="serial_number"),
    SubjectRule(attribute="email_address"),
    *_DESCRIPTIVE,
)
_THING = (
    SubjectRule(attribute="common_name", required=True),
    SubjectRule(attribute="serial_number"),
    *_DESCRIPTIVE,
    SubjectRule(attribute="domain_component", count_max=8),
)


def _opc_ua(name: str, title: str, key_types: tuple[KeyType, ...], *usages: KeyUsage) -> Profile:
    """Give an application instance certificate (OPC 10000-6 §6.2.2).

    The URI is the applicationUri; host names and addresses follow it.
    """
    return Profile(
        name=name,
        version=1,
        title=title,
        purpose="opc-ua",
        key_types=key_types,
        subject=_THING,
        alt_names=(
            AltNameRule(kind=AltNameKind.URI, required=True, count_max=1),
            AltNameRule(kind=AltNameKind.DNS),
            AltNameRule(kind=AltNameKind.IP),
        ),
        key_usage=usages,
        extended_key_usage=(_SERVER_AUTH, _CLIENT_AUTH),
        validity=Validity(days_default=730, days_max=3_650),
    )


#: Later ones that are not the newest any more: of a responder for 7 days, which no CA's key signs,
#: because that is its limit and the back-dating comes to it.
FORMER = (
    Profile(
        name="ocsp-responder",
        version=1,
        title="OCSP responder (RFC 6960 §4.2.2.2)",
        purpose="ocsp-responder",
        key_types=_ECC,
        subject=(SubjectRule(attribute="common_name", required=True), *_DESCRIPTIVE),
        extended_key_usage=("1.3.6.1.5.5.7.3.9",),
        ocsp_no_check=True,
        validity=Validity(days_default=7, days_max=30, too_long=TooLong.REFUSE),
        conditions=Condition(principals=("user", "station")),
    ),
)

_FURTHER = (
    Profile(
        name="ldevid",
        version=1,
        title="Device identity of the plant (IEEE 802.1AR LDevID)",
        purpose="ldevid",
        key_types=(*_ECC, *_RSA),
        subject=(
            SubjectRule(attribute="common_name"),
            SubjectRule(attribute="serial_number", required=True, device_id=True),
            *_DESCRIPTIVE,
        ),
        alt_names=(
            AltNameRule(kind=AltNameKind.DNS),
            AltNameRule(kind=AltNameKind.IP),
            AltNameRule(kind=AltNameKind.HARDWARE_MODULE, count_max=1),
        ),
        extended_key_usage=(_CLIENT_AUTH,),
        validity=Validity(days_default=730, days_max=1_825),
        device_id_required=True,
    ),
    _opc_ua(
        "opc-ua-rsa",
        "OPC UA application instance, RSA",
        _RSA,
        *(_SIGN, "content_commitment", "key_encipherment", "data_encipherment"),
    ),
    _opc_ua("opc-ua-ecc", "OPC UA application instance, ECC", _ECC, _SIGN, "key_agreement"),
    Profile(
        name="dot1x-client",
        version=1,
        title="Network access by IEEE 802.1X (EAP-TLS)",
        purpose="dot1x-client",
        key_types=(*_ECC, *_RSA),
        subject=_THING,
        alt_names=(AltNameRule(kind=AltNameKind.DNS), AltNameRule(kind=AltNameKind.EMAIL)),
        extended_key_usage=(_CLIENT_AUTH,),
        validity=Validity(days_default=365, days_max=825),
    ),
    Profile(
        name="smime",
        version=1,
        title="Secure e-mail (S/MIME), RSA",
        purpose="smime",
        key_types=_RSA,
        subject=_PERSON,
        alt_names=(AltNameRule(kind=AltNameKind.EMAIL, required=True, count_max=8),),
        key_usage=(_SIGN, "content_commitment", "key_encipherment"),
        extended_key_usage=("1.3.6.1.5.5.7.3.4",),
        validity=Validity(days_default=365, days_max=825),
    ),
    Profile(
        name="code-signing",
        version=1,
        title="Code signing",
        purpose="code-signing",
        key_types=(*_ECC, KeyType.RSA_3072, KeyType.RSA_4096),
        subject=_THING,
        extended_key_usage=("1.3.6.1.5.5.7.3.3",),
        validity=Validity(days_default=365, days_max=1_186, too_long=TooLong.REFUSE),
    ),
    Profile(
        name="sub-ca",
        version=1,
        title="Issuing CA below one of ours",
        purpose="sub-ca",
        key_types=(KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_3072, KeyType.RSA_4096),
        subject=(SubjectRule(attribute="common_name", required=True), *_DESCRIPTIVE),
        key_usage=("key_cert_sign", "crl_sign"),
        ca_path_length=0,
        validity=Validity(days_default=1_825, days_max=3_650, too_long=TooLong.REFUSE),
        conditions=Condition(principals=("user", "station")),
    ),
)

#: The first ones for all key types that machines in the field have (IEEE 802.1AR §8.1 for IDevIDs).
_SECOND = tuple(
    Profile.from_document(one.to_document() | {"version": 2, "key_types": [*_ECC, *_RSA]})
    for one in FIRST
)

_RESPONDERS = tuple(
    Profile.from_document(
        one.to_document()
        | {"version": 2, "validity": {"days_default": 6, "days_max": 6, "too_long": "refuse"}}
    )
    for one in FORMER
)

#: The newest version of every shipped profile.
SHIPPED = (*_SECOND, *_FURTHER, *_RESPONDERS)
