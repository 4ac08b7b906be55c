"""The rules on what the certificate says: subject, alternative names, extensions."""

from collections.abc import Iterator, Sequence

from shared.pki import names
from shared.pki.extensions import Encoded
from shared.pki.names import AttributeType
from shared.pki.plan import AltName, NameAttribute
from shared.policy import patterns, templates
from shared.policy.case import Case, excerpt
from shared.policy.extensions import Private
from shared.policy.profile import SubjectRule, ValueRule


def judge_subject(case: Case) -> None:
    """Check what was asked for and add what the profile fills in."""
    rules = case.profile.subject_rules
    asked: dict[str, list[str]] = {}
    for attribute in case.request.subject:
        kind = names.BY_OID.get(attribute.oid)
        known = kind is not None and attribute.oid in rules
        case.judge(
            known,
            "subject",
            kind.name if kind else attribute.oid,
            lambda: (
                f"The profile {case.profile.name} does not allow this attribute in the subject.",
                f"Use only {', '.join(rule.attribute for rule in case.profile.subject) or 'none'}.",
            ),
        )
        if kind is not None and known:
            _judge_attribute(case, kind, attribute.value)
            asked.setdefault(attribute.oid, []).append(attribute.value)
    filled: list[NameAttribute] = []
    for oid, rule in rules.items():
        if rule.is_silent and oid not in asked and case.trace is None:
            continue  # it would pass; most rules of most requests are such
        values = asked.get(oid, [])
        more = [] if rule.is_silent else _computed(case, rule, values) or []
        for value in more:
            filled.append(NameAttribute(oid, value))
            _judge_attribute(case, names.BY_OID[oid], value)
        _judge_values(case, rule, values + more)
        _judge_count(case, rule, rule.count_max, len(values) + len(more))
    case.subject = case.request.subject + tuple(filled)


def judge_alt_names(case: Case) -> None:
    """Check the alternative names and add what the profile fills in."""
    profile = case.profile
    rules = profile.alt_name_rules
    alt_names = _asked_alt_names(case)
    for name in alt_names:
        rule = rules.get(name.kind)
        problem = names.alt_name_problem(name) if rule else "is of a kind not allowed"
        case.judge(
            problem is None,
            rule.label if rule else f"alt_names.{name.kind}",
            name.value,
            lambda name=name, problem=problem: (
                f"The alternative name {excerpt(name.value)} {problem}.",
                f"The profile {profile.name} allows: {', '.join(rules) or 'none'}.",
            ),
        )
    for rule in profile.alt_names:
        values = [name.value for name in alt_names if name.kind is rule.kind]
        if values or case.trace is not None or not rule.is_silent:
            _judge_values(case, rule, values)
            _judge_count(case, rule, rule.count_max, len(values))
    case.judge(
        bool(case.subject or alt_names),
        "subject",
        "",
        lambda: (
            "The request names nobody: subject and alternative names are empty.",
            "Send a common name or an alternative name.",
        ),
    )
    case.alt_names = alt_names


def _asked_alt_names(case: Case) -> tuple[AltName, ...]:
    """Give what was asked for and what the profile fills in; it is judged like the other."""
    profile = case.profile
    alt_names = case.request.alt_names
    if profile.common_name_as_host and not alt_names:
        hosts = [
            names.host_name(item.value) for item in case.subject if item.oid == names.COMMON_NAME
        ]
        alt_names = tuple(
            host
            for host in hosts
            if host.kind in profile.alt_name_rules and not names.alt_name_problem(host)
        )
    for rule in profile.alt_names:
        if rule.values or rule.defaults:
            asked = [name.value for name in alt_names if name.kind is rule.kind]
            more = _computed(case, rule, asked) or ()
            alt_names += tuple(AltName(rule.kind, value) for value in more)
    return alt_names


def judge_extensions(case: Case) -> None:
    """Encode what the profile puts in beside what every certificate has."""
    constant = case.profile.constant_extensions
    case.extensions = tuple(_encoded(case)) if constant is None else constant


