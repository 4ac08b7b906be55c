"""The decision: no plan breaks a rule, no refusal is incomplete, the same input the same answer."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from shared.kernel.clock import US_PER_SECOND, ClockQuality, Instant
from shared.pki import certificates, keys, names
from shared.pki.certificates import IssuerLimits
from shared.pki.plan import NO_EXPIRY_US, AltName, AltNameKind, NameAttribute, Plan, Pointers
from shared.policy.decide import Circumstances, Outcome, Refusal, decide, explain
from shared.policy.grant import Devices, Grant, SerialRange
from shared.policy.profile import ClockInDoubt, Profile, SubjectRule, TooLong
from shared.policy.request import INTERNAL, EnrollmentRequest, Operation
from shared.policy.rules import Effect
from shared.policy.shipped import SHIPPED
from tests.support.pki_hierarchy import DAY_US, NOW_US, Hierarchy, subject
from tests.support.policy_requests import decisions, public_key

SERVER, CLIENT, IDEVID = SHIPPED[:3]
HIERARCHY = Hierarchy()
ISSUER = IssuerLimits(NOW_US - DAY_US, NOW_US + 3650 * DAY_US, NOW_US + 365 * DAY_US)
GRANT = Grant(
    grant_id="grant-1",
    version=1,
    profiles=("tls-server", "tls-client"),
    quota=10,
    not_before_us=NOW_US - DAY_US,
    not_after_us=NOW_US + DAY_US,
    last_contact_max_s=3600,
    devices=Devices(
        listed=("special",), ranges=(SerialRange(prefix="SN-", first="0100", last="0299"),)
    ),
)


def circumstances(now_us: int = NOW_US, **changes) -> Circumstances:
    now = Instant(now_us, 0, "boot", changes.pop("quality", ClockQuality.NTP))
    return Circumstances(
        now=now, issuer=changes.pop("issuer", ISSUER), last_contact_us=changes.pop("last", NOW_US)
    )


def request(**changes) -> EnrollmentRequest:
    fields = {
        "operation": Operation.ENROLL,
        "protocol": "rest",
        "alias": "line-1",
        "profile": "tls-server",
        "principal": "station:one",
        "public_key": public_key(),
        "subject": subject("device-1.example"),
    }
    return EnrollmentRequest(**fields | changes)


def changed(profile: Profile, **changes) -> Profile:
    return Profile.from_document(profile.to_document() | changes)


ELSEWHERE = replace(circumstances(), issuer=None)
FORWARD = changed(SERVER, mode="forward")


def test_who_forwards_judges_all_but_what_only_the_signing_ca_knows():
    plan = planned(decide(FORWARD, GRANT, request(device_id="special"), ELSEWHERE))
    assert plan.not_after_us - NOW_US <= FORWARD.validity.days_max * DAY_US
    judged = explain(FORWARD, GRANT, request(device_id="special"), ELSEWHERE).verdicts
    verdicts = {one.rule: one for one in judged}
    assert (verdicts["mode"].outcome, verdicts["mode"].value) == (Outcome.PASSED, "forward")
    assert not {"clock", "issuer.window", "issuing_ca", "conditions.cas"} & verdicts.keys()
    by_ca = changed(FORWARD, conditions={"cas": ["issuing"], "stations": ["two"]}, issuing_ca="x")
    refused("conditions.stations", decide(by_ca, GRANT, request(device_id="special"), ELSEWHERE))
    refused("grant.devices", decide(FORWARD, GRANT, request(device_id="SN-9"), ELSEWHERE))
    made_here = request(device_id="special", key_made_here=True)
    refused("key.made_here", decide(FORWARD, GRANT, made_here, ELSEWHERE))
    planned(decide(FORWARD, GRANT, made_here, circumstances()))  # who signs itself need not wait


def test_who_signs_for_a_gateway_does_so_for_profiles_of_that_mode_only():
    asked = request(device_id="special", gateway="gw-7")
    planned(decide(FORWARD, GRANT, asked, circumstances()))
    refused("mode.forward", decide(SERVER, GRANT, asked, circumstances()))
    stock = changed(SERVER, mode="stock")
    refused("mode", decide(stock, GRANT, request(device_id="special"), circumstances()))
    inner = replace(asked, protocol=INTERNAL, device_id="nobody")
    refused("grant.devices", decide(FORWARD, GRANT, inner, circumstances()))


def refused(rule: str, outcome: Plan | Refusal) -> Refusal:
    assert isinstance(outcome, Refusal), outcome
    assert outcome.rule == rule, outcome
    return outcome


def planned(outcome: Plan | Refusal) -> Plan:
    assert isinstance(outcome, Plan), outcome
    return outcome


@given(decisions())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_plan_obeys_its_rules_and_every_refusal_is_complete(arguments):
    outcome = decide(*arguments)
    explained = explain(*arguments)
    assert outcome == decide(*arguments) == explained.outcome
    failed = [one for one in explained.verdicts if one.outcome is Outcome.FAILED]
    assert isinstance(outcome, Refusal) is bool(failed)
    if isinstance(outcome, Refusal):
        for said in (outcome, *failed):
            for text in (said.rule, said.value, said.message, said.remedy):
                assert text and text.isprintable() and len(text) < 1000
            assert said.message.endswith(".") and said.remedy.endswith(".")
        return
    profile, grant, wish, situation = arguments
    assert_times(outcome, profile, wish, situation)
    assert_names(outcome, profile, wish)
    if grant is not None:
        assert profile.name in grant.profiles
        assert grant.not_before_us <= situation.now.utc_us < grant.not_after_us
        assert grant.devices is None or wish.device in grant.devices
        assert grant.stations is None or wish.principal.removeprefix("station:") in grant.stations
        assert outcome.ca_path_length is None
    assert profile.conditions.holds(wish, situation)
    assert not profile.known_devices_only or wish.record
    assert ("key_cert_sign" in outcome.key_usage) is (outcome.ca_path_length is not None)
    assert_rules(profile, wish, situation)
    certificates.unsigned(outcome, HIERARCHY.gateway.issuer, 1)  # whatever is planned can be built


def assert_rules(profile: Profile, wish: EnrollmentRequest, situation: Circumstances):
    allowing = []
    for rule in situation.rules.rules:
        if rule.applies_to.holds(wish, situation):
            holds = rule.when.holds(wish, situation)
            assert holds if rule.effect is Effect.REQUIRE else True
            assert not holds if rule.effect is Effect.DENY else True
            allowing += [holds] if rule.effect is Effect.ALLOW else []
    assert any(allowing) or not allowing


def assert_times(plan: Plan, profile: Profile, wish: EnrollmentRequest, situation: Circumstances):
    issuer, now_us = situation.issuer, situation.now.utc_us
    assert issuer.not_before_us <= now_us < issuer.issue_until_us
    assert issuer.not_before_us <= plan.not_before_us <= now_us < plan.not_after_us + US_PER_SECOND
    assert plan.not_after_us <= issuer.not_after_us
    assert plan.not_before_us % US_PER_SECOND == plan.not_after_us % US_PER_SECOND == 0
    if profile.validity.days_max is None:
        assert plan.not_after_us in {NO_EXPIRY_US, issuer.not_after_us}
    else:
        days = min(wish.validity_days or profile.validity.days_default, profile.validity.days_max)
        assert plan.not_after_us <= now_us + days * DAY_US
    if situation.now.quality is ClockQuality.UNKNOWN:
        assert profile.validity.clock_in_doubt is not ClockInDoubt.HOLD


def assert_names(plan: Plan, profile: Profile, wish: EnrollmentRequest):
    held = [attribute.oid for attribute in plan.subject]
    for oid, rule in profile.subject_rules.items():
        assert rule.required <= held.count(oid) <= rule.count_max
    assert set(held) <= set(profile.subject_rules)
    kinds = [alt_name.kind for alt_name in plan.alt_names]
    for kind, rule in profile.alt_name_rules.items():
        assert rule.required <= kinds.count(kind) <= rule.count_max
    assert set(kinds) <= set(profile.alt_name_rules)
    assert plan.subject or plan.alt_names
    assert keys.key_type(plan.public_key) in profile.key_types
    assert wish.device or not profile.device_id_required
    for attribute in plan.subject:
        assert attribute.value.isprintable() and attribute.value.strip() == attribute.value


def test_the_brochure_call_is_clipped_to_the_profile():
    outcome = decide(
        SERVER,
        None,
        request(subject=subject("Certificate"), validity_days=3650),
        circumstances(),
    )
    plan = planned(outcome)
    assert plan.not_after_us == NOW_US + 825 * DAY_US
    assert plan.alt_names == (AltName(AltNameKind.DNS, "Certificate"),)


@pytest.mark.parametrize(
    ("common_name", "alt_names"),
    [
        ("host.example", (AltName(AltNameKind.DNS, "host.example"),)),
        ("10.0.0.1", (AltName(AltNameKind.IP, "10.0.0.1"),)),
        ("Press 7", ()),
    ],
)
def test_a_server_without_alternative_names_gets_its_host_name(common_name, alt_names):
    wish = request(subject=subject(common_name))
    assert planned(decide(SERVER, None, wish, circumstances())).alt_names == alt_names


def test_nothing_begins_before_its_issuer():
    plan = planned(decide(SERVER, None, request(), circumstances(ISSUER.not_before_us)))
    assert plan.not_before_us == ISSUER.not_before_us


def test_a_profile_may_refuse_what_it_would_clip():
    validity = {"days_default": 30, "days_max": 90, "too_long": "refuse"}
    strict = changed(SERVER, validity=validity)
    assert (
        refused(
            "validity.days", decide(strict, None, request(validity_days=91), circumstances())
        ).value
        == "91"
    )
    planned(decide(strict, None, request(validity_days=90), circumstances()))
    short = replace(ISSUER, not_after_us=NOW_US + 10 * DAY_US)
    refused("validity.issuer", decide(strict, None, request(), circumstances(issuer=short)))


def test_nothing_outlives_its_issuer():
    short = replace(ISSUER, not_after_us=NOW_US + 10 * DAY_US)
    plan = planned(decide(SERVER, None, request(), circumstances(issuer=short)))
    assert plan.not_after_us == short.not_after_us


@pytest.mark.parametrize(
    ("now_us", "allowed"),
    [
        (ISSUER.not_before_us - 1, False),
        (ISSUER.not_before_us, True),
        (ISSUER.issue_until_us - 1, True),
        (ISSUER.issue_until_us, False),
    ],
)
def test_the_issuer_issues_only_in_its_window(now_us, allowed):
    outcome = decide(SERVER, None, request(), circumstances(now_us))
    assert isinstance(outcome, Plan) is allowed
    if not allowed:
        refused("issuer.window", outcome)


def test_an_idevid_has_no_expiry_and_carries_its_serial_number():
    wish = request(profile="idevid", subject=subject("Drive 7"), device_id="SN-1")
    forever = replace(ISSUER, not_after_us=NO_EXPIRY_US)
    plan = planned(decide(IDEVID, None, wish, circumstances(issuer=forever)))
    assert plan.not_after_us == NO_EXPIRY_US
    assert plan.subject == subject("Drive 7", "SN-1")
    refused("validity.issuer", decide(IDEVID, None, wish, circumstances()))
    days = replace(wish, validity_days=3650)
    refused("validity.days", decide(IDEVID, None, days, circumstances(issuer=forever)))
    other = replace(wish, subject=subject("Drive 7", "SN-2"))
    refused("subject.serial_number", decide(IDEVID, None, other, circumstances(issuer=forever)))
    nobody = replace(wish, device_id=None)
    refused("device_id", decide(IDEVID, None, nobody, circumstances(issuer=forever)))


def test_the_clock_in_doubt_follows_the_profile():
    validity = SERVER.validity.to_document()
    doubt = circumstances(quality=ClockQuality.UNKNOWN)
    hold = changed(SERVER, validity=validity | {"clock_in_doubt": "hold"})
    refused("clock", decide(hold, None, request(), doubt))
    back_date = changed(SERVER, validity=validity | {"clock_in_doubt": "back_date"})
    assert planned(decide(back_date, None, request(), doubt)).not_before_us == ISSUER.not_before_us
    issued = planned(decide(SERVER, None, request(), doubt))
    assert issued.not_before_us == NOW_US - 300 * US_PER_SECOND


@pytest.mark.parametrize(
    ("rule", "profile", "changes"),
    [
        ("grant.profiles", IDEVID, {}),
        ("grant.window", SERVER, {"now_us": GRANT.not_after_us}),
        ("grant.window", SERVER, {"now_us": GRANT.not_before_us - 1}),
        ("grant.last_contact", SERVER, {"last": NOW_US - 3601 * US_PER_SECOND}),
        ("grant.last_contact", SERVER, {"last": NOW_US + 301 * US_PER_SECOND}),
        ("grant.last_contact", SERVER, {"last": None}),
    ],
)
def test_the_grant_is_the_leash(rule, profile, changes):
    wish = request(device_id="SN-0100")
    planned(decide(SERVER, GRANT, wish, circumstances()))
    refused(rule, decide(profile, GRANT, wish, circumstances(**changes)))


@pytest.mark.parametrize(
    ("device_id", "allowed"),
    [
        ("SN-0100", True),
        ("SN-0299", True),
        ("special", True),
        ("SN-0300", False),
        ("SN-0099", False),
        ("SN-01A0", False),
        ("SN-00100", False),
        ("SN-01000", False),
        ("XX-0100", False),
        ("SN-01\u0660\u0660", False),
        (None, False),
    ],
)
def test_the_grant_names_devices(device_id, allowed):
    outcome = decide(SERVER, GRANT, request(device_id=device_id), circumstances())
    assert isinstance(outcome, Plan) is allowed
    if not allowed:
        refused("grant.devices", outcome)


def test_what_a_grant_is_limited_to_does_not_keep_a_box_from_its_own_page():
    narrow = GRANT.model_copy(update={"profiles": ("idevid",), "stations": ("press-3",)})
    own = request(protocol=INTERNAL, principal="device:gw-07", alias="web")
    planned(decide(SERVER, narrow, own, circumstances()))
    ended = circumstances(now_us=narrow.not_after_us)
    refused("grant.window", decide(SERVER, narrow, own, ended))
    refused("grant.profiles", decide(SERVER, narrow, request(), circumstances()))


def test_metadata_goes_into_the_subject_only_where_the_profile_maps_it():
    rules = [
        SubjectRule(attribute="common_name").to_document(),
        {"attribute": "organizational_unit_name", "metadata_key": "line"},
    ]
    mapped = changed(SERVER, subject=rules)
    wish = request(metadata={"line": "Halle 3", "other": "x"})
    unit = NameAttribute(names.BY_NAME["organizational_unit_name"].oid.dotted_string, "Halle 3")
    assert planned(decide(mapped, None, wish, circumstances())).subject[1:] == (unit,)
    assert planned(decide(SERVER, None, wish, circumstances())).subject == wish.subject


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("key_types", {"public_key": public_key() + b"\x00"}),
        ("subject", {"subject": (NameAttribute("1.2.3", "x"),)}),
        ("subject", {"subject": ()}),
        ("subject.common_name", {"subject": subject("a\u202eb")}),
        ("subject.common_name", {"subject": subject("a\x00b")}),
        ("subject.common_name", {"subject": subject("a") * 2}),
        ("alt_names.email", {"alt_names": (AltName(AltNameKind.EMAIL, "a@b.example"),)}),
        ("alt_names.dns", {"alt_names": (AltName(AltNameKind.DNS, "*.example"),)}),
        ("alt_names.ip", {"alt_names": (AltName(AltNameKind.IP, "10.0.0.999"),)}),
        ("device_id", {"device_id": "a\nb"}),
        ("device_id", {"device_id": "x" * 65}),
        ("validity.days", {"validity_days": 0}),
        ("metadata", {"metadata": {str(number): "x" for number in range(33)}}),
        ("metadata", {"metadata": {"k": "x" * 257}}),
        ("metadata", {"metadata": {"k" * 65: "x"}}),
    ],
)
def test_each_rule_refuses_by_its_name(rule, changes):
    refused(rule, decide(SERVER, None, request(**changes), circumstances()))


@pytest.mark.parametrize(("used", "allowed"), [(None, True), ("sha256", False), ("sha512", True)])
def test_a_request_is_signed_with_the_hash_that_the_profile_wants(used, allowed):
    """None: EdDSA and ML-DSA hash by themselves, and keys made here need no request."""
    strict = changed(SERVER, csr_hash_min="sha384")
    outcome = decide(strict, None, request(csr_hash=used), circumstances())
    assert planned(outcome) if allowed else refused("csr_hash", outcome)


def test_the_profile_says_how_keys_are_named_and_where_status_is():
    addresses = {"crl_urls": ["http://pki.plant.example/{ca_id}.crl"], "ocsp_urls": []}
    forms = {"subject_key_identifier": "sha1", "authority_key_identifier": "key_and_issuer"}
    plan = planned(
        decide(changed(SERVER, pointers=addresses, **forms), None, request(), circumstances())
    )
    assert plan.pointers == Pointers(("http://pki.plant.example/{ca_id}.crl",), (), None)
    assert (plan.subject_key, plan.authority_key) == ("sha1", "key_and_issuer")


def test_a_required_attribute_must_be_there():
    wish = request(profile="tls-client", subject=subject("x", "SN-1")[1:])
    refused("subject.common_name", decide(CLIENT, None, wish, circumstances()))


def test_a_refusal_shows_hostile_text_without_its_control_characters():
    refusal = decide(SERVER, None, request(device_id="\x1b[31m" + "x" * 5000), circumstances())
    assert refused("device_id", refusal).value.isprintable()
    assert len(refusal.value) <= 128


def test_too_long_is_clip_unless_the_profile_says_otherwise():
    assert SERVER.validity.too_long is CLIENT.validity.too_long is TooLong.CLIP
