"""Which requests a browser may send with somebody's credentials."""

import pytest
from aiohttp.test_utils import make_mocked_request

from shared.kernel.errors import ForbiddenError
from shared.web.origin import require_own_page, require_same_origin

OWN = {"Host": "gw-01.example:9443"}


def allowed(check, method: str, headers: dict[str, str]) -> bool:
    try:
        check(make_mocked_request(method, "/", OWN | headers))
    except ForbiddenError:
        return False
    return True


@pytest.mark.parametrize(
    ("headers", "by_program", "by_session"),
    [
        ({}, True, False),
        ({"Sec-Fetch-Site": "same-origin"}, True, True),
        ({"Sec-Fetch-Site": "none"}, True, True),
        ({"Sec-Fetch-Site": "same-site"}, False, False),
        ({"Sec-Fetch-Site": "cross-site"}, False, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://gw-01.example:9443"}, False, False),
        ({"Origin": "http://gw-01.example:9443"}, True, True),
        ({"Origin": "https://gw-01.example:9443"}, False, False),
        ({"Origin": "http://gw-01.example"}, False, False),
        ({"Origin": "http://gw-01.example:9443.evil.example"}, False, False),
        ({"Origin": "null"}, False, False),
        ({"Origin": "http://["}, False, False),
    ],
)
def test_evidence(headers: dict[str, str], by_program: bool, by_session: bool):
    assert allowed(require_same_origin, "POST", headers) is by_program
    assert allowed(require_own_page, "POST", headers) is by_session
    assert allowed(require_same_origin, "GET", headers)
    assert allowed(require_own_page, "GET", headers)
