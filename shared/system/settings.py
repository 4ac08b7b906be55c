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


class BackupSettings(Section):
    """Backups of the database, encrypted: they open here, and anywhere with the recovery secret."""

    directory: Path | None = Field(
        default=None,
        description="Directory for scheduled backups, on another disk; empty makes none.",
    )
    hours: int = Field(default=24, ge=1, le=24 * 31, description="Hours between two backups.")
    keep: int = Field(default=7, ge=1, le=1000, description="Backups that rotation retains.")
    same_disk_counts: bool = Field(
        default=False,
        description="Let backups on the database's own file system count, because something else "
        "copies them away.",
    )
    alarm_hours: int = Field(
        default=50, ge=1, le=24 * 366, description="Age of the newest backup that raises an alarm."
    )


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
