"""The one decision: whether a certificate may be issued now, and what it will say.

Pure and total: the same profile, grant, request and circumstances give the same plan or refusal at
central and at every gateway. Each refusal names the rule, the value that broke it and a remedy.
``explain`` runs the same rules and gives the verdict of each.
The grant's quota is not judged here: the ledger spends it in the commit of the intent.
"""

from collections.abc import Callable
from dataclasses import dataclass

from shared.kernel import limits
from shared.kernel.clock import US_PER_SECOND, ClockQuality, Instant
from shared.kernel.errors import RefusedError
from shared.pki import keys, names
from shared.pki.certificates import IssuerLimits
from shared.pki.plan import NO_EXPIRY_US, Plan
from shared.policy import content, granted
from shared.policy.case import Case, Outcome, Refusal, Verdict, excerpt, moment
from shared.policy.circumstances import Circumstances
from shared.policy.conditions import Condition
from shared.policy.grant import Grant
from shared.policy.profile import ClockInDoubt, CsrHash, Mode, Profile, TooLong
from shared.policy.request import EnrollmentRequest
from shared.policy.rules import Effect, Rule

__all__ = ["Circumstances", "Decision", "Outcome", "Refusal", "Verdict", "decide", "explain"]

_US_PER_DAY = 24 * 3600 * US_PER_SECOND
_CSR_HASHES = tuple(CsrHash)
#: Of a CA that is elsewhere.
_ANY_TIME = IssuerLimits(0, NO_EXPIRY_US, NO_EXPIRY_US)


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome with the verdict of every rule, in the order in which they are judged."""

    outcome: Plan | Refusal
    verdicts: tuple[Verdict, ...]


def decide(
    profile: Profile,
    grant: Grant | None,
    request: EnrollmentRequest,
    circumstances: Circumstances,
) -> Plan | Refusal:
    """Decide on one request. ``grant`` None: none is needed (central)."""
    case = Case(profile, grant, request, circumstances)
    try:
        for step in _STEPS:
            step.judge(case)
    except RefusedError as refused:
        return Refusal(refused.rule, refused.value, refused.message, refused.remedy)
    return _plan(case)


def explain(
    profile: Profile,
    grant: Grant | None,
    request: EnrollmentRequest,
    circumstances: Circumstances,
) -> Decision:
    """Decide as ``decide`` does, and say what each rule found."""
    trace: list[Verdict] = []
    case = Case(profile, grant, request, circumstances, trace)
    failed: set[str] = set()
    for step in _STEPS:
        before = len(trace)
        if failed.isdisjoint(step.needs):
            step.judge(case)
        else:
            needed = ", ".join(sorted(failed.intersection(step.needs)))
            trace.append(Verdict(step.name, Outcome.NOT_REACHED, f"needs {needed}"))
        if any(verdict.outcome is not Outcome.PASSED for verdict in trace[before:]):
            failed.add(step.name)
    first = next((verdict for verdict in trace if verdict.outcome is Outcome.FAILED), None)
    if first is None:
        return Decision(_plan(case), tuple(trace))
    refusal = Refusal(first.rule, first.value, first.message, first.remedy)
    return Decision(refusal, tuple(trace))


def _plan(case: Case) -> Plan:
    profile = case.profile
    return Plan(
        profile=profile.name,
        profile_version=profile.version,
        purpose=profile.purpose,
        subject=case.subject,
        alt_names=case.alt_names,
        public_key=case.request.public_key,
        not_before_us=case.not_before_us,
        not_after_us=case.not_after_us,
        key_usage=profile.key_usage,
        extended_key_usage=profile.extended_key_usage,
        extensions=case.extensions,
        ca_path_length=profile.ca_path_length,
        no_check=profile.ocsp_no_check,
        pointers=profile.pointers.planned,
        subject_key=profile.subject_key_identifier,
        authority_key=profile.authority_key_identifier,
    )


def _judge_issuer(case: Case) -> None:
    issuer, path_length = case.circumstances.issuer, case.profile.ca_path_length
    if issuer is not None:
        _judge_signing(case, issuer)
    if path_length is not None:
        _judge_authority(case, path_length)


def _judge_signing(case: Case, issuer: IssuerLimits) -> None:
    """Judge whether the CA of this box may sign it now."""
    profile, circumstances = case.profile, case.circumstances
    now = circumstances.now
    case.judge(
        not _in_doubt(now) or profile.validity.clock_in_doubt is not ClockInDoubt.HOLD,
        "clock",
        now.quality.value,
        lambda: (
            f"The time is not known, and the profile {profile.name} does not issue in doubt.",
            "Restore the time source or the link to central, or set the clock.",
        ),
    )
    until_us = min(issuer.issue_until_us, issuer.not_after_us)
    case.judge(
        issuer.not_before_us <= now.utc_us < until_us,
        "issuer.window",
        lambda: moment(now.utc_us),
        lambda: (
            (
                f"The CA issues from {moment(issuer.not_before_us)} until {moment(until_us)}, "
                f"and it is {moment(now.utc_us)}."
            ),
            "Check the clock; if it is right, the CA needs its next issuing period.",
        ),
    )
    if profile.issuing_ca is not None:
        case.judge(
            profile.issuing_ca in {circumstances.ca_id, circumstances.ca_role},
            "issuing_ca",
            circumstances.ca_id or circumstances.ca_role,
            lambda: (
                f"The profile {profile.name} is issued by the CA {profile.issuing_ca} only.",
                "Ask where that CA is, or use another profile.",
            ),
        )


def _judge_authority(case: Case, path_length: int) -> None:
    """Let CAs be born at central only, below one that may have so many (RFC 5280 §4.2.1.9)."""
    allowed = case.circumstances.path_length
    case.judge(
        case.grant is None and (allowed is None or path_length < allowed),
        "ca",
        path_length,
        lambda: (
            "This CA cannot issue a CA certificate of this path length.",
            "Ask central for it, from a CA whose path length is greater.",
        ),
    )


def _judge_requester(case: Case) -> None:
    profile = case.profile
    _judge_mode(case)
    verdicts = profile.conditions.verdicts(case.request, case.circumstances)
    for name, value, wanted, passes in verdicts:
        if name == "cas" and case.circumstances.issuer is None:
            continue  # whose CA signs, judges that
        case.judge(
            passes,
            f"conditions.{name}",
            value,
            lambda name=name, wanted=wanted: (
                f"The profile {profile.name} is for requests with {name}: {excerpt(wanted)}.",
                "Ask so that this holds, or use another profile.",
            ),
        )


def _judge_mode(case: Case) -> None:
    """See that who is asked is who signs, or passes it on to who does (design.md §4)."""
    profile, request = case.profile, case.request
    case.judge(
        profile.mode is not Mode.STOCK,
        "mode",
        profile.mode.value,
        lambda: (
            (
                f"The profile {profile.name} is for the mode {profile.mode.value}, "
                "which this version does not issue."
            ),
            "Ask the administrator for a profile of the mode local or forward.",
        ),
    )
    if request.gateway:
        case.judge(
            profile.mode is Mode.FORWARD,
            "mode.forward",
            profile.mode.value,
            lambda: (
                f"Central does not sign for the profile {profile.name} any more.",
                "Ask again: the gateway issues it itself now.",
            ),
        )
    if case.circumstances.issuer is None:
        case.judge(
            not request.key_made_here,
            "key.made_here",
            profile.mode.value,
            lambda: (
                (
                    f"Central signs for the profile {profile.name}, which may take days; "
                    "a key that is made here is not kept for so long."
                ),
                "Make the key yourself, and send a certification request for it.",
            ),
        )


def _judge_key(case: Case) -> None:
    profile = case.profile
    key_type = keys.key_type(case.request.public_key)
    case.judge(
        key_type in profile.key_types,
        "key_types",
        key_type.value if key_type else "unknown",
        lambda: (
            f"The profile {profile.name} does not allow keys of this type.",
            f"Use a key of type {', '.join(profile.key_types)}.",
        ),
    )
    used, least = case.request.csr_hash, profile.csr_hash_min
    case.judge(
        used is None or _CSR_HASHES.index(used) >= _CSR_HASHES.index(least),
        "csr_hash",
        used,
        lambda: (
            f"The profile {profile.name} wants requests signed with {least.value} or more.",
            f"Sign the certification request with {least.value}.",
        ),
    )


def _judge_device(case: Case) -> None:
    profile, request = case.profile, case.request
    device_id = request.device
    if device_id is None:
        case.judge(
            not profile.device_id_required,
            "device_id",
            None,
            lambda: (
                f"The profile {profile.name} needs a device id.",
                "Send device_id, or the device's serialNumber in the subject.",
            ),
        )
    else:
        problem = names.text_problem(device_id, limits.DEVICE_ID_CHARS_MAX)
        case.judge(
            problem is None,
            "device_id",
            device_id,
            lambda: (
                f"The device id {problem}.",
                f"Send up to {limits.DEVICE_ID_CHARS_MAX} printable characters.",
            ),
        )
    if request.known_devices_only or profile.known_devices_only:
        case.judge(
            request.record is not None,
            "device.known",
            device_id,
            lambda: (
                f"The device {excerpt(device_id)} is not known here.",
                "Import its device record at central, and let the gateway hear of it.",
            ),
        )


def _judge_metadata(case: Case) -> None:
    metadata = case.request.metadata
    case.judge(
        len(metadata) <= limits.METADATA_PAIRS_MAX,
        "metadata",
        len(metadata),
        lambda: (
            f"The request has {len(metadata)} metadata pairs.",
            f"Send at most {limits.METADATA_PAIRS_MAX}.",
        ),
    )
    for key, value in metadata.items():
        problem = names.text_problem(key, limits.METADATA_KEY_CHARS_MAX)
        if value and problem is None:
            problem = names.text_problem(value, limits.METADATA_VALUE_CHARS_MAX)
        case.judge(
            problem is None,
            "metadata",
            key,
            lambda key=key, problem=problem: (
                f"The metadata pair {excerpt(key)} {problem}.",
                "Send short printable text without control characters.",
            ),
        )


def _judge_validity(case: Case) -> None:
    """Set start and end in UTC µs on whole seconds; the end is never after the issuer's."""
    rules, now = case.profile.validity, case.circumstances.now
    issuer = case.circumstances.issuer or _ANY_TIME
    start_us = now.utc_us - rules.back_date_s * US_PER_SECOND
    if _in_doubt(now) and rules.clock_in_doubt is ClockInDoubt.BACK_DATE:
        start_us = issuer.not_before_us
    end_us = _end_us(case)
    if end_us > issuer.not_after_us:
        case.judge(
            rules.too_long is TooLong.CLIP,
            "validity.issuer",
            lambda: moment(end_us),
            lambda: (
                (
                    f"The certificate would live until {moment(end_us)}, "
                    f"its issuer ends {moment(issuer.not_after_us)}."
                ),
                "Ask for fewer days, or use a CA that lives longer.",
            ),
        )
    end_us = min(end_us, issuer.not_after_us)
    start_us = max(start_us, issuer.not_before_us)
    case.not_before_us = start_us - start_us % US_PER_SECOND
    case.not_after_us = end_us - end_us % US_PER_SECOND


