"""Which certificates an order is about. Pure; the same document by REST, console and storage."""

from typing import Annotated, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from shared.kernel import limits

_SERIAL_DIGITS = 32


def _normal(serial: str) -> str:
    """Write a serial number as it is stored: people type 0A:1B, openssl prints 0x0A1B."""
    digits = serial.replace(":", "").strip().lower().removeprefix("0x")
    return digits.zfill(_SERIAL_DIGITS)


_Text = Annotated[str, Field(min_length=1, max_length=256)]
_Texts = Annotated[tuple[_Text, ...], Field(max_length=limits.SELECTION_NAMES_MAX)]


class Selection(BaseModel):
    """Which certificates: those that satisfy everything that is given, at least one criterion."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: _Text | None = None
    ca_id: _Text | None = None
    origin: _Text | None = Field(None, description="The gateway that issued it.")
    device_ids: _Texts = ()
    serials: Annotated[
        tuple[Annotated[_Text, AfterValidator(_normal)], ...],
        Field(max_length=limits.SELECTION_NAMES_MAX, description="Serial numbers in hex."),
    ] = ()
    issued_from: AwareDatetime | None = None
    issued_before: AwareDatetime | None = None
    expires_from: AwareDatetime | None = None
    expires_before: AwareDatetime | None = None
    metadata: dict[_Text, str] = Field({}, max_length=limits.METADATA_PAIRS_MAX)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError("name at least one criterion: this would mean every certificate")
        return self
