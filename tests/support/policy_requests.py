"""Hypothesis strategies for all that ``decide`` looks at: mostly sensible, partly hostile."""

from functools import cache

from hypothesis import strategies as st

from shared.kernel.clock import US_PER_SECOND, ClockQuality, Instant
from shared.pki import keys, names
from shared.pki.certificates import IssuerLimits
from shared.pki.extensions import ValueType
from shared.pki.plan import (
    NO_EXPIRY_US,
    AltName,
    AltNameKind,
    AuthorityKey,
    NameAttribute,
    SubjectKey,
)
from shared.policy.conditions import Condition, TextTest, TimeWindow
from shared.policy.decide import Circumstances
from shared.policy.device import DeviceRecord
from shared.policy.extensions import Private, TlsFeature
from shared.policy.grant import Devices, Grant, SerialRange
from shared.policy.profile import (
    AltNameRule,
    ClockInDoubt,
    CsrHash,
    Pointers,
    Profile,
    SubjectRule,
    TooLong,
    Validity,
)
from shared.policy.request import EnrollmentRequest, Operation
from shared.policy.rules import Effect, Rule, RuleSet
from shared.policy.shipped import SHIPPED
from tests.support.pki_hierarchy import DAY_US, NOW_US

_ODD = 7  # neither a boundary nor zero, which hypothesis prefers


def _mostly(usual: st.SearchStrategy, odd: st.SearchStrategy) -> st.SearchStrategy:
    """Draw the usual, one time in sixteen the odd: many rules must all hold for one plan."""
    return st.integers(0, 15).flatmap(lambda dice: odd if dice == _ODD else usual)


_MOMENTS = st.integers(NOW_US - 400 * DAY_US, NOW_US + 400 * DAY_US)
_PAST = _mostly(st.integers(NOW_US - 400 * DAY_US, NOW_US - 10 * DAY_US), _MOMENTS)
_SERIALS = st.from_regex(r"SN-[0-4][0-9]{3}", fullmatch=True)
_TEXTS = _mostly(
    st.sampled_from(["device-1", "host.example", "Gerät 7", "SN-0815", "DE"]),
    st.one_of(
        st.text(max_size=70),
        st.sampled_from(["", "a\x00b", "a\u202eb", "ä" * 40, "x" * 65, " a", "https:"]),
    ),
)
_ALT_TEXTS = {
    AltNameKind.DNS: st.sampled_from(["a.example", "host", "*.example", "a..b", "-a", "a" * 64]),
    AltNameKind.IP: st.sampled_from(["10.0.0.1", "fe80::1", "fe80::1%eth0", "::ffff:1.2.3.4"]),
    AltNameKind.URI: st.sampled_from(["urn:host:app", "http://a.example/x", "no-scheme", "x:"]),
    AltNameKind.EMAIL: st.sampled_from(["a@b.example", "a..b@c.example", "a@b", ".@a.example"]),
    AltNameKind.HARDWARE_MODULE: st.sampled_from(
        ["1.3.6.1.4.1.1:SN-1", "2.999.1:x", "1.40.1:x", "3.1:x", "1.3.6.1:", "0.39.99999999:~"]
    ),
}
_ALT_TEXTS |= dict.fromkeys(
    set(AltNameKind) - set(_ALT_TEXTS),
    st.sampled_from(["*.line.example", "CN=a,O=b", "1.2.3.4", "ü@a.example", ":x", "1.2;UTF8:x"]),
)


_TEMPLATES = st.sampled_from(
    ["{device.serial}", "{request.cn}", "{metadata.line}", "urn:{device.line}:x", "Line 7", "DE"]
)
_PATTERNS = st.sampled_from(["[A-Za-z0-9. -]+", ".*", "device-[0-9]{1,3}", "SN-.*|DE", "urn:.+"])
_EXTENSIONS = (
    TlsFeature(kind="tls_feature"),
    Private(kind="private", oid="2.25.1", type=ValueType.UTF8, value="{metadata.line}"),
    Private(
        kind="private", oid="2.25.2", type=ValueType.INTEGER, value="{metadata.line}", critical=True
    ),
    Private(
        kind="private", oid="2.25.3", type=ValueType.IA5, value="{device.serial}", required=True
    ),
)


