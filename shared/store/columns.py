"""How columns are written in all schemas: INTEGER, TEXT and BLOB only (see ``schema``)."""

from sqlalchemy import Column, Integer, LargeBinary, MetaData, Text

metadata = MetaData()


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
