"""One TOML file per program, read and checked before anything starts."""

import tomllib
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.kernel.errors import BadRequestError

_BYTES_MAX = 64 * 1024

Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """A table of the file: what is not named in it is refused, nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SettingsT = TypeVar("SettingsT", bound=Section)


def load(model: type[SettingsT], path: Path, *, manual: str) -> SettingsT:
    """Read a file into its model; ``manual`` names the document that lists every setting.

    Raises BadRequestError that names each wrong setting and says what to do.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise BadRequestError(
            f"The configuration {path} cannot be read: {error.strerror}.",
            remedy=f"Give the right file with --config, or create it; see {manual}.",
        ) from error
    if len(data) > _BYTES_MAX:
        raise BadRequestError(f"The configuration {path} is larger than {_BYTES_MAX} bytes.")
    try:
        return model.model_validate(tomllib.loads(data.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequestError(f"The configuration {path} is not valid TOML: {error}.") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise BadRequestError(
            f"The configuration {path} is wrong: {problems}.",
            remedy=f"Correct these settings; {manual} lists each with its default.",
        ) from error