def _values(draw: st.DrawFn) -> dict:
    """Mostly none of what computes and restricts values: one plan in three must come about."""
    return {
        "values": draw(_mostly(st.just(()), _TEMPLATES.map(lambda one: (one,)))),
        "defaults": draw(_mostly(st.just(()), _TEMPLATES.map(lambda one: (one,)))),
        "required_patterns": draw(_mostly(st.just(()), _PATTERNS.map(lambda one: (one,)))),
        "allowed_patterns": draw(_mostly(st.just(()), _PATTERNS.map(lambda one: (one,)))),
        "forbidden_patterns": draw(_mostly(st.just(()), _PATTERNS.map(lambda one: (one,)))),
    }


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    """A condition that holds for about half of the requests."""
    return Condition(
        principals=draw(_mostly(st.just(()), st.sampled_from([("station",), ("user", "cert")]))),
        stations=draw(_mostly(st.just(()), st.sampled_from([("one",), ("two",)]))),
        cas=draw(_mostly(st.just(()), st.sampled_from([("issuing",), ("other",)]))),
        metadata=draw(
            _mostly(
                st.just(()),
                st.builds(
                    lambda pattern: (TextTest(key="line", pattern=pattern),),
                    _PATTERNS,
                ),
            )
        ),
        times=draw(
            _mostly(st.just(()), st.just((TimeWindow(days=("mon", "sat"), start="22:00"),)))
        ),
    )


@st.composite
def rule_sets(draw: st.DrawFn) -> RuleSet:
    """None, or up to three rules."""
    effects = draw(st.lists(st.sampled_from(Effect), max_size=3))
    return RuleSet(
        rules=tuple(
            Rule(
                name=f"rule-{number}",
                title="At random",
                applies_to=draw(conditions()),
                effect=effect,
                when=draw(conditions()),
            )
            for number, effect in enumerate(effects if draw(st.booleans()) else ())
        )
    )


