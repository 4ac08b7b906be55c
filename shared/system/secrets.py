"""Where a secret comes from: a private file or a systemd credential, never argv or environment."""

import os
from pathlib import Path

from shared.kernel.errors import BadRequestError, NotFoundError
from shared.system.files import read_private

_SECRET_BYTES_MAX = 4096


def read_secret(source: str) -> bytes:
    """Read ``file:/path`` (mode 0600) or ``credential:NAME`` (systemd.exec(5), LoadCredential=).

    Raises BadRequestError for another source, NotFoundError, ForbiddenError.
    """
    kind, _, name = source.partition(":")
    if kind == "file" and name.startswith("/"):
        return read_private(Path(name), limit=_SECRET_BYTES_MAX)
    if kind == "credential" and name and "/" not in name:
        return _credential(name)
    raise BadRequestError(
        "A secret's source reads file:/absolute/path or credential:NAME.",
    )


def _credential(name: str) -> bytes:
    """Read what systemd put into a directory that only this service can enter."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        with (Path(directory or "/nonexistent") / name).open("rb") as file:
            return file.read(_SECRET_BYTES_MAX)
    except OSError as error:
        raise NotFoundError(
            f"The systemd credential {name} is not there.",
            remedy=f"Add LoadCredentialEncrypted={name} to the unit.",
        ) from error
