"""Roles by scope: what a right covers, and that lists and single questions agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.errors import BadRequestError
from shared.policy.rights import (
    EVERYWHERE,
    ROLES,
    WHOLE,
    Permission,
    Place,
    Right,
    Scope,
    allowed,
    permissions_of,
    require_role_name,
    scopes,
)

_NAMES = ("tenant", "ca", "profile", "line", "serial")
_VALUES = st.none() | st.sampled_from("ab")
_SCOPES = st.builds(Scope, **dict.fromkeys(_NAMES, _VALUES))
_PLACES = st.builds(Place, **dict.fromkeys(_NAMES, _VALUES))
_RIGHTS = st.lists(st.builds(Right.of, st.sampled_from(sorted(ROLES)), _SCOPES), max_size=4)


@given(scope=_SCOPES)
def test_a_scope_is_read_as_it_is_written(scope: Scope):
    assert Scope.parse(scope.text) == scope


@given(scope=_SCOPES, place=_PLACES)
def test_a_scope_covers_what_has_all_that_it_names(scope: Scope, place: Place):
    expected = all(getattr(scope, name) in {None, getattr(place, name)} for name in _NAMES)
    assert scope.covers(place) == expected


@given(first=_SCOPES, second=_SCOPES, place=_PLACES)
def test_within_two_scopes_is_what_both_cover(first: Scope, second: Scope, place: Place):
    both = first.within(second)
    covered = both is not None and both.covers(place)
    assert covered == (first.covers(place) and second.covers(place))


@given(rights=_RIGHTS, permission=st.sampled_from(Permission), place=_PLACES)
def test_lists_show_what_single_questions_allow(rights, permission, place):
    in_a_list = any(scope.covers(place) for scope in scopes(rights, permission))
    assert in_a_list == allowed(rights, permission, place)


@given(rights=_RIGHTS, permission=st.sampled_from(Permission), place=_PLACES, limit=_SCOPES)
def test_narrowing_never_allows_more(rights, permission, place, limit):
    only = frozenset({Permission.CERTIFICATE_READ})
    left = [one for right in rights if (one := right.narrowed(only, limit))]
    expected = permission in only and limit.covers(place) and allowed(rights, permission, place)
    assert allowed(left, permission, place) == expected


def test_a_right_for_a_line_reaches_neither_others_nor_the_whole():
    officer = [Right.of("ra-officer", Scope(line="a"))]
    revoke = Permission.CERTIFICATE_REVOKE
    assert allowed(officer, revoke, Place(line="a", profile="x", ca="1", serial="2"))
    assert not allowed(officer, revoke, Place(line="b", profile="x"))
    assert not allowed(officer, revoke, Place(profile="x"))
    assert not allowed(officer, revoke, WHOLE)


def test_nothing_is_allowed_to_nobody():
    assert not any(allowed([], permission, WHOLE) for permission in Permission)
    assert not any(scopes([], permission) for permission in Permission)


def test_roles():
    assert ROLES["admin"] == set(Permission)
    assert {one.rpartition(".")[2] for one in ROLES["auditor"]} == {"read"}
    assert scopes([Right.of("admin")], Permission.USER_WRITE) == (EVERYWHERE,)
    for role in set(ROLES) - {"admin"}:
        assert Permission.USER_WRITE not in ROLES[role]
        assert Permission.GATEWAY_END not in ROLES[role]


@pytest.mark.parametrize(
    "text",
    ["", "x", "line", "line=", "line=a,line=b", "planet=x", "line=a b", "*,line=a"],
)
def test_what_is_no_scope(text: str):
    with pytest.raises(BadRequestError):
        Scope.parse(text)


@pytest.mark.parametrize("name", ["admin", "Admin", "", "a b", "9", "x" * 65])
def test_names_that_no_new_role_has(name: str):
    with pytest.raises(BadRequestError):
        require_role_name(name)


def test_unknown_permissions_are_named():
    with pytest.raises(BadRequestError, match=r"world\.end"):
        permissions_of(["certificate.read", "world.end"])
