"""Values computed from what is known of a request: text with ``{source.field}`` in it.

There are no expressions. Sources are ``request`` (a subject attribute, ``cn``, ``device_id``,
``profile``, ``alias``, ``protocol``, ``principal``), ``device`` (``id``, which is the request's,
or a field of its record) and ``metadata`` (a key of the request's metadata).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, Field

from shared.pki import names
from shared.policy.request import EnrollmentRequest

_TEMPLATE_CHARS_MAX = 512
_PART = re.compile(r"\{(?P<source>[a-z]+)\.(?P<field>[^{}]{1,64})\}|(?P<literal>[^{}]+)")
_PLAIN_FIELDS = ("device_id", "profile", "alias", "protocol", "principal")
_SOURCES = ("request", "device", "metadata")


@dataclass(frozen=True, slots=True)
class _Field:
    source: str
    name: str


@lru_cache(maxsize=1_024)
def _parts(template: str) -> tuple[str | _Field, ...]:
    parts: list[str | _Field] = []
    at = 0
    while at < len(template):
        match = _PART.match(template, at)
        if match is None:
            raise ValueError("holds a brace that is not part of {source.field}")
        if match["literal"]:
            parts.append(match["literal"])
        else:
            parts.append(_field(match["source"], match["field"]))
        at = match.end()
    return tuple(parts)


def _field(source: str, name: str) -> _Field:
    if source not in _SOURCES:
        raise ValueError(f"may use {', '.join(_SOURCES)}, not “{source}”")
    if source == "request":
        name = "common_name" if name == "cn" else name
        if name not in _PLAIN_FIELDS and name not in names.BY_NAME:
            known = ", ".join(("cn", *_PLAIN_FIELDS, *names.BY_NAME))
            raise ValueError(f"may use of the request {known}, not “{name}”")
    return _Field(source, name)


def render(template: str, request: EnrollmentRequest) -> str | None:
    """Compute the value; None when something that it names is not known or empty."""
    texts = [part if isinstance(part, str) else _value(part, request) for part in _parts(template)]
    return "".join(text for text in texts if text) if all(texts) else None


def is_constant(template: str) -> bool:
    """Tell if the value is the same for every request."""
    return all(isinstance(part, str) for part in _parts(template))


def _value(wanted: _Field, request: EnrollmentRequest) -> str | None:
    match wanted.source, wanted.name:
        case "metadata", key:
            return request.metadata.get(key)
        case "device", "id":
            return request.device
        case "device", name:
            return request.record.value(name) if request.record else None
        case _, name if name in _PLAIN_FIELDS:
            return getattr(request, name)
        case _, name:
            oid = names.BY_NAME[name].oid.dotted_string
            return next((item.value for item in request.subject if item.oid == oid), None)


def _checked(template: str) -> str:
    try:
        _parts(template)
    except ValueError as error:
        raise ValueError(f"the template “{template}” {error}") from error
    return template


#: A template in a document; what cannot be read is refused there.
Template = Annotated[
    str, Field(min_length=1, max_length=_TEMPLATE_CHARS_MAX), AfterValidator(_checked)
]
