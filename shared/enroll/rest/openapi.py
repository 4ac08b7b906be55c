"""The OpenAPI 3.1 document, made from the route table and the models that validate."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared.enroll.rest.rendering import BASE
from shared.issuance.ports import CertificateStatus
from shared.kernel import limits
from shared.policy.case import Outcome

_TEMPLATE = "#/components/schemas/{model}"
_JSON = "application/json"
_TIME = {"type": "string", "format": "date-time"}
TEXT: Mapping[str, Any] = {"type": "string"}
_TEXT = dict(TEXT)
_TEXT_OR_NULL = {"type": ["string", "null"]}
_TIME_OR_NULL = {"type": ["string", "null"], "format": "date-time"}
_ERRORS = {
    400: "The request is malformed; `errors` points at the fields.",
    401: "No valid token or client certificate.",
    403: "Not allowed, by the requester's rights or by a rule of profile or grant.",
    404: "There is nothing of this name here.",
    409: "The present state does not allow it.",
    413: "Too large.",
    422: "The Idempotency-Key was used for another content.",
    429: "Too many failed attempts; see Retry-After.",
    503: "Not possible now; nothing was issued, see Retry-After.",
}


_WAITING: dict[str, Any] = {
    "description": "Central signs; ask again after Retry-After, or what Location names.",
    "content": {_JSON: {"schema": {"$ref": _TEMPLATE.format(model="Enrollment")}}},
}


class Described(Protocol):
    """What a route says about itself."""

    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def summary(self) -> str: ...  # noqa: D102
    @property
    def answer(self) -> str: ...  # noqa: D102
    @property
    def status(self) -> int: ...  # noqa: D102
    @property
    def body(self) -> type[BaseModel] | None: ...  # noqa: D102
    @property
    def query(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def waits(self) -> bool: ...  # noqa: D102
    @property
    def schema(self) -> Mapping[str, Any] | None: ...  # noqa: D102
    @property
    def takes(self) -> str: ...  # noqa: D102
    @property
    def gives(self) -> str: ...  # noqa: D102


def document(routes: Sequence[Described]) -> dict[str, Any]:
    """Describe these routes."""
    bodies = {route.body for route in routes if route.body is not None}
    references, definitions = models_json_schema(
        [(body, "validation") for body in sorted(bodies, key=lambda body: body.__name__)],
        ref_template=_TEMPLATE,
    )
    own = {route.answer: dict(route.schema) for route in routes if route.schema is not None}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        body = references[route.body, "validation"] if route.body else None
        paths.setdefault(BASE + route.path, {})[route.method.lower()] = _operation(route, body)
    return {
        "openapi": "3.1.0",
        "info": {"title": "TMA Edge", "version": "2.0"},
        "paths": paths,
        "components": {
            "schemas": {**definitions.get("$defs", {}), **_answers(), **own},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
        "security": [{"token": []}, {"certificate": []}],
    }


def _operation(route: Described, body: Any) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done."}
    if route.status != HTTPStatus.NO_CONTENT:
        done["content"] = {route.gives: {"schema": _reference(route.answer)}}
    answers = {str(route.status): done}
    if route.waits:
        answers["202"] = _WAITING
    problem = {"application/problem+json": {"schema": _reference("Problem")}}
    for status, description in _ERRORS.items():
        answers[str(status)] = {"description": description, "content": problem}
    name = re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_")
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": answers,
    }
    if body is not None or route.takes != _JSON:
        content = {route.takes: {"schema": body or _TEXT}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: Described) -> list[dict[str, Any]]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [{"name": name, "in": "query", "schema": _TEXT} for name in route.query]
    if route.method == "POST":
        key = {"type": "string", "maxLength": limits.IDEMPOTENCY_KEY_CHARS_MAX}
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "schema": key,
                "description": "A retry with the same key and body gets the same answer.",
            }
        )
    return parameters


def _answers() -> dict[str, Any]:
    """Describe what is answered; the handlers build it without models because that is cheaper."""
    certified = {
        "certificate": _TEXT,
        "chain": _TEXT,
        "ca_id": _TEXT,
        "serial": _TEXT,
        "sha256": _TEXT,
        "not_before": _TIME,
        "not_after": _TIME,
    }
    certificate = {
        **dict.fromkeys(("ca_id", "serial", "state", "origin"), _TEXT),
        "status": {"enum": [status.value for status in CertificateStatus]},
        **dict.fromkeys(
            ("cn", "device_id", "profile", "principal", "protocol", "sha256", "reason", "replaces"),
            _TEXT_OR_NULL,
        ),
        "test": {"type": "boolean"},
        "issued_at": _TIME,
        **dict.fromkeys(("not_before", "not_after", "revoked_at"), _TIME_OR_NULL),
        "metadata": {"type": "object", "additionalProperties": _TEXT},
    }
    pem = {"certificate": _TEXT, "chain": _TEXT}
    keys = {"private_key": _TEXT, "pkcs12": _TEXT, "der": _TEXT, "pkcs7": _TEXT}
    authority = {**dict.fromkeys(("name", "kind", "state", "certificate"), _TEXT)}
    result = _object({"status": {"type": "integer"}, "data": {}, "problem": _reference("Problem")})
    result["required"] = ["status"]
    return {
        "Certified": _single(certified, keys),
        "Certificate": _single(certificate, pem),
        "Enrollment": _single({"state": {"enum": ["waiting"]}, "detail": _TEXT}, {}),
        "CertificatePage": _page(_resource(certificate, {}), links=True),
        "BatchResults": _page(result),
        "Profiles": _page(_resource({}, {})),
        "Cas": _page(_resource({**authority, "not_after": _TIME}, {})),
        "Operation": _single(_operation_answer(), {}),
        "SyncLanes": _page(_resource(_sync_lane(), {})),
        "Status": _single({}, {}),
        "Decision": _single(_decision(), {}),
        "Schema": {"type": "object"},
        "Policy": _object({"data": {}}),
        "Problem": _problem(),
    }


def _operation_answer() -> dict[str, Any]:
    number = {"type": "integer"}
    return {
        "state": {"enum": ["waiting", "running", "done", "cancelled"]},
        **dict.fromkeys(("found", "revoked"), number),
        **dict.fromkeys(("reason", "actor"), _TEXT),
        "filter": {"type": "object"},
        **dict.fromkeys(("created_at", "updated_at"), _TIME),
    }


def _sync_lane() -> dict[str, Any]:
    number = {"type": "integer"}
    return {
        **dict.fromkeys(("gateway", "direction", "segment", "lane", "state", "waits"), _TEXT),
        **dict.fromkeys(("head", "sent", "applied", "archived", "waiting", "unarchived"), number),
        "oldest_at": _TIME_OR_NULL,
    }


def _decision() -> dict[str, Any]:
    said: dict[str, Any] = dict.fromkeys(("rule", "value", "message", "remedy"), _TEXT)
    outcomes = [outcome.value for outcome in Outcome]
    verdict = _object({**said, "outcome": {"enum": outcomes}})
    return {
        "outcome": {"enum": ["issue", "refuse"]},
        "refusal": {"anyOf": [_object(said), {"type": "null"}]},
        "verdicts": {"type": "array", "items": verdict},
        "certificate": {"type": ["object", "null"]},
    }


def _problem() -> dict[str, Any]:
    field = _object({"pointer": _TEXT, "detail": _TEXT})
    required = {
        **dict.fromkeys(("type", "title", "detail", "code", "remedy"), _TEXT),
        "status": {"type": "integer"},
    }
    problem = _object(required)
    problem["properties"] |= {"errors": {"type": "array", "items": field}, "rule": _TEXT}
    return problem


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _resource(required: dict[str, Any], optional: dict[str, Any]) -> dict[str, Any]:
    attributes = _object(required)
    attributes["properties"] |= optional
    return _object({"type": _TEXT, "id": _TEXT, "attributes": attributes})


def _single(required: dict[str, Any], optional: dict[str, Any]) -> dict[str, Any]:
    return _object({"data": _resource(required, optional)})


def listed(attributes: Mapping[str, Any], *, links: bool = False) -> dict[str, Any]:
    """Describe a list of resources with these attributes, for a route that is no REST of all."""
    return _page(_resource(dict(attributes), {}), links=links)


def single(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Describe one resource with these attributes."""
    return _single(dict(attributes), {})


def _page(item: dict[str, Any], *, links: bool = False) -> dict[str, Any]:
    page = _object({"data": {"type": "array", "items": item}})
    if links:
        page["properties"]["links"] = _object({"self": _TEXT})
        page["properties"]["links"]["properties"]["next"] = _TEXT
    return page


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(model=name)}
