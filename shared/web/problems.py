"""The one place where an error becomes an answer: RFC 9457 problem details, or a page of it."""

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from shared.kernel.errors import BadRequestError, RefusedError, TmaError

_LOG = logging.getLogger(__name__)

_TYPE_PREFIX = "urn:tma-edge:problem:"
#: No answer of an API may be kept by a cache or be guessed to be something else than it says.
API_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class InvalidFieldsError(BadRequestError):
    """Correct each field that the answer lists; nothing was done."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        """Take (JSON pointer, sentence) of every field that is wrong; at least one."""
        pointer, detail = fields[0]
        more = f" {len(fields) - 1} more fields are wrong too." if len(fields) > 1 else ""
        super().__init__(f"{detail}{more}", pointer=pointer)
        self.fields = tuple(fields)


class HttpError(TmaError):
    """Look up the address, method and media type in the API's documentation."""

    def __init__(self, http_status: int, message: str) -> None:
        """Take a status that the HTTP layer itself answers (404, 405, 413, 415 ...)."""
        super().__init__(message)
        self.http_status = http_status
        self.code = HTTPStatus(http_status).phrase.lower().replace(" ", "-")


class IncidentError(TmaError):
    """Try again; if it stays, give the incident number to support, who find it in the log."""


def document(error: TmaError) -> dict[str, Any]:
    """Describe an error as RFC 9457 §3 problem details; ``errors`` names the fields."""
    problem: dict[str, Any] = {
        "type": _TYPE_PREFIX + error.code,
        "title": HTTPStatus(error.http_status).phrase,
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "remedy": error.remedy or type(error).__doc__,
    }
    if isinstance(error, InvalidFieldsError):
        problem["errors"] = [{"pointer": at, "detail": why} for at, why in error.fields]
    elif error.pointer:
        problem["errors"] = [{"pointer": error.pointer, "detail": error.message}]
    if isinstance(error, RefusedError):
        problem["rule"] = error.rule
    return problem


def headers(error: TmaError) -> dict[str, str]:
    """Give the headers that go with an error: Retry-After in whole seconds, the 401 challenge."""
    extra = dict(API_HEADERS)
    if error.retry_after_s is not None:
        extra["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        extra["WWW-Authenticate"] = 'Bearer realm="tma-edge"'
    return extra


def response(error: TmaError) -> web.Response:
    """Render an error for a program."""
    return web.Response(
        status=error.http_status,
        body=json.dumps(document(error), ensure_ascii=False).encode(),
        content_type="application/problem+json",
        headers=headers(error),
    )


def from_http(error: web.HTTPException) -> TmaError:
    """Translate what aiohttp itself answers; its texts are not shown."""
    sentences = {
        404: "There is nothing at this address.",
        405: "This address does not accept this method.",
        413: "The request is larger than this address accepts.",
        415: "This address does not accept this media type.",
    }
    fallback = HTTPStatus(error.status).phrase + "."
    return HttpError(error.status, sentences.get(error.status, fallback))


def incident(error: BaseException, incident_id: str) -> TmaError:
    """Log a defect with its stack trace and give the client its number only."""
    _LOG.error("Incident %s", incident_id, exc_info=error)
    return IncidentError(
        f"Something unexpected went wrong; it is logged as incident {incident_id}."
    )
