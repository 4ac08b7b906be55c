"""What a new central is to be, by command or by page."""

from typing import Annotated

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from central.authority.orders import Days
from central.identity.orders import Password, UserName
from shared.pki import keys, names
from shared.pki.key_types import KeyType
from shared.web.console import Order

_TITLES = {"root_name": "Root CA", "fleet_name": "Fleet CA", "issuing_name": "Issuing CA"}
#: A name; empty is the usual one of the organization.
_Name = Annotated[str, Field(validate_default=True)]


class FirstOrder(Order):
    """Make root, fleet and issuing CA, and an administrator; without ``password`` one is made.

    Without ``days`` the root has no expiry; the CAs below end with it. ``root_key_type`` is that of
    the other two if it is not said; ``signature`` is what the root signs with.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # the password is in it

    organization: str
    root_name: _Name = ""
    fleet_name: _Name = ""
    issuing_name: _Name = ""
    days: Days | None = None
    key_type: KeyType = KeyType.EC_P256
    root_key_type: KeyType | None = None
    signature: str | None = None
    admin: UserName = "admin"
    password: Annotated[Password | None, Field(repr=False)] = None

    @field_validator("organization")
    @classmethod
    def _fits(cls, value: str) -> str:
        return _checked("organization_name", value)

    @field_validator("key_type", "root_key_type")
    @classmethod
    def _made_here(cls, value: KeyType | None) -> KeyType | None:
        if value is not None and value not in keys.MADE_HERE:
            raise ValueError(f"Keys of the type {value} are not made here.")
        return value

    @field_validator(*_TITLES)
    @classmethod
    def _named(cls, value: str, info: ValidationInfo) -> str:
        """Name it as is usual, if need be; on their CRLs two CAs of one name would share it."""
        earlier = info.data
        organization = earlier.get("organization")
        if organization is None:  # that is what is wrong: the names may follow from it
            return value
        name = _checked("common_name", value or usual_name(organization, info.field_name or ""))
        others = {earlier[field] for field in _TITLES if field in earlier}
        if _folded(name) in map(_folded, {*others, transport_name(organization)}):
            raise ValueError("Another CA has this name already.")
        return name


def usual_name(organization: str, field: str) -> str:
    """Name a CA as is usual; ``field`` is that of the order."""
    return f"{organization} {_TITLES[field]}"


def transport_name(organization: str) -> str:
    """Name the root of the link, which nobody chooses."""
    return f"{organization} Transport Root"


def _checked(attribute: str, value: str) -> str:
    if problem := names.attribute_problem(names.BY_NAME[attribute], value):
        raise ValueError(f"This {problem}.")
    return value


def _folded(name: str) -> str:
    """Write a name as relying parties compare it (RFC 5280 §7.1)."""
    return " ".join(name.split()).casefold()
