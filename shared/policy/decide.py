"""The one decision: whether a certificate may be issued now, and what it will say.

Pure and total: the same profile, grant, request and circumstances give the same plan or refusal at
central and at every gateway. Each refusal names the rule, the value that broke it and a remedy.
The grant's quota is not judged here: the ledger spends it in the commit of the intent.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from shared.kernel import limits
from shared.kernel.clock import US_PER_SECOND, ClockQuality, Instant, datetime_of
from shared.pki import keys, names
from shared.pki.certificates import IssuerLimits
from shared.pki.plan import NO_EXPIRY_US, AltName, NameAttribute, Plan
from shared.policy.grant import Grant
from shared.policy.profile import ClockInDoubt, Profile, SubjectRule, TooLong
from shared.policy.request import EnrollmentRequest

_US_PER_DAY = 24 * 3600 * US_PER_SECOND
#: How far the clock may stand before central's last contact without having been set back.
_CLOCK_TOLERANCE_US = 300 * US_PER_SECOND
_VALUE_CHARS_MAX = 128


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else the decision depends on: the time, the CA that would sign, the last contact."""

    now: Instant
    issuer: IssuerLimits
    last_contact_us: int | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule says no: its name, the value that broke it, a sentence, and what would help."""

    rule: str
    value: str
    message: str
    remedy: str


class _RefusedError(Exception):
    """Carries a refusal out of the rule that made it."""

    def __init__(self, rule: str, value: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(rule, value, message, remedy)


def decide(
    profile: Profile,
    grant: Grant | None,
    request: EnrollmentRequest,
    circumstances: Circumstances,
) -> Plan | Refusal:
    """Decide on one request. ``grant`` None: none is needed (central)."""
    try:
        if grant is not None:
            _check_grant(grant, profile, request, circumstances)
        _check_circumstances(profile, circumstances)
        _check_key(profile, request)
        _check_device(profile, request)
        _check_metadata(request)
        subject = _subject(profile, request)
        alt_names = _alt_names(profile, request, subject)
        not_before_us, not_after_us = _validity(profile, request, circumstances)
    except _RefusedError as refused:
        return refused.refusal
    return Plan(
        profile=profile.name,
        profile_version=profile.version,
        purpose=profile.purpose,
        subject=subject,
        alt_names=alt_names,
        public_key=request.public_key,
        not_before_us=not_before_us,
        not_after_us=not_after_us,
        key_usage=profile.key_usage,
        extended_key_usage=profile.extended_key_usage,
    )


def unknown_device(request: EnrollmentRequest) -> Refusal:
    """Refuse a device of which no record is held, where only known ones may enroll."""
    return Refusal(
        "device.known",
        _excerpt(request.device),
        f"The device {_excerpt(request.device)} is not known here.",
        "Import its device record at central, and let the gateway hear of it.",
    )


def _check_grant(
    grant: Grant, profile: Profile, request: EnrollmentRequest, circumstances: Circumstances
) -> None:
    if profile.name not in grant.profiles:
        raise _RefusedError(
            "grant.profiles",
            profile.name,
            f"This gateway's grant does not cover the profile {profile.name}.",
            "Ask central to add the profile to the grant.",
        )
    if grant.devices is not None and (request.device or "") not in grant.devices:
        raise _RefusedError(
            "grant.devices",
            _excerpt(request.device),
            f"The device {_excerpt(request.device)} is not among those that the grant names.",
            "Check the device id, or ask central to extend the grant.",
        )
    now_us = circumstances.now.utc_us
    if not grant.not_before_us <= now_us < grant.not_after_us:
        raise _RefusedError(
            "grant.window",
            _time(now_us),
            f"The grant holds from {_time(grant.not_before_us)} until "
            f"{_time(grant.not_after_us)}, and it is {_time(now_us)}.",
            "Check the clock, or ask central for a new grant.",
        )
    if grant.last_contact_max_s is not None:
        _check_last_contact(grant.last_contact_max_s, now_us, circumstances.last_contact_us)


def _check_last_contact(max_s: int, now_us: int, last_contact_us: int | None) -> None:
    """Central must have been heard of lately; a clock before that contact proves nothing."""
    if last_contact_us is not None and (
        -_CLOCK_TOLERANCE_US <= now_us - last_contact_us <= max_s * US_PER_SECOND
    ):
        return
    last = "none" if last_contact_us is None else _time(last_contact_us)
    raise _RefusedError(
        "grant.last_contact",
        last,
        f"The grant holds for {max_s} s after the last contact with central; it is "
        f"{_time(now_us)}, and the last contact was: {last}.",
        "Restore the link to central, or check the clock.",
    )


def _check_circumstances(profile: Profile, circumstances: Circumstances) -> None:
    now, issuer = circumstances.now, circumstances.issuer
    if _in_doubt(now) and profile.validity.clock_in_doubt is ClockInDoubt.HOLD:
        raise _RefusedError(
            "clock",
            now.quality.value,
            f"The time is not known, and the profile {profile.name} does not issue in doubt.",
            "Restore the time source or the link to central, or set the clock.",
        )
    until_us = min(issuer.issue_until_us, issuer.not_after_us)
    if not issuer.not_before_us <= now.utc_us < until_us:
        raise _RefusedError(
            "issuer.window",
            _time(now.utc_us),
            f"The CA issues from {_time(issuer.not_before_us)} until {_time(until_us)}, "
            f"and it is {_time(now.utc_us)}.",
            "Check the clock; if it is right, the CA needs its next issuing period.",
        )


def _check_key(profile: Profile, request: EnrollmentRequest) -> None:
    key_type = keys.key_type(request.public_key)
    if key_type not in profile.key_types:
        raise _RefusedError(
            "key_types",
            key_type.value if key_type else "unknown",
            f"The profile {profile.name} does not allow keys of this type.",
            f"Use a key of type {', '.join(profile.key_types)}.",
        )


def _check_device(profile: Profile, request: EnrollmentRequest) -> None:
    device_id = request.device
    if device_id is None:
        if profile.device_id_required:
            raise _RefusedError(
                "device_id",
                "none",
                f"The profile {profile.name} needs a device id.",
                "Send device_id, or the device's serialNumber in the subject.",
            )
    elif problem := names.text_problem(device_id, limits.DEVICE_ID_CHARS_MAX):
        raise _RefusedError(
            "device_id",
            _excerpt(device_id),
            f"The device id {problem}.",
            f"Send up to {limits.DEVICE_ID_CHARS_MAX} printable characters.",
        )


def _check_metadata(request: EnrollmentRequest) -> None:
    if len(request.metadata) > limits.METADATA_PAIRS_MAX:
        raise _RefusedError(
            "metadata",
            str(len(request.metadata)),
            f"The request has {len(request.metadata)} metadata pairs.",
            f"Send at most {limits.METADATA_PAIRS_MAX}.",
        )
    for key, value in request.metadata.items():
        problem = names.text_problem(key, limits.METADATA_KEY_CHARS_MAX)
        if value and problem is None:
            problem = names.text_problem(value, limits.METADATA_VALUE_CHARS_MAX)
        if problem:
            raise _RefusedError(
                "metadata",
                _excerpt(key),
                f"The metadata pair {_excerpt(key)} {problem}.",
                "Send short printable text without control characters.",
            )


def _subject(profile: Profile, request: EnrollmentRequest) -> tuple[NameAttribute, ...]:
    """Check what was asked for and add what the profile fills in."""
    rules = profile.subject_rules
    for attribute in request.subject:
        kind = names.BY_OID.get(attribute.oid)
        if kind is None or attribute.oid not in rules:
            raise _RefusedError(
                "subject",
                kind.name if kind else _excerpt(attribute.oid),
                f"The profile {profile.name} does not allow this attribute in the subject.",
                f"Use only {', '.join(rule.attribute for rule in profile.subject)}.",
            )
        if problem := names.attribute_problem(kind, attribute.value):
            raise _RefusedError(
                f"subject.{kind.name}",
                _excerpt(attribute.value),
                f"The subject's {kind.name} {problem}.",
                f"Send a {kind.name} that fits.",
            )
    subject = request.subject + tuple(_filled_in(profile, request))
    present = [attribute.oid for attribute in subject]
    for oid, rule in rules.items():
        _check_count(f"subject.{rule.attribute}", rule.required, present.count(oid), rule.count_max)
    return subject


def _filled_in(profile: Profile, request: EnrollmentRequest) -> Iterator[NameAttribute]:
    """Give the attributes that come from device id or metadata and were not asked for."""
    for oid, rule in profile.subject_rules.items():
        expected = _source(rule, request)
        if expected is None:
            continue
        kind = names.BY_OID[oid]
        present = [attribute.value for attribute in request.subject if attribute.oid == oid]
        problem = names.attribute_problem(kind, expected)
        if problem or any(value != expected for value in present):
            raise _RefusedError(
                f"subject.{kind.name}",
                _excerpt(present[0] if present else expected),
                f"The subject's {kind.name} {problem or 'differs from what was sent beside it'}.",
                f"Send the {kind.name} only once, or twice the same.",
            )
        if not present:
            yield NameAttribute(oid, expected)


def _source(rule: SubjectRule, request: EnrollmentRequest) -> str | None:
    if rule.device_id:
        return request.device
    return request.metadata.get(rule.metadata_key) if rule.metadata_key else None


def _alt_names(
    profile: Profile, request: EnrollmentRequest, subject: tuple[NameAttribute, ...]
) -> tuple[AltName, ...]:
    alt_names = request.alt_names
    rules = profile.alt_name_rules
    if profile.common_name_as_host and not alt_names:
        hosts = (names.host_name(item.value) for item in subject if item.oid == names.COMMON_NAME)
        alt_names = tuple(
            host for host in hosts if host.kind in rules and not names.alt_name_problem(host)
        )
    for alt_name in alt_names:
        allowed = alt_name.kind in rules
        problem = names.alt_name_problem(alt_name) if allowed else "is of a kind not allowed"
        if problem:
            raise _RefusedError(
                f"alt_names.{alt_name.kind.value}",
                _excerpt(alt_name.value),
                f"The alternative name {_excerpt(alt_name.value)} {problem}.",
                f"The profile {profile.name} allows: {', '.join(rules) or 'none'}.",
            )
    present = [alt_name.kind for alt_name in alt_names]
    for kind, rule in rules.items():
        _check_count(f"alt_names.{kind.value}", rule.required, present.count(kind), rule.count_max)
    if not subject and not alt_names:
        raise _RefusedError(
            "subject",
            "none",
            "The request names nobody: subject and alternative names are empty.",
            "Send a common name or an alternative name.",
        )
    return alt_names


def _check_count(rule: str, required: bool, count: int, count_max: int) -> None:
    if count > count_max or (required and count == 0):
        raise _RefusedError(
            rule,
            str(count),
            f"The certificate would hold {rule} {count} times.",
            f"Send at least {int(required)} and at most {count_max}.",
        )


def _validity(
    profile: Profile, request: EnrollmentRequest, circumstances: Circumstances
) -> tuple[int, int]:
    """Give start and end in UTC µs on whole seconds; the end is never after the issuer's."""
    rules, issuer, now = profile.validity, circumstances.issuer, circumstances.now
    start_us = now.utc_us - rules.back_date_s * US_PER_SECOND
    if _in_doubt(now) and rules.clock_in_doubt is ClockInDoubt.BACK_DATE:
        start_us = issuer.not_before_us
    end_us = NO_EXPIRY_US
    if (days := _days(profile, request)) is not None:
        end_us = min(end_us, now.utc_us + days * _US_PER_DAY)
    if end_us > issuer.not_after_us:
        if rules.too_long is TooLong.REFUSE:
            raise _RefusedError(
                "validity.issuer",
                _time(end_us),
                f"The certificate would live until {_time(end_us)}, "
                f"its issuer ends {_time(issuer.not_after_us)}.",
                "Ask for fewer days, or use a CA that lives longer.",
            )
        end_us = issuer.not_after_us
    start_us = max(start_us, issuer.not_before_us)
    return start_us - start_us % US_PER_SECOND, end_us - end_us % US_PER_SECOND


def _days(profile: Profile, request: EnrollmentRequest) -> int | None:
    """Give the days to live; None: no expiry."""
    rules, days = profile.validity, request.validity_days
    if days is None or rules.days_max is None:
        if days is not None:
            raise _RefusedError(
                "validity.days",
                str(days),
                f"Certificates of the profile {profile.name} have no expiry.",
                "Leave the number of days out.",
            )
        return rules.days_default
    if days < 1 or (days > rules.days_max and rules.too_long is TooLong.REFUSE):
        raise _RefusedError(
            "validity.days",
            str(days),
            f"The profile {profile.name} issues for 1 to {rules.days_max} days.",
            f"Ask for at most {rules.days_max} days.",
        )
    return min(days, rules.days_max)


def _in_doubt(now: Instant) -> bool:
    return now.quality is ClockQuality.UNKNOWN


def _time(utc_us: int) -> str:
    return f"{datetime_of(utc_us):%Y-%m-%d %H:%M:%SZ}"


def _excerpt(value: str | None) -> str:
    """Show text from outside: without control characters and not without end."""
    text = value or "none"
    return (text if text.isprintable() else ascii(text))[:_VALUE_CHARS_MAX]
