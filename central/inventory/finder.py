"""Finds certificates by a query, page by page: the rarest of its words leads, the others filter.

How rare a word is, is counted up to a bound. With a rare one its rows are all there is to look at.
With common ones only, rows are met newest first, and pages fill quickly. Where there is nothing but
ranges of terms, pages follow the order of their values: what expires first comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, func, or_, select, union

from central.inventory import query
from central.inventory.query import Column, Condition, Free, Range, Term
from shared.kernel.errors import BadRequestError
from shared.policy.rights import Scope
from shared.store.database import Database
from shared.store.reads import inside
from shared.store.schema import NOT_GOOD, REPORTED, certificate, term

#: A word with no more rows than these is rare: all of them are looked at.
_RARE = 5_000
#: What may have come since they were counted.
_SLACK = 100
_COLUMNS = {
    "status": certificate.c.status,
    "gateway": certificate.c.origin,
    "device": certificate.c.device_id,
    "profile": certificate.c.profile,
    "state": certificate.c.state,
    "ca": certificate.c.ca_id,
    "serial": certificate.c.serial,
    "sha256": certificate.c.sha256,
}
_BETWEEN = "~"


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order; ``after`` leads to the next page, "" if there is none."""

    rows: Sequence[Any]
    after: str


class Finder:
    """Searches the inventory."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._read = database.read

    async def find(
        self,
        text: str,
        within: Sequence[Scope],
        *,
        columns: Sequence[ColumnElement[Any]],
        after: str = "",
        limit: int,
    ) -> Page:
        """Give ``columns`` of up to ``limit`` certificates that lie in one of the scopes.

        ``after`` is that of the page before. Raises BadRequestError (see ``query.parse``).
        """
        conditions = query.parse(text)
        rare, leader = await self._leader(conditions)
        by_value = _BETWEEN in after if after else rare is None  # as the search began
        if isinstance(leader, Range) and by_value:
            found = _by_value(leader, after)
        else:
            found = _by_age(leader, after, rare)
        wanted = [inside(within), *(_filter(one) for one in conditions if one is not leader)]
        rows = await self._read(found.add_columns(*columns).where(and_(*wanted)).limit(limit + 1))
        more = len(rows) > limit
        return Page([row[1:] for row in rows[:limit]], str(rows[limit - 1].place) if more else "")

    async def _leader(self, conditions: Sequence[Condition]) -> tuple[int | None, Condition | None]:
        """Give a rare word and how many rows it has, or None and the one that is walked along."""
        ordered = sorted(conditions, key=_hope)
        for one in ordered:
            counted = _ids(one, _RARE + 1).limit(_RARE + 1).subquery()
            rows: Any = await self._read(select(func.count()).select_from(counted))
            if rows[0][0] <= _RARE:
                return rows[0][0], one
        return None, next(iter(ordered), None)


def _hope(condition: Condition) -> int:
    """Order conditions by what usually is rare, and what is better walked along."""
    return [Free, Term, Column, Range].index(type(condition))


def _by_age(leader: Condition | None, after: str, rare: int | None) -> Select[Any]:
    """Select the newest first; of a rare word all rows are looked at.

    PostgreSQL would rather walk along all certificates and hope to meet some of these soon: the sum
    in the order keeps it from that, and the limit tells it how few they are.
    """
    newest = select(certificate.c.id.label("place")).order_by(certificate.c.id.desc())
    if rare is not None and leader is not None:
        newest = select(certificate.c.id.label("place")).order_by((certificate.c.id + 0).desc())
        newest = newest.where(
            certificate.c.id.in_(_ids(leader, rare + _SLACK).limit(rare + _SLACK))
        )
    elif isinstance(leader, Term):
        newest = (
            select(term.c.id.label("place"))
            .join(certificate, certificate.c.id == term.c.id)
            .where(_of_term(leader))
            .order_by(term.c.id.desc())
        )
        return newest.where(term.c.id < _number(after)) if after else newest
    elif leader is not None:
        newest = newest.where(_filter(leader))
    return newest.where(certificate.c.id < _number(after)) if after else newest


def _by_value(leader: Range, after: str) -> Select[Any]:
    """Select in the order of a term's values."""
    place = (term.c.value + _BETWEEN).concat(term.c.id).label("place")
    found = (
        select(place)
        .join(certificate, certificate.c.id == term.c.id)
        .where(_of_term(leader))
        .order_by(term.c.value, term.c.id)
    )
    if not after:
        return found
    value, _, number = after.rpartition(_BETWEEN)
    behind = and_(term.c.value == value, term.c.id > _number(number))
    return found.where(term.c.value >= value, or_(term.c.value > value, behind))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(1 << 62)):
        raise BadRequestError("This is not the address of a page of the search.")
    return int(text)


def _ids(condition: Condition, most: int = _RARE + 1) -> Select[Any]:
    """Select the ids of ``most`` rows that one condition holds for."""
    match condition:
        case Term() | Range():
            return select(term.c.id).where(_of_term(condition))
        case Free(word=word):
            parts = (
                select(certificate.c.id).where(part).limit(most).subquery() for part in _free(word)
            )
            return select(union(*(select(part.c.id) for part in parts)).subquery().c.id)
        case Column():
            return select(certificate.c.id).where(_filter(condition))


def _filter(condition: Condition) -> ColumnElement[bool]:
    """Write a condition on a row of ``certificate``."""
    match condition:
        case Column(name="status", value=value) if value != "good":
            return and_(certificate.c.status == value, NOT_GOOD)  # lets SQLite use their index
        case Column(name="gateway", value=value) if value:
            return and_(certificate.c.origin == value, REPORTED)  # likewise
        case Column(name="serial", value=value):
            return certificate.c.serial == _hex(value).zfill(32)
        case Column(name=name, value=value):
            return _COLUMNS[name] == value
        case Free(word=word):
            return or_(*_free(word))
        case Term() | Range():
            other = term.alias()  # the page may walk along another term
            theirs = select(other.c.id).where(_of_term(condition, other))
            # OFFSET keeps PostgreSQL from joining: a page needs a look at few rows of a big term.
            return theirs.where(other.c.id == certificate.c.id).offset(0).exists()


def _of_term(condition: Term | Range, of: FromClause = term) -> ColumnElement[bool]:
    if isinstance(condition, Term):
        return and_(of.c.name == condition.name, of.c.value == condition.value)
    between = and_(of.c.value >= condition.first, of.c.value < condition.end)
    return and_(of.c.name == condition.name, between)


def _free(word: str) -> Sequence[ColumnElement[bool]]:
    """Give what a word alone may be; each has its index."""
    after_last = word[:-1] + chr(ord(word[-1]) + 1)  # the first text that does not begin so
    digits = _hex(word)
    return (
        certificate.c.serial == digits.zfill(32),
        certificate.c.sha256 == digits,
        and_(certificate.c.subject_cn >= word, certificate.c.subject_cn < after_last),
        and_(certificate.c.device_id >= word, certificate.c.device_id < after_last),
    )


def _hex(text: str) -> str:
    return text.replace(":", "").lower().removeprefix("0x")
