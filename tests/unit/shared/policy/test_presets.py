"""Presets and differences: pure, idempotent, never looser; and how serials become ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.errors import NotFoundError
from shared.policy import presets
from shared.policy.grant import Devices
from shared.policy.presets import Change, difference
from shared.policy.shipped import FIRST
from tests.support.policy_requests import profiles

#: What the field holds: these documents never change.
_PUBLISHED = {
    "tls-server": "0fa40365c08cf7ca1c4987a55b528d799f359a7025d3f1aeb34365e581bc1c2e",
    "tls-client": "1088c265df7f4ccc877a65a0c20ada10513a5ad8b72a3c47e3262097b85f3491",
    "idevid": "00b6f780b69d18a8db800a293e08b918c9c0a4aece8f116b2744976b1eae7d54",
}


def test_first_versions_keep_their_hashes():
    assert {one.name: one.sha256 for one in FIRST} == _PUBLISHED


@given(profiles(), st.sampled_from(sorted(presets.PRESETS)))
def test_a_preset_is_idempotent_and_never_looser(profile, name):
    chosen = presets.preset(name)
    changed = presets.applied(chosen, [profile])
    assert presets.applied(chosen, changed) == ()
    for new in changed:
        assert new.version == profile.version + 1
        assert set(new.key_types) <= set(profile.key_types)
        assert (new.validity.days_max or 0) <= (profile.validity.days_max or 0)
        assert new.known_devices_only >= profile.known_devices_only


def test_hardened_changes_what_it_says():
    [server] = presets.applied(presets.preset("hardened"), FIRST[:1])
    assert difference(FIRST[0].to_document(), server.to_document()) == [
        Change("validity.clock_in_doubt", None, "hold"),
        Change("validity.days_max", 825, 398),
        Change("validity.too_long", None, "refuse"),
        Change("version", 1, 2),
    ]
    with pytest.raises(NotFoundError, match="industrial"):
        presets.preset("paranoid")


def test_differences_name_members_of_lists():
    before = {"subject": [{"attribute": "common_name", "required": True}], "title": "A"}
    after = {"subject": [{"attribute": "common_name"}], "title": "A", "key_types": ["ec-p256"]}
    assert difference(before, after) == [
        Change("key_types", None, ["ec-p256"]),
        Change("subject.common_name.required", True, None),
    ]


@given(
    st.lists(
        st.one_of(st.from_regex(r"[A-B]-?[0-9]{1,4}", fullmatch=True), st.sampled_from(["x", "y"])),
        max_size=60,
    )
)
def test_devices_are_exactly_the_serials(serials):
    devices = Devices.of(serials)
    assert all(serial in devices for serial in serials)
    near = {f"{serial[:-1]}{digit}" for serial in serials for digit in "0123456789"}
    assert {serial for serial in near if serial in devices} == near & set(serials)