@cache
def public_key() -> bytes:
    return keys.spki(keys.generate().public_key())


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Any of the shipped ones, or one with rules at random."""
    shipped = draw(st.sampled_from((None, *SHIPPED)))
    if shipped:
        return shipped
    days = draw(st.none() | st.integers(1, 36_525))
    attributes = draw(st.lists(st.sampled_from(sorted(names.BY_NAME)), unique=True))
    kinds = draw(st.lists(st.sampled_from(list(AltNameKind)), unique=True))
    return Profile(
        name="random",
        version=3,
        title="At random",
        purpose="random",
        key_types=(keys.KeyType.EC_P256,),
        subject=tuple(
            SubjectRule(
                attribute=attribute,
                required=draw(st.booleans()),
                count_max=draw(st.integers(1, 3)),
                device_id=draw(st.booleans()),
                metadata_key=draw(st.none() | st.sampled_from(["line", "article"])),
                **_values(draw),
            )
            for attribute in attributes
        ),
        alt_names=tuple(
            AltNameRule(
                kind=kind,
                required=draw(st.booleans()),
                count_max=draw(st.integers(1, 3)),
                **_values(draw),
            )
            for kind in kinds
        ),
        common_name_as_host=draw(st.booleans()),
        validity=Validity(
            days_default=days and draw(st.integers(1, days)),
            days_max=days,
            back_date_s=draw(st.integers(0, 7 * 24 * 3600)),
            too_long=draw(st.sampled_from(TooLong)),
            clock_in_doubt=draw(st.sampled_from(ClockInDoubt)),
        ),
        pointers=draw(st.sampled_from([Pointers(), Pointers(crl_urls=(), ocsp_urls=())])),
        subject_key_identifier=draw(st.sampled_from(SubjectKey)),
        authority_key_identifier=draw(st.sampled_from(AuthorityKey)),
        csr_hash_min=draw(_mostly(st.just(CsrHash.SHA256), st.sampled_from(CsrHash))),
        device_id_required=draw(st.booleans()),
        known_devices_only=draw(_mostly(st.just(False), st.just(True))),
        conditions=draw(conditions()),
        extensions=tuple(draw(st.lists(st.sampled_from(_EXTENSIONS), unique=True, max_size=3))),
    )


@st.composite
def grants(draw: st.DrawFn, profile: Profile) -> Grant | None:
    """None, or a grant that mostly covers the profile."""
    if draw(st.booleans()):
        return None
    ranges = (
        SerialRange(prefix="SN-", first="0000", last=draw(st.sampled_from(["4999", "9999"]))),
    )
    start_us = draw(_PAST)
    return Grant(
        grant_id="grant-1",
        version=1,
        profiles=(draw(_mostly(st.just(profile.name), st.just("other"))),),
        quota=100,
        not_before_us=start_us,
        not_after_us=max(start_us, NOW_US) + draw(st.integers(1, 400)) * DAY_US,
        last_contact_max_s=draw(st.none() | st.integers(2, 90).map(lambda days: days * 86_400)),
        devices=draw(st.sampled_from([None, Devices(listed=("dev-1",), ranges=ranges)])),
        stations=draw(_mostly(st.none(), st.sampled_from([("one",), ("two", "three")]))),
    )


@st.composite
def requests(draw: st.DrawFn, profile: Profile) -> EnrollmentRequest:
    """A request that asks mostly for what the profile knows."""
    known = [names.BY_NAME[rule.attribute] for rule in profile.subject]
    alt_kinds = [rule.kind for rule in profile.alt_names] or list(AltNameKind)
    oids = [kind.oid.dotted_string for kind in known] or ["2.5.4.3"]
    attributes = st.builds(
        NameAttribute, _mostly(st.sampled_from(oids), st.just("2.5.4.99")), _TEXTS
    )
    alternatives = _mostly(st.sampled_from(alt_kinds), st.sampled_from(list(AltNameKind))).flatmap(
        lambda kind: _ALT_TEXTS[kind].map(lambda value: AltName(kind, value))
    )
    return EnrollmentRequest(
        operation=Operation.ENROLL,
        protocol="rest",
        alias="line-1",
        profile=profile.name,
        principal="station:one",
        public_key=draw(_mostly(st.just(public_key()), st.sampled_from([b"", b"x" * 91]))),
        subject=tuple(draw(st.lists(attributes, max_size=4))),
        alt_names=tuple(draw(st.lists(alternatives, max_size=3))),
        device_id=draw(_mostly(_SERIALS, st.none() | _TEXTS)),
        validity_days=draw(
            st.none() | _mostly(st.integers(1, 4000), st.integers(-(10**30), 10**30))
        ),
        metadata=draw(
            st.dictionaries(
                _mostly(st.sampled_from(["line", "article"]), st.sampled_from(["", "a\nb"])),
                _TEXTS,
                max_size=2,
            )
        ),
        csr_hash=draw(st.none() | st.sampled_from(["sha256", "sha384", "sha512"])),
        record=draw(st.sampled_from([None, DeviceRecord("SN-0815", line="7"), DeviceRecord("x")])),
    )


@st.composite
def circumstances(draw: st.DrawFn) -> Circumstances:
    """A time near the boundaries of issuer and grant, and a last contact."""
    not_before_us = draw(_PAST) // US_PER_SECOND * US_PER_SECOND
    lifetime_us = draw(st.integers(401, 4000)) * DAY_US
    not_after_us = draw(st.sampled_from([NO_EXPIRY_US, not_before_us + lifetime_us]))
    issue_until_us = draw(
        _mostly(st.just(not_after_us), st.integers(not_before_us, not_before_us + lifetime_us))
    )
    return Circumstances(
        now=Instant(
            draw(_mostly(st.integers(NOW_US, NOW_US + DAY_US), _MOMENTS)),
            0,
            "boot",
            draw(st.sampled_from(ClockQuality)),
        ),
        issuer=IssuerLimits(not_before_us, not_after_us, issue_until_us),
        last_contact_us=draw(_mostly(st.just(NOW_US), st.none() | _MOMENTS)),
        ca_role="issuing",
        path_length=draw(st.sampled_from([None, 0, 2])),
        rules=draw(rule_sets()),
    )


@st.composite
def decisions(
    draw: st.DrawFn,
) -> tuple[Profile, Grant | None, EnrollmentRequest, Circumstances]:
    """All four arguments of ``decide``."""
    profile = draw(profiles())
    return profile, draw(grants(profile)), draw(requests(profile)), draw(circumstances())
