"""What the command lines of both products share: how they end, print and read their arguments."""

import json
import sys
from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.kernel.errors import BadRequestError, Kind, TmaError
from shared.web.console import AbsentError, order_of

out = Console(highlight=False)
_errors = Console(stderr=True, highlight=False)


class ExitStatus(IntEnum):
    """What the exit status of a command says; each ``--help`` repeats it."""

    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    TRY_AGAIN = 4


class Output(StrEnum):
    """How a list is printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[
    Output | None, typer.Option("--output", "-o", help="A table for people, or JSON for programs.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The same as -o json.")]


def chosen(output: Output | None, as_json: bool) -> Output:
    """Tell which form is wanted by ``-o`` and ``--json``."""
    return Output.JSON if as_json else output or Output.TABLE


def show(rows: Sequence[dict[str, Any]], output: Output, *columns: str) -> None:
    """Print rows: all that they hold as JSON, or these columns of them as a table."""
    if output is Output.JSON:
        print_json(rows)
        return
    table = Table(*(column.replace("_", " ") for column in columns))
    for row in rows:
        table.add_row(*(escape(_cell(row.get(column))) for column in columns))
    out.print(table)


def tell(answer: dict[str, Any] | None, done: str) -> None:
    """Say what was done, or under which number it waits for a second person."""
    if answer is not None and "approval" in answer:
        out.print(
            f"This needs a second person: it waits as request {answer['approval']}, "
            f"see `tma-central approval list`."
        )
    else:
        out.print(escape(done))


def run(app: typer.Typer) -> None:
    """Run one command; errors of the family become a sentence and an exit status."""
    try:
        app()
    except TmaError as error:
        _errors.print(f"[bold red]Error:[/] {escape(error.message)}")
        if error.remedy or type(error).__doc__:
            _errors.print(escape(error.remedy or str(type(error).__doc__)))
        sys.exit(_status_of(error))


#: Makes an order of arguments; raises BadRequestError naming the one that is wrong.
order = order_of


def print_json(value: Any) -> None:
    """Print for programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, cast("list[Any]", value)))
    return "" if value is None else str(value)


def _status_of(error: TmaError) -> ExitStatus:
    if isinstance(error, AbsentError):
        return ExitStatus.NOT_RUNNING
    if error.kind is Kind.RETRYABLE:
        return ExitStatus.TRY_AGAIN
    return ExitStatus.USAGE if isinstance(error, BadRequestError) else ExitStatus.FAILED
