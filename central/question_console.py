"""Open questions and the quarantine from the console: the commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.markup import escape
from rich.table import Table

from central.question_doors import FILE_BYTES_MAX, ChoiceOrder, ImportOrder, ReasonOrder
from shared.kernel.errors import BadRequestError
from shared.web import terminal
from shared.web.console import Order
from shared.web.terminal import out

_PARTS = 4  # of a place

#: Sends a command to the running server: context, method, route, order.
Ask = Callable[[typer.Context, str, str, Order | None], Any]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Place = Annotated[str, typer.Argument(help="The event, as `quarantine list` names it.")]


def conflict_commands(ask: Ask) -> typer.Typer:
    """Give the group ``conflict``."""
    app = typer.Typer(no_args_is_help=True, help="Questions that a person must decide.")

    @app.command("list")
    def list_(
        context: typer.Context,
        *,
        state: Annotated[str, typer.Option(help="open, settled, or '' for both.")] = "open",
        kind: Annotated[str, typer.Option(help="Only those of this kind.")] = "",
        gateway: Annotated[str, typer.Option(help="Only those of this gateway.")] = "",
        limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=500)] = 100,
        after: Annotated[str, typer.Option(help="Go on behind this number.")] = "",
        as_json: Json = False,
    ) -> None:
        """List the questions, the newest first, and what each decision would do."""
        wanted = {"filter[state]": state, "page[size]": str(limit)}
        wanted |= {"filter[kind]": kind} if kind else {}
        wanted |= {"filter[gateway]": gateway} if gateway else {}
        wanted |= {"page[after]": after} if after else {}
        found = ask(context, "GET", f"/conflicts?{urlencode(wanted)}", None)
        if as_json:
            terminal.print_json(found)
            return
        for one in found["rows"]:
            _print(one)
        if found["after"]:
            out.print(f"There are more: --after {found['after']}")

    @app.command("show")
    def show(
        context: typer.Context,
        number: Annotated[int, typer.Argument(help="Number of the question.")],
        as_json: Json = False,
    ) -> None:
        """Show one question with the certificates of both sides."""
        found = ask(context, "GET", f"/conflicts/{number}", None)
        if as_json:
            terminal.print_json(found)
            return
        _print(found)
        sides = found["certificates"]
        if sides:
            table = Table("", *(escape(side["serial"]) for side in sides))
            for name in sides[0]:
                table.add_row(name, *(escape(str(side[name])) for side in sides))
            out.print(table)

    @app.command("settle")
    def settle(
        context: typer.Context,
        number: Annotated[int, typer.Argument(help="Number of the question.")],
        choice: Annotated[str, typer.Option(help="A choice of `conflict list`.")] = "",
    ) -> None:
        """Decide a question, once; without --choice nothing is changed and it counts as seen."""
        order = terminal.order(ChoiceOrder, choice=choice)
        out.print(escape(ask(context, "POST", f"/conflicts/{number}/settle", order)["done"]))

    return app


def _print(one: dict[str, Any]) -> None:
    out.print(f"[bold]{one['id']}[/] {one['kind']} at {one['gateway']}, {one['since']}")
    out.print(f"  about {escape(one['about'])} {escape(str(one['detail']))}")
    if one["state"] != "open":
        out.print(f"  settled by {one['settled_by']}: {one['resolution']}, {one['settled_at']}")
        return
    for name, sentence in one["choices"].items():
        out.print(f"  {name}: {escape(sentence)}")


def quarantine_commands(ask: Ask) -> typer.Typer:
    """Give the group ``quarantine``."""
    app = typer.Typer(no_args_is_help=True, help="Events that could not be applied.")

    @app.command("list")
    def list_(context: typer.Context, as_json: Json = False) -> None:
        """List the events that are kept whole but not applied, and why."""
        found = ask(context, "GET", "/quarantine", None)
        if as_json:
            terminal.print_json(found)
            return
        table = Table("event", "type", "reason")
        for one in found:
            table.add_row(escape(one["place"]), escape(one["type"] or "unreadable"), one["reason"])
        out.print(table)

    @app.command("retry")
    def retry(context: typer.Context) -> None:
        """Try all of them again; each start of the server does so, too."""
        applied = ask(context, "POST", "/quarantine/retry", None)["applied"]
        out.print(f"{applied} events were applied.")

    @app.command("discard")
    def discard(
        context: typer.Context,
        place: Place,
        reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    ) -> None:
        """Give an event up for good; its bytes stay in the inbox."""
        ask(context, "POST", f"{_at(place)}/discard", terminal.order(ReasonOrder, reason=reason))
        out.print("The event is discarded.")

    @app.command("show")
    def show(context: typer.Context, place: Place) -> None:
        """Print one event as JSON: its body, why it is kept, what became of it."""
        terminal.print_json(ask(context, "GET", _at(place), None))

    @app.command("export")
    def export(
        context: typer.Context,
        place: Place,
        to: Annotated[Path, typer.Option(help="File to write.")],
    ) -> None:
        """Write one event to a signed file, for whoever is to look at it, or for `import`."""
        to.write_bytes(bytes.fromhex(ask(context, "GET", f"{_at(place)}/export", None)["file"]))
        out.print(f"The event is in {escape(str(to))}.")

    @app.command("import")
    def import_(
        context: typer.Context,
        path: Annotated[Path, typer.Argument(help="A file that `export` wrote.")],
    ) -> None:
        """Take an exported event back and try it again; repeats change nothing."""
        order = terminal.order(ImportOrder, file=_read(path).hex())
        taken = ask(context, "POST", "/quarantine/import", order)
        out.print(f"The event {escape(taken['id'])} is taken back.")

    return app


def _at(place: str) -> str:
    if len(parts := place.split("/")) != _PARTS or not all(part.isascii() for part in parts):
        raise BadRequestError(
            "An event in quarantine is named gateway/segment/lane/sequence.",
            remedy="`tma-central quarantine list` gives the names.",
        )
    return f"/quarantine/{place}"


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read.") from error
    if len(data) > FILE_BYTES_MAX:
        raise BadRequestError(f"{path} is no exported event: it is too large.")
    return data
