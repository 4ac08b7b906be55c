"""Templates, macros and what surrounds a page."""

import re

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import NotFoundError, UnauthenticatedError
from shared.web.pages import Pages, age_text, utc_text

PAGES = Pages(product="TMA Test", version="1.2", login_path="/login")


def test_a_page_has_strict_headers_and_nothing_inline():
    answer = PAGES.error(make_mocked_request("GET", "/x"), NotFoundError("Not here."))
    assert answer.status == 404
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=", answer.text)
    assert "Not here." in answer.text


@given(text=st.text(min_size=1))
def test_everything_is_escaped(text: str):
    hostile = f"<script>alert(1)</script>{text}"
    answer = PAGES.error(make_mocked_request("GET", "/"), NotFoundError(hostile))
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("GET", "/gateways?page=2", "/login?next=/gateways%3Fpage%3D2"),
        ("POST", "/gateways", "/login?next=/"),
    ],
)
def test_who_is_not_logged_in_is_sent_there(method: str, path: str, target: str):
    answer = PAGES.error(make_mocked_request(method, path), UnauthenticatedError("Log in."))
    assert answer.status == 303
    assert answer.headers["Location"] == answer.headers["HX-Redirect"] == target


def test_a_name_that_is_missing_is_a_defect():
    with pytest.raises(UndefinedError):
        PAGES.render("shared.web/error.html", {})


@given(utc_us=st.integers(0, 250_000_000_000 * US_PER_SECOND))
def test_times_read_back(utc_us: int):
    assert re.fullmatch(r"\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d UTC", utc_text(utc_us))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "\N{EN DASH}"), (-3, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"),
     (86_400 * 3, "3 d")],
)  # fmt: skip
def test_ages(seconds: float | None, text: str):
    assert age_text(seconds) == text
