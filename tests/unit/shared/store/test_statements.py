"""Statements are compiled once and bind by name."""

import pytest
from sqlalchemy import bindparam, insert, select, update

from shared.store.schema import fact
from shared.store.statements import compiled


def test_the_same_statement_is_compiled_once():
    statement = select(fact.c.value).where(fact.c.name == bindparam("wanted"))
    assert compiled(statement, ("wanted",)) is compiled(statement, ("wanted",))
    assert compiled(statement, ("wanted",)).bind({"wanted": "x"}) == ["x"]


def test_an_insert_names_only_the_given_columns():
    assert compiled(insert(fact), ("name",)).sql == "INSERT INTO fact (name) VALUES (?)"


def test_values_come_in_the_order_of_the_text():
    statement = update(fact).where(fact.c.name == bindparam("key")).values(value=bindparam("new"))
    prepared = compiled(statement, ("key", "new"))
    assert prepared.sql == "UPDATE fact SET value=? WHERE fact.name = ?"
    assert prepared.bind({"key": "a", "new": "b"}) == ["b", "a"]
    with pytest.raises(KeyError):
        prepared.bind({"key": "a"})


def test_built_in_values_and_lists():
    statement = select(fact.c.name, fact.c.value).where(fact.c.name.in_(["a", "b"])).limit(5)
    prepared = compiled(statement, ())
    assert sorted(map(str, prepared.bind({}))) == ["0", "5", "a", "b"]
    row = prepared.row("n", "v")
    assert (row.name, row.value) == ("n", "v")
