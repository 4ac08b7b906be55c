"""The profiles that every installation begins with. A published version never changes."""

from shared.pki.keys import KeyType
from shared.pki.plan import AltNameKind
from shared.policy.profile import AltNameRule, Profile, SubjectRule, TooLong, Validity

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

#: The profiles that every installation begins with.
SHIPPED = (
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
        extended_key_usage=("1.3.6.1.5.5.7.3.1",),
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
        extended_key_usage=("1.3.6.1.5.5.7.3.2",),
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
