"""Bodies in, bodies out: JSON is parsed once, by the model that says what is allowed."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, to_json

from shared.kernel.errors import BadRequestError, TmaError
from shared.web import problems
from shared.web.problems import HttpError, InvalidFieldsError

_MEDIA_TYPES = frozenset({"application/json", "application/vnd.api+json"})
_FIELDS_SHOWN_MAX = 20
_HTTP_UNSUPPORTED_MEDIA_TYPE = 415

Model = TypeVar("Model", bound=BaseModel)


def require_json(request: web.Request) -> None:
    """Raise HttpError 415 unless the body is said to be JSON; a web form cannot say that."""
    if request.content_type not in _MEDIA_TYPES:
        raise HttpError(
            _HTTP_UNSUPPORTED_MEDIA_TYPE, "Send Content-Type: application/json with the body."
        )


def parse(model: type[Model], body: bytes) -> Model:
    """Validate a JSON body; raises InvalidFieldsError with a pointer for each wrong field."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(details(error)) from error


def details(error: ValidationError) -> list[ErrorDetails]:
    """List what is wrong, without what was sent: it may be a password."""
    return error.errors(include_url=False, include_input=False, include_context=False)


def invalid(wrong: Iterable[ErrorDetails], prefix: str = "") -> BadRequestError:
    """Say which fields are wrong; ``prefix`` is the JSON pointer of what was validated."""
    fields = [
        (prefix + "".join(f"/{step}" for step in detail["loc"]), f"{detail['msg']}.")
        for detail in wrong
    ]
    return InvalidFieldsError(fields[:_FIELDS_SHOWN_MAX])


def encode(document: Mapping[str, Any]) -> bytes:
    """Encode as JSON in UTF-8."""
    return to_json(document)


def answer(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with an encoded document."""
    return web.Response(
        body=body,
        status=status,
        content_type="application/json",
        headers={**problems.API_HEADERS, **(headers or {})},
    )


def item_problem(error: TmaError, index: int) -> dict[str, Any]:
    """Describe what is wrong with one item of a batch, with pointers into the batch."""
    problem = problems.document(error)
    for field in problem.get("errors", ()):
        pointer: str = field["pointer"]
        field["pointer"] = pointer.replace("/data", f"/data/{index}", 1)
    return problem
