"""Rules as documents: strict, immutable, and every error names its field."""

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.kernel.errors import BadRequestError


class Document(BaseModel):
    """A model that is written and read as JSON; unknown or ill-typed fields are refused."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    @classmethod
    def from_document(cls, document: str | Mapping[str, Any]) -> Self:
        """Check a JSON text or its decoded form; raises BadRequestError naming the first field."""
        try:
            text = document if isinstance(document, str) else json.dumps(document)
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = [str(step) for step in first["loc"]]
            where = ".".join(path) or "document"
            why = first["msg"].removeprefix("Value error, ").rstrip(".")
            raise BadRequestError(
                f"The field “{where}” of the {cls.__name__.lower()} is wrong: {why}.",
                pointer="".join(f"/{step}" for step in path),
            ) from error
        except (TypeError, ValueError) as error:
            raise BadRequestError(f"The {cls.__name__.lower()} is not a JSON document.") from error

    def to_document(self) -> dict[str, Any]:
        """Give the decoded JSON form, which ``from_document`` reads back."""
        return self.model_dump(mode="json", exclude_defaults=True)
