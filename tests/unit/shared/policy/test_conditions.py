"""Conditions, computed values and rules: each part alone, at its boundaries."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from shared.kernel.clock import ClockQuality, Instant, utc_us_of
from shared.kernel.errors import BadRequestError
from shared.pki.certificates import IssuerLimits
from shared.pki.plan import AltName, AltNameKind, NameAttribute, Plan
from shared.policy import templates
from shared.policy.conditions import Condition, TimeWindow
from shared.policy.decide import Circumstances, Outcome, Refusal, decide, explain
from shared.policy.device import DeviceRecord
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest, Operation
from shared.policy.rules import RuleSet
from shared.policy.shipped import SHIPPED
from tests.support.policy_requests import public_key

SATURDAY_NIGHT = datetime(2026, 11, 28, 23, 30, tzinfo=UTC)
REQUEST = EnrollmentRequest(
    operation=Operation.ENROLL,
    protocol="rest",
    alias="line-1",
    profile="tls-client",
    principal="station:press-3",
    public_key=public_key(),
    subject=(NameAttribute("2.5.4.3", "pump"),),
    device_id="SN-1",
    metadata={"line": "7"},
    record=DeviceRecord("SN-1", product="P100", metadata={"colour": "red"}),
)
CLIENT = SHIPPED[1]


def around(moment: datetime = SATURDAY_NIGHT, rules: dict | None = None) -> Circumstances:
    now_us = utc_us_of(moment)
    limits = IssuerLimits(0, now_us * 2, now_us * 2)
    found = RuleSet.from_document({"rules": rules or []})
    now = Instant(now_us, 0, "boot", ClockQuality.NTP)
    return Circumstances(now, limits, None, ca_id="ab12", ca_role="issuing", rules=found)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({}, True),
        ({"principals": ["station"]}, True),
        ({"principals": ["user", "cert"]}, False),
        ({"stations": ["press-3"], "aliases": ["line-1"], "protocols": ["rest"]}, True),
        ({"stations": ["press-4"]}, False),
        ({"cas": ["issuing"]}, True),
        ({"cas": ["ab12"], "operations": ["enroll"]}, True),
        ({"cas": ["cd34"]}, False),
        ({"metadata": [{"key": "line", "equals": "7"}]}, True),
        ({"metadata": [{"key": "line", "one_of": ["8", "9"]}]}, False),
        ({"metadata": [{"key": "line", "pattern": "[0-9]"}]}, True),
        ({"metadata": [{"key": "shift"}]}, False),
        ({"device": [{"key": "product", "pattern": "P[0-9]+"}, {"key": "colour"}]}, True),
        ({"device": [{"key": "order"}]}, False),
        ({"times": [{"days": ["sat"], "start": "22:00", "end": "06:00"}]}, True),
        ({"times": [{"days": ["sun"], "start": "22:00", "end": "06:00"}]}, False),
        ({"not_before_us": utc_us_of(SATURDAY_NIGHT)}, True),
        ({"not_after_us": utc_us_of(SATURDAY_NIGHT)}, False),
    ],
)
def test_a_condition_holds_if_all_its_parts_do(condition, holds):
    document = Condition.from_document(condition)
    assert document.holds(REQUEST, around()) is holds
    profile = Profile.from_document(CLIENT.to_document() | {"conditions": condition})
    outcome = decide(profile, None, REQUEST, around())
    assert isinstance(outcome, Plan) is holds
    if isinstance(outcome, Refusal):
        assert outcome.rule.startswith("conditions.")


@pytest.mark.parametrize(
    ("days", "moment", "inside"),
    [
        (("sat",), datetime(2026, 11, 28, 22, 0, tzinfo=UTC), True),
        (("sat",), datetime(2026, 11, 29, 5, 59, tzinfo=UTC), True),  # the night after Saturday
        (("sat",), datetime(2026, 11, 29, 6, 0, tzinfo=UTC), False),
        (("sat",), datetime(2026, 11, 28, 5, 0, tzinfo=UTC), False),  # the night after Friday
        (("mon",), datetime(2026, 11, 30, 23, 59, tzinfo=UTC), True),
    ],
)
def test_a_night_belongs_to_the_day_on_which_it_begins(days, moment, inside):
    assert (moment in TimeWindow(days=days, start="22:00", end="06:00")) is inside


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("urn:{device.id}:{metadata.line}", "urn:SN-1:7"),
        ("{request.cn}.{device.product}.{device.colour}", "pump.P100.red"),
        ("{request.principal}", "station:press-3"),
        ("{metadata.shift}", None),
        ("{device.order}", None),
        ("plain", "plain"),
    ],
)
def test_values_are_computed(template, value):
    assert templates.render(template, REQUEST) == value


@pytest.mark.parametrize(
    "template", ["{", "}", "{x}", "{request.password}", "{os.environ}", "{a.b"]
)
def test_templates_that_say_nothing_known_are_refused(template):
    document = CLIENT.to_document()
    document["subject"] = [{"attribute": "common_name", "values": [template]}]
    with pytest.raises(BadRequestError, match="template"):
        Profile.from_document(document)


def test_computed_values_stand_and_nothing_else_may_be_asked_for():
    document = CLIENT.to_document() | {
        "subject": [
            {"attribute": "common_name", "values": ["{device.product}-{device.id}"]},
            {"attribute": "organization_name", "defaults": ["Plant {metadata.line}"]},
        ],
        "alt_names": [{"kind": "uri", "values": ["urn:plant:{device.id}"]}],
    }
    profile = Profile.from_document(document)
    wish = replace(REQUEST, subject=())
    plan = decide(profile, None, wish, around())
    assert isinstance(plan, Plan)
    assert [item.value for item in plan.subject] == ["P100-SN-1", "Plant 7"]
    assert plan.alt_names == (AltName(AltNameKind.URI, "urn:plant:SN-1"),)
    contradicted = decide(profile, None, REQUEST, around())
    assert isinstance(contradicted, Refusal) and contradicted.rule == "subject.common_name"
    unknown = decide(profile, None, replace(wish, record=None), around())
    assert isinstance(unknown, Refusal) and "{device.product}" in unknown.message


DENY = {"name": "no-nights", "title": "No nights", "effect": "deny", "remedy": "Come tomorrow."}


@pytest.mark.parametrize(
    ("rules", "refused_by"),
    [
        ([DENY | {"when": {"times": [{"start": "22:00", "end": "06:00"}]}}], "rules.no-nights"),
        ([DENY | {"applies_to": {"profiles": ["tls-server"]}}], None),
        ([DENY | {"effect": "require", "when": {"stations": ["press-3"]}}], None),
        ([DENY | {"effect": "require", "when": {"stations": ["x"]}}], "rules.no-nights"),
        (
            [
                {"name": "a", "title": "A", "effect": "allow", "when": {"stations": ["x"]}},
                {"name": "b", "title": "B", "effect": "allow", "when": {"stations": ["press-3"]}},
            ],
            None,
        ),
        (
            [
                {"name": "a", "title": "A", "effect": "allow", "when": {"stations": ["x"]}},
                {"name": "b", "title": "B", "effect": "allow", "when": {"stations": ["y"]}},
            ],
            "rules.a",
        ),
        (
            [
                {
                    "name": "a",
                    "title": "A",
                    "effect": "allow",
                    "applies_to": {"cas": ["other"]},
                    "when": {"stations": ["x"]},
                }
            ],
            None,
        ),
    ],
)
def test_rules_bind_whatever_the_profile_says(rules, refused_by):
    outcome = decide(CLIENT, None, REQUEST, around(rules=rules))
    if refused_by is None:
        assert isinstance(outcome, Plan)
    else:
        assert isinstance(outcome, Refusal) and outcome.rule == refused_by


def test_an_explanation_names_every_rule_and_all_that_is_wrong():
    wish = replace(REQUEST, public_key=b"", subject=(NameAttribute("2.5.4.3", "a\x00"),))
    told = explain(CLIENT, None, wish, around())
    failed = [one.rule for one in told.verdicts if one.outcome is Outcome.FAILED]
    assert failed == ["key_types", "subject.common_name"]
    assert isinstance(told.outcome, Refusal) and told.outcome.rule == "key_types"
    skipped = [one.rule for one in told.verdicts if one.outcome is Outcome.NOT_REACHED]
    assert skipped == ["alt_names", "extensions"]
    assert {"issuer.window", "device_id", "validity.days"} <= {one.rule for one in told.verdicts}


def test_documents_refuse_what_cannot_be_meant():
    for wrong in ({"start": "25:00"}, {"start": "7:00"}, {"days": []}):
        with pytest.raises(ValidationError):
            TimeWindow.model_validate_json(str(wrong).replace("'", '"'))
    with pytest.raises(BadRequestError, match="one rule twice"):
        RuleSet.from_document({"rules": [DENY, DENY]})
