"""What a new central is to be: names that are usual, names that cannot be."""

import pytest
from pydantic import ValidationError

from central.first_order import FirstOrder


def test_names_are_the_usual_ones_of_the_organization():
    order = FirstOrder(organization="Plant", fleet_name="Lines")
    named = (order.root_name, order.fleet_name, order.issuing_name)
    assert named == ("Plant Root CA", "Lines", "Plant Issuing CA")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("organization", ""),
        ("organization", " Plant"),
        ("root_name", "R" * 65),
        ("root_name", "Ü" * 33),
        ("fleet_name", "Fleet\nCA"),
        ("fleet_name", "Fleet\u202eCA"),
        ("fleet_name", "plant  root CA"),
        ("issuing_name", "Plant Transport Root"),
        ("issuing_name", "Issuing "),
        ("days", 0),
        ("days", 36_526),
        ("key_type", "rsa-512"),
        ("key_type", "rsa-other"),
        ("admin", "ad min"),
    ],
)
def test_what_cannot_be_is_told_at_its_field(field: str, value: object):
    with pytest.raises(ValidationError) as refused:
        FirstOrder.model_validate({"organization": "Plant"} | {field: value})
    assert field in {error["loc"][0] for error in refused.value.errors()}


def test_a_password_is_in_no_text_about_the_order():
    assert "secret words" not in repr(FirstOrder(organization="Plant", password="secret words"))
    with pytest.raises(ValidationError) as refused:
        FirstOrder(organization="Plant", admin="ad min", password="secret words" * 100)
    assert "secret words" not in str(refused.value)


def test_an_organization_that_leaves_no_room_for_the_usual_names_is_told_at_them():
    with pytest.raises(ValidationError) as refused:
        FirstOrder(organization="P" * 60)
    at = [error["loc"][0] for error in refused.value.errors()]
    assert at == ["root_name", "fleet_name", "issuing_name"]