def _end_us(case: Case) -> int:
    """Give the end that request and profile want, UTC µs."""
    rules, days, now_us = case.profile.validity, case.request.validity_days, _now_us(case)
    name = case.profile.name
    if rules.days_max is None or rules.days_default is None:
        case.judge(
            days is None,
            "validity.days",
            days,
            lambda: (
                f"Certificates of the profile {name} have no expiry of the requester's choice.",
                "Leave the number of days out.",
            ),
        )
        if rules.not_after_us is None:
            return NO_EXPIRY_US
        end_us = rules.not_after_us
        case.judge(
            now_us < end_us,
            "validity.not_after",
            lambda: moment(now_us),
            lambda: (
                f"Certificates of the profile {name} end {moment(end_us)}, which is over.",
                "Ask the administrator for a new version of the profile.",
            ),
        )
        return end_us
    least, most = rules.days_min or 1, rules.days_max
    wanted = rules.days_default if days is None else days
    case.judge(
        wanted >= least and (wanted <= most or rules.too_long is TooLong.CLIP),
        "validity.days",
        wanted,
        lambda: (
            f"The profile {name} issues for {least} to {most} days.",
            f"Ask for {least} to {most} days.",
        ),
    )
    return min(NO_EXPIRY_US, now_us + min(wanted, most) * _US_PER_DAY)


