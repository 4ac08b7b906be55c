"""The pairs that objects carry: read, joined to lists, changed in a transaction."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from central.inventory import audit
from central.metadata.orders import Kind, Wanted
from shared.kernel import limits
from shared.kernel.errors import BadRequestError
from shared.pki import names
from shared.policy.case import excerpt
from shared.store.database import Database
from shared.store.schema import object_metadata
from shared.store.transaction import Transaction
from shared.web.problems import InvalidFieldsError

_pair = object_metadata.c
_OBJECT = (_pair.kind == bindparam("which"), _pair.id == bindparam("about"))
_OF = select(_pair.name, _pair.value).where(*_OBJECT)
_put = insert(object_metadata)
_PUT = _put.on_conflict_do_update(
    index_elements=[_pair.kind, _pair.id, _pair.name], set_={"value": _put.excluded.value}
)
_REMOVE = delete(object_metadata).where(*_OBJECT, _pair.name == bindparam("pair"))
_FORGET = delete(object_metadata).where(*_OBJECT)


async def of(database: Database, kind: Kind, about: str) -> dict[str, str]:
    """Give the pairs of one object, by name."""
    rows = await database.read(_OF.order_by(_pair.name), {"which": kind, "about": about})
    return {row.name: row.value for row in rows}


async def of_all(
    database: Database, kind: Kind, ids: Collection[str], wanted: Wanted | None = None
) -> dict[str, dict[str, str]]:
    """Give the pairs of those among the objects that carry all of the wanted pairs, and any."""
    if not ids:
        return {}
    query = (
        select(_pair.id, _pair.name, _pair.value)
        # Between: thousands of ids are too many parameters, and a page's lie side by side.
        .where(_pair.kind == kind, _pair.id.between(min(ids), max(ids)))
        .where(*carrying(_pair.id, kind, wanted or {}))
        .order_by(_pair.id, _pair.name)
    )
    found: dict[str, dict[str, str]] = {}
    for row in await database.read(query):
        found.setdefault(row.id, {})[row.name] = row.value
    return found


def carrying(column: ColumnElement[str], kind: Kind, wanted: Wanted) -> list[ColumnElement[bool]]:
    """Give the conditions that an object, named by the column, carries each of these pairs."""
    return [
        column.in_(
            select(_pair.id).where(_pair.kind == kind, _pair.name == name, _pair.value == value)
        )
        for name, value in wanted.items()
    ]


async def joined(
    database: Database,
    kind: Kind,
    rows: Sequence[Mapping[str, Any]],
    key: str,
    wanted: Wanted | None = None,
) -> list[dict[str, Any]]:
    """Add ``metadata`` to rows that name objects by ``key``; with ``wanted`` keep those only."""
    found = await of_all(database, kind, {row[key] for row in rows}, wanted)
    return [
        {**row, "metadata": found.get(row[key], {})}
        for row in rows
        if row[key] in found or not wanted
    ]


def change(
    transaction: Transaction, kind: Kind, about: str, changes: Mapping[str, str | None], actor: str
) -> dict[str, str]:
    """Set pairs, and remove those whose value is None; gives what the object carries now.

    The same again changes nothing. Raises BadRequestError when they become too many.
    """
    place = {"which": kind, "about": about}
    held = {row.name: row.value for row in transaction.all(_OF, place)}
    merged = {**held, **changes}
    carried = {name: value for name, value in sorted(merged.items()) if value is not None}
    if len(carried) > limits.METADATA_PAIRS_MAX:
        raise BadRequestError(
            f"The metadata would have {len(carried)} pairs.",
            remedy=f"An object carries at most {limits.METADATA_PAIRS_MAX}; remove some.",
            pointer="/metadata",
        )
    removed = sorted(held.keys() - carried.keys())
    put = {name: value for name, value in carried.items() if held.get(name) != value}
    for name in removed:
        transaction.execute(_REMOVE, {**place, "pair": name})
    for name, value in put.items():
        transaction.execute(_PUT, {"kind": kind, "id": about, "name": name, "value": value})
    if removed or put:
        # Lists of texts: a pair's name must not be taken for a name of the entry's own.
        said = {"set": [f"{name}={value}" for name, value in put.items()], "removed": removed}
        detail = {name: pairs for name, pairs in said.items() if pairs}
        audit.add(transaction, actor, f"{kind}.metadata-changed", about, detail)
    return carried


def forget(transaction: Transaction, kind: Kind, about: str) -> None:
    """Remove all that was said of an object that is no more."""
    transaction.execute(_FORGET, {"which": kind, "about": about})


def require_well_formed(changes: Mapping[str, str | None]) -> None:
    """Raise InvalidFieldsError naming each pair that is no short text people can read."""
    if wrong := list(_problems(changes)):
        raise InvalidFieldsError(wrong)


def _problems(changes: Mapping[str, str | None]) -> Iterable[tuple[str, str]]:
    for name, value in changes.items():
        problem = names.text_problem(name, limits.METADATA_KEY_CHARS_MAX)
        if problem is None and value is not None:
            problem = names.text_problem(value, limits.METADATA_VALUE_CHARS_MAX)
        if problem is not None:
            pointer = name.replace("~", "~0").replace("/", "~1")  # RFC 6901 §3
            yield f"/metadata/{pointer}", f"The metadata pair {excerpt(name)} {problem}."
