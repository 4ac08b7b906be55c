"""Keys of clients never run into each other."""

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from shared.enroll.rest.scope import Scope, scope_of
from shared.kernel.errors import BadRequestError

_KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)
_PRINCIPALS = st.from_regex(r"(station|user):[A-Za-z0-9._-]{1,64}", fullmatch=True)
_ROUTES = st.from_regex(r"POST /[a-z0-9_./-]{1,40}", fullmatch=True)
_SCOPES = st.builds(Scope, _PRINCIPALS, _ROUTES, _KEYS)
_INDEXES = st.none() | st.integers(0, 999)


def text(scope: Scope, index: int | None) -> str:
    return scope.text if index is None else scope.item(index).text


@given(one=_SCOPES, other=_SCOPES, index=_INDEXES, other_index=_INDEXES)
def test_different_scopes_have_different_texts(one, other, index, other_index):
    same = (one, index) == (other, other_index)
    assert (text(one, index) == text(other, other_index)) is same


@given(key=_KEYS)
def test_the_header_is_taken_as_it_is(key: str):
    request = make_mocked_request("POST", "/api/v2.0/x?y=1", {"Idempotency-Key": key})
    assert scope_of(request, "station:a") == Scope("station:a", "POST /api/v2.0/x", key)


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "\u00e4", "a\tb"])
def test_other_headers_are_refused(key: str):
    with pytest.raises(BadRequestError):
        scope_of(make_mocked_request("POST", "/", {"Idempotency-Key": key}), "station:a")


def test_without_the_header_there_is_no_scope():
    assert scope_of(make_mocked_request("POST", "/"), "station:a") is None
