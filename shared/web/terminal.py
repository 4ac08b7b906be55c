"""What the command lines of both products share: how they end, print and read their arguments."""

import json
import sys
from enum import IntEnum
from typing import Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from shared.kernel.errors import BadRequestError, Kind, TmaError
from shared.web.console import AbsentError, OrderT

out = Console(highlight=False)
_errors = Console(stderr=True, highlight=False)


class ExitStatus(IntEnum):
    """What the exit status of a command says; each ``--help`` repeats it."""

    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    TRY_AGAIN = 4


def run(app: typer.Typer) -> None:
    """Run one command; errors of the family become a sentence and an exit status."""
    try:
        app()
    except TmaError as error:
        _errors.print(f"[bold red]Error:[/] {escape(error.message)}")
        if error.remedy or type(error).__doc__:
            _errors.print(escape(error.remedy or str(type(error).__doc__)))
        sys.exit(_status_of(error))


def order(model: type[OrderT], **values: Any) -> OrderT:
    """Make an order of arguments; raises BadRequestError naming the one that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise BadRequestError(f"{field}: {first['msg']}.") from error


def print_json(value: Any) -> None:
    """Print for programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _status_of(error: TmaError) -> ExitStatus:
    if isinstance(error, AbsentError):
        return ExitStatus.NOT_RUNNING
    if error.kind is Kind.RETRYABLE:
        return ExitStatus.TRY_AGAIN
    return ExitStatus.USAGE if isinstance(error, BadRequestError) else ExitStatus.FAILED
