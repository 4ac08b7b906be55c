"""The language of search: ``status:revoked dns:press-* meta.order:4711 expires<2027-01-01``. Pure.

Words add up. A word without a name is a serial number, a SHA-256, or the beginning of a common name
or of a device id. ``*`` at the end of a value stands for any rest; a value with spaces is quoted.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from central.inventory import terms
from shared.kernel.errors import BadRequestError

CHARS_MAX = 512
_WORDS_MAX = 16
#: Words that name a column of the row; case counts in their values.
COLUMNS = ("status", "gateway", "device", "profile", "state", "ca", "serial", "sha256")
_WORD = re.compile(r"(?P<name>[a-z_0-9]+|meta\.[^:<>]+)(?P<operator>[:<>])(?P<value>.+)", re.DOTALL)
#: Serials and digests are written so, too: not every colon ends a name.
_HEX_PAIRS = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})+")
_LAST_CHAR = chr(0x10FFFF)


@dataclass(frozen=True, slots=True)
class Column:
    """A column has this value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Free:
    """A word without a name."""

    word: str


@dataclass(frozen=True, slots=True)
class Term:
    """A term has this value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Range:
    """A term has a value from ``first`` on and before ``end``."""

    name: str
    first: str
    end: str


Condition = Column | Free | Term | Range


def parse(text: str) -> list[Condition]:
    """Read a query; raises BadRequestError with what is known here."""
    if len(text) > CHARS_MAX:
        raise BadRequestError(f"A query has at most {CHARS_MAX} characters.")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadRequestError("A quotation mark is missing in the query.") from error
    if len(words) > _WORDS_MAX:
        raise BadRequestError(f"A query has at most {_WORDS_MAX} words.")
    return [_condition(word) for word in words]


def known_names() -> Sequence[str]:
    """Give the names that a word may begin with."""
    return [*COLUMNS, *terms.SHORT, *sorted(terms.NAMES), f"{terms.META}NAME"]


def _condition(word: str) -> Condition:
    match = None if _HEX_PAIRS.fullmatch(word) else _WORD.fullmatch(word)
    if match is None:
        return Free(word)
    name, operator, value = match["name"], match["operator"], match["value"]
    name = terms.SHORT.get(name, name)
    if operator == ":" and name in COLUMNS:
        return Column(name, value)
    if name not in terms.NAMES and not name.startswith(terms.META):
        raise BadRequestError(
            f"One cannot search by {name!r}.",
            remedy=f"Names are {', '.join(known_names())}. Quote a word that holds a colon.",
        )
    if name in {terms.EXPIRES, terms.ISSUED}:
        return _days(name, operator, value)
    if operator != ":":
        raise BadRequestError(f"Only {terms.EXPIRES} and {terms.ISSUED} are compared by < or >.")
    if value.endswith("*"):
        first = terms.folded(value[:-1])
        return Range(name.casefold(), first, first + _LAST_CHAR)
    return Term(name.casefold(), terms.folded(value))


def _days(name: str, operator: str, value: str) -> Condition:
    """Read a comparison of days: ``<`` is before that day, ``>`` after it."""
    try:
        given = date.fromisoformat(value)
    except ValueError as error:
        raise BadRequestError(f"{name} is compared with a day, like {name}<2027-01-31.") from error
    if operator == ":":
        return Term(name, value)
    if operator == "<":
        return Range(name, "", value)
    following = datetime.combine(given, datetime.min.time(), UTC) + timedelta(days=1)
    return Range(name, f"{following:%Y-%m-%d}", _LAST_CHAR)
