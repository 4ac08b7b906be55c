"""The bodies of what administrators order about who may enroll."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from shared.web.console import Order, Text

_Names = Annotated[tuple[Text, ...], Field(min_length=1, max_length=500)]
_Days = Annotated[int, Field(ge=1, le=3650)]


class RequesterOrder(Order):
    """Let somebody enroll; without a password one is made and answered once."""

    name: Text
    kind: Literal["password", "certificate", "webhook"] = "password"
    aliases: _Names
    profiles: _Names = ("*",)
    gateways: _Names = ("*",)
    days: _Days | None = None
    password: SecretStr | None = None
    certificate: Text | None = None  # hex SHA-256 of its DER
    url: Text | None = None


class ImportOrder(Order):
    """Rows of a CSV file, the first of them being number ``first_row``."""

    header: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    rows: Annotated[tuple[tuple[str, ...], ...], Field(max_length=500)]
    first_row: Annotated[int, Field(ge=1)]
    dry_run: bool = False


class CodesOrder(Order):
    """Make one-time codes for devices, to be spent at one gateway or at ``_central``."""

    serials: Annotated[tuple[str, ...], Field(min_length=1, max_length=10_000)]
    gateway: Text
    alias: Text = "*"
    days: _Days = 30


class LinesOrder(Order):
    """The lines that a gateway serves; none: the one of its own name."""

    name: Text
    lines: Annotated[tuple[Text, ...], Field(max_length=100)]