def _judge_rules(case: Case) -> None:
    """Judge the documents that bind a CA or a subset of requests, after the profile."""
    allowing: list[Rule] = []
    for rule in case.circumstances.rules.of(case.profile.name):
        if case.circumstances.issuer is None and (rule.applies_to.cas or rule.when.cas):
            continue  # whose CA signs, judges that
        if not _holds(rule.applies_to, case):
            continue
        if rule.effect is Effect.ALLOW:
            allowing.append(rule)
            continue
        case.judge(
            _holds(rule.when, case) is (rule.effect is Effect.REQUIRE),
            f"rules.{rule.name}",
            rule.effect.value,
            lambda rule=rule: (f"The rule “{rule.title}” does not allow this.", rule.remedy),
        )
    if allowing:
        case.judge(
            any(_holds(rule.when, case) for rule in allowing),
            f"rules.{allowing[0].name}",
            "allow",
            lambda: (
                f"No rule allows this: {', '.join(rule.title for rule in allowing)}.",
                allowing[0].remedy,
            ),
        )


def _holds(condition: Condition, case: Case) -> bool:
    return condition.holds(case.request, case.circumstances)


def _now_us(case: Case) -> int:
    return case.circumstances.now.utc_us


def _in_doubt(now: Instant) -> bool:
    return now.quality is ClockQuality.UNKNOWN


@dataclass(frozen=True, slots=True)
class _Step:
    """A group of rules; ``needs`` names the groups whose results it uses."""

    name: str
    judge: Callable[[Case], None]
    needs: tuple[str, ...] = ()


_STEPS = (
    _Step("grant", granted.judge),
    _Step("issuer", _judge_issuer),
    _Step("requester", _judge_requester),
    _Step("key", _judge_key),
    _Step("device", _judge_device),
    _Step("metadata", _judge_metadata),
    _Step("subject", content.judge_subject, needs=("device", "metadata")),
    _Step("alt_names", content.judge_alt_names, needs=("subject",)),
    _Step("validity", _judge_validity, needs=("issuer",)),
    _Step("extensions", content.judge_extensions, needs=("subject",)),
    _Step("rules", _judge_rules),
)