def _encoded(case: Case) -> Iterator[Encoded]:
    for rule in case.profile.extensions:
        if not isinstance(rule, Private):
            yield rule.encoded()
            continue
        label = f"extensions.{rule.oid}"
        value = templates.render(rule.value, case.request)
        missing = value is None and rule.required
        case.judge(not missing, label, value, lambda rule=rule: _unknown(rule.value))
        if value is None or not _judge_patterns(case, label, rule, value):
            continue
        try:
            yield rule.encode(value)
        except ValueError as error:
            problem = str(error)
            case.judge(
                not problem,
                label,
                value,
                lambda problem=problem, rule=rule: (
                    f"The value of the extension {problem}.",
                    f"It must be of type {rule.type.value}; it comes from {rule.value}.",
                ),
            )


def _judge_attribute(case: Case, kind: AttributeType, value: str) -> None:
    problem = names.attribute_problem(kind, value)
    case.judge(
        problem is None,
        f"subject.{kind.name}",
        value,
        lambda: (f"The subject's {kind.name} {problem}.", f"Send a {kind.name} that fits."),
    )


def _computed(case: Case, rule: ValueRule, asked: Sequence[str]) -> list[str] | None:
    """Give the values to add; None when what must be computed cannot be, or is contradicted."""
    expected = _expected(case, rule)
    if expected is None:
        return None
    if expected:
        strange = next((value for value in asked if value not in expected), None)
        agrees = case.judge(
            strange is None,
            _label(rule),
            strange or expected[0],
            lambda: (
                f"The {_label(rule)} {excerpt(strange)} differs from what was sent beside it.",
                f"Leave the {_label(rule)} out, or send exactly {excerpt(', '.join(expected))}.",
            ),
        )
        return [value for value in expected if value not in asked] if agrees else None
    if asked or not rule.defaults:
        return []
    defaults = (templates.render(template, case.request) for template in rule.defaults)
    return [value for value in defaults if value]


def _expected(case: Case, rule: ValueRule) -> list[str] | None:
    """Compute what must stand there; None when that cannot be."""
    expected: list[str] = []
    for template in rule.values:
        value = templates.render(template, case.request)
        if not case.judge(
            value is not None, _label(rule), value, lambda template=template: _unknown(template)
        ):
            return None
        expected.append(value or "")
    if isinstance(rule, SubjectRule):
        if rule.device_id:
            expected += filter(None, (case.request.device,))
        elif rule.metadata_key and rule.metadata_key in case.request.metadata:
            expected.append(case.request.metadata[rule.metadata_key])
    return expected


def _label(rule: ValueRule) -> str:
    return getattr(rule, "label", "value")


def _unknown(template: str) -> tuple[str, str]:
    return (
        f"The profile computes a value from {template}, and a part of that is not known.",
        "Send what it needs, or have the device's record completed.",
    )


def _judge_values(case: Case, rule: ValueRule, values: Sequence[str]) -> None:
    if not rule.has_patterns:
        return
    label = _label(rule)
    for value in values:
        _judge_patterns(case, label, rule, value)
    for pattern in rule.required_patterns:
        case.judge(
            any(patterns.matches(pattern, value) for value in values),
            label,
            ", ".join(values),
            lambda pattern=pattern: (
                f"No {label} of the certificate would look like {pattern}.",
                f"Send a {label} that matches {pattern}.",
            ),
        )


def _judge_patterns(case: Case, label: str, rule: ValueRule | Private, value: str) -> bool:
    """Judge one value by what is allowed and what is forbidden."""
    allowed = not rule.allowed_patterns or any(
        patterns.matches(pattern, value) for pattern in rule.allowed_patterns
    )
    forbidden = next((one for one in rule.forbidden_patterns if patterns.matches(one, value)), None)
    return case.judge(
        allowed,
        label,
        value,
        lambda: (
            f"The {label} {excerpt(value)} does not look as the profile allows.",
            f"It must match {' or '.join(rule.allowed_patterns)}.",
        ),
    ) and case.judge(
        forbidden is None,
        label,
        value,
        lambda: (
            f"The {label} {excerpt(value)} looks as the profile forbids.",
            f"It must not match {forbidden}.",
        ),
    )


def _judge_count(case: Case, rule: ValueRule, count_max: int, count: int) -> None:
    label = _label(rule)
    case.judge(
        rule.required <= count <= count_max,
        label,
        count,
        lambda: (
            f"The certificate would hold {label} {count} times.",
            f"Send at least {int(rule.required)} and at most {count_max}.",
        ),
    )
