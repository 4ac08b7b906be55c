"""What the pages say: every state has its sentence, the worst comes first."""

from dataclasses import replace

import pytest

from central.admin import words
from central.inventory.models import (
    CertificateLine,
    ConflictView,
    Dashboard,
    GatewayView,
    Totals,
)
from shared.pki.plan import NO_EXPIRY_US

_NOW_US = 1_800_000_000_000_000
_MINUTE_US = 60_000_000
_GATEWAY = GatewayView(
    name="gw-1",
    state="active",
    state_reason="",
    link="online",
    link_since_us=_NOW_US - 60 * _MINUTE_US,
    last_contact_us=_NOW_US - _MINUTE_US,
    backlog=0,
    applied=10,
    waiting=0,
    version="1",
    ca_id="00",
    created_at_us=0,
    join_expires_at_us=None,
)
_LINE = CertificateLine(
    1, "ca", "01", "gw-1", "issued", "good", "cn", "device", "tls-server", 0, _NOW_US + 1
)


@pytest.mark.parametrize(
    ("changes", "level", "part"),
    [
        ({}, "good", "Online since"),
        ({"link": "offline"}, "warn", "Offline since"),
        ({"last_contact_us": _NOW_US - 16 * _MINUTE_US}, "warn", "silent for 16 min"),
        ({"last_contact_us": None}, "warn", "silent"),
        ({"state": "invited", "join_expires_at_us": _NOW_US + 1}, "idle", "not joined yet"),
        ({"state": "invited", "join_expires_at_us": _NOW_US}, "warn", "invitation ended"),
        ({"state": "ended", "state_reason": "stolen"}, "idle", "Ended: stolen"),
        ({"state": "cloned", "state_reason": "Seen twice."}, "bad", "Seen twice."),
        ({"state": "restored"}, "bad", "old copy"),
        ({"state": "unknown"}, "bad", "lost its history"),
        ({"lacking": "events"}, "warn", "put back from a backup"),
    ],
)
def test_each_state_of_a_gateway_has_a_sentence(changes, level, part):
    remark = words.of_gateway(replace(_GATEWAY, **changes), _NOW_US)
    assert remark.level == level
    assert part in remark.sentence
    assert remark.remedy or level in {"good", "idle"}, "who is worried is told what to do"


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({}, "good", "good"),
        ({"status": "revoked"}, "bad", "revoked"),
        ({"status": "hold"}, "warn", "on hold"),
        ({"not_after_us": _NOW_US}, "idle", "expired"),
        ({"status": "revoked", "not_after_us": 0}, "bad", "revoked"),
        ({"state": "voided", "status": "revoked", "not_after_us": None}, "idle", "voided"),
    ],
)
def test_each_status_of_a_certificate_has_a_word(changes, level, text):
    remark = words.of_certificate(replace(_LINE, **changes), _NOW_US)
    assert (remark.level, remark.sentence) == (level, text)


def test_to_do_has_the_worst_first_and_nothing_when_all_is_well():
    totals = Totals(issued=0, announced=0, held=0, revoked=0, voided=0, refused=0)
    calm = Dashboard(totals=totals, gateways=[_GATEWAY], conflicts=[], quarantined=0)
    assert not words.questions(calm, _NOW_US)
    doubt = ConflictView(1, "quota-overdrawn", "gw-1", "ca/01", {}, 0)
    busy = replace(
        calm,
        gateways=[replace(_GATEWAY, link="offline"), replace(_GATEWAY, state="cloned")],
        conflicts=[doubt],
        quarantined=3,
    )
    found = words.questions(busy, _NOW_US)
    assert [remark.level for remark in found] == ["bad", "bad", "warn", "warn"]
    places = ("/gateways", "/quarantine", "/conflicts")
    assert all(remark.href.startswith(places) for remark in found)


def test_no_expiry_is_said_in_words():
    assert words.until_text(NO_EXPIRY_US) == "no expiry"
    assert words.until_text(1_800_000_000_000_000) == "2027-01-15 08:00:00 UTC"
