"""``tma-provision``: what is done once, before a box goes to the line."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from provisioning import token_init
from shared.hsm.settings import KNOWN_MODULES
from shared.hsm.software import SoftwareProvider
from shared.kernel.errors import TmaError
from shared.pki import keywrap
from shared.pki.key_types import KeyType
from shared.system import files

_console = Console(highlight=False)
_application = typer.Typer(
    help="Prepare tokens and keys before a box goes to the line.",
    add_completion=False,
    no_args_is_help=True,
)
_token = typer.Typer(help="PKCS#11 tokens.", no_args_is_help=True)
_keys = typer.Typer(help="Wrapped key files, where there is no token.", no_args_is_help=True)
_application.add_typer(_token, name="token")
_application.add_typer(_keys, name="keys")


@_token.command("init")
def token(
    *,
    label: Annotated[str, typer.Option(help="Name of the token, e.g. that of the gateway.")],
    pin_file: Annotated[Path, typer.Option(help="Where the new user PIN goes, mode 0600.")],
    so_pin_file: Annotated[
        Path, typer.Option(help="Where the new security officer PIN goes: keep it off this box.")
    ],
    key: Annotated[
        str | None,
        typer.Option(help="Label of a CA key to make now; a gateway makes its own when it joins."),
    ] = None,
    key_type: Annotated[
        KeyType, typer.Option(help="Type of that key. RSA takes a token seconds to minutes.")
    ] = KeyType.EC_P256,
    module: Annotated[Path, typer.Option(help="PKCS#11 module.")] = KNOWN_MODULES[0],
    slot: Annotated[int | None, typer.Option(help="Slot; default: the only empty one.")] = None,
) -> None:
    """Initialise an empty token and, if asked, make a key that cannot leave it.

    Both PINs are made here and written to files; an existing file or token is never overwritten.
    For SoftHSM2 set SOFTHSM2_CONF to a configuration with a private token directory first.
    Prints the URI for token.uri of the daemon's configuration (see tma-hsmd --help).
    """
    made = token_init.initialise(
        module=module,
        label=label,
        key=key,
        kind=key_type,
        pin_file=pin_file.absolute(),
        so_pin_file=so_pin_file.absolute(),
        slot=slot,
    )
    _console.print(f"Token {label} is ready; its serial number is {made.serial}.")
    if key is not None:
        _console.print(f"SHA-256 of the public key of {key}: {made.fingerprint}", soft_wrap=True)
    _console.print(made.uri, soft_wrap=True)


@_keys.command("init")
def key_files(
    directory: Annotated[Path, typer.Argument(help="New directory for the wrapped keys.")],
    box_secret: Annotated[Path, typer.Option(help="This box's secret; made when missing.")],
) -> None:
    """Make a directory for wrapped keys and print its recovery secret, once.

    Keep the recovery secret on paper, away from the box: with it and a backup, the keys can be
    opened on another box. Prints the URI for token.uri of the daemon's configuration.
    """
    if not box_secret.exists():
        files.write_private(box_secret, os.urandom(keywrap.SECRET_BYTES))
    recovery_secret = os.urandom(keywrap.SECRET_BYTES)
    SoftwareProvider.create(
        directory,
        box_secret=files.read_private(box_secret, limit=keywrap.SECRET_BYTES),
        recovery_secret=recovery_secret,
        random=os.urandom,
    )
    _console.print("Recovery secret, shown once:")
    _console.print(keywrap.recovery_text(recovery_secret), soft_wrap=True)
    source = f"pin-source=file:{box_secret.absolute()}"
    _console.print(f"software:{directory.absolute()}?{source}", soft_wrap=True)


def main() -> None:
    """Run the command; an error is one sentence and what to do."""
    try:
        _application()
    except TmaError as error:
        _console.print(f"[red]{error.message}[/red] {error.remedy}".rstrip())
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
