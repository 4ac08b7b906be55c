"""How columns are written in all schemas: INTEGER, TEXT and BLOB only (see ``schema``)."""

import json

from sqlalchemy import Column, ColumnElement, Integer, LargeBinary, MetaData, Text, func, or_

metadata = MetaData()


def has_pair(column: ColumnElement[str], name: str, value: str) -> ColumnElement[bool]:
    """Look for a pair in the JSON text of a map, with what SQLite and PostgreSQL both have.

    A quotation mark inside a text has a backslash before it: only a pair can begin like this.
    """
    pair = json.dumps({name: value})[1:-1]
    return or_(*(func.replace(column, start + pair, "") != column for start in ("{", ", ")))


def text(name: str, *, null: bool = False) -> Column[str]:
    """Give a TEXT column."""
    return Column(name, Text, nullable=null)


def integer(name: str, *, null: bool = False) -> Column[int]:
    """Give an INTEGER column."""
    return Column(name, Integer, nullable=null)


def blob(name: str, *, null: bool = False) -> Column[bytes]:
    """Give a BLOB column."""
    return Column(name, LargeBinary, nullable=null)


def key(name: str) -> Column[str]:
    """Give a TEXT column of the primary key."""
    return Column(name, Text, primary_key=True, nullable=False)
