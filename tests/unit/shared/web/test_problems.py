"""Errors become RFC 9457 documents, all in the same way."""

import json
from collections.abc import Iterator

import pytest
from aiohttp import web

from shared.kernel import errors
from shared.kernel.errors import RefusedError, TmaError, UnavailableError
from shared.web import problems
from shared.web.problems import InvalidFieldsError


def family(base: type[TmaError]) -> Iterator[type[TmaError]]:
    yield base
    for derived in base.__subclasses__():
        yield from family(derived)


PLAIN = sorted(
    {kind for kind in family(TmaError) if kind.__init__ is TmaError.__init__},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", PLAIN)
def test_every_error_is_rendered(kind: type[TmaError]):
    answer = problems.response(kind("It did not work.", pointer="/data"))
    document = json.loads(answer.body)
    assert answer.status == document["status"] == kind.http_status
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert document["code"] == kind.code
    assert document["type"].endswith(kind.code)
    assert document["detail"] == "It did not work."
    assert document["remedy"] == kind.__doc__
    assert document["errors"] == [{"pointer": "/data", "detail": "It did not work."}]


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (7.6, "8"), (30, "30")])
def test_retry_after_is_whole_seconds(seconds: float, header: str):
    answer = problems.response(UnavailableError("Later.", retry_after_s=seconds))
    assert answer.headers["Retry-After"] == header


def test_a_refusal_names_its_rule_and_not_its_value():
    document = problems.document(RefusedError("subject.cn", "x", "No.", "Ask."))
    assert (document["rule"], document["remedy"]) == ("subject.cn", "Ask.")


def test_each_wrong_field_is_listed():
    error = InvalidFieldsError([("/a", "A is wrong."), ("/b", "B is wrong.")])
    assert problems.document(error)["errors"] == [
        {"pointer": "/a", "detail": "A is wrong."},
        {"pointer": "/b", "detail": "B is wrong."},
    ]
    assert isinstance(error, errors.BadRequestError)


@pytest.mark.parametrize(
    "raised", [web.HTTPNotFound(text="internal"), web.HTTPMethodNotAllowed("GET", ["POST"])]
)
def test_what_the_library_raises_is_rendered_in_our_words(raised: web.HTTPException):
    document = problems.document(problems.from_http(raised))
    assert document["status"] == raised.status
    assert "internal" not in json.dumps(document)
