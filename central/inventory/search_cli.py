"""``tma-central search``: find certificates by any attribute, export them, keep queries."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape

from central import config
from central.inventory.search import Export
from central.inventory.search_doors import ExportOrder, FindOrder, KeepOrder
from shared.web import console, terminal
from shared.web.terminal import AsJson, OutputOption, out, show

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Find certificates by any attribute.

    Words of a query add up: `status:revoked gateway:gw-07 dns:press-* meta.order:4711
    expires<2027-01-01`. A word without a name is a serial number, a SHA-256, or the beginning of a
    common name or device id. `*` ends a beginning; quote a value with spaces: `o:"ACME GmbH"`.
    """,
)
Query = Annotated[str, typer.Argument(help="The query; nothing finds everything.")]
Name = Annotated[str, typer.Argument(help="The name of the kept query.")]
_COLUMNS = ("status", "subject_cn", "device_id", "origin", "not_after")


def add_to(parent: typer.Typer) -> None:
    """Add the group to ``tma-central``."""
    parent.add_typer(app, name="search")


@app.command("find")
def find(
    context: typer.Context,
    query: Query = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 50,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """List what is found, newest first; by days of expiry or issue alone, in their order."""
    rows: list[dict[str, Any]] = []
    after, behind = "", 0
    while len(rows) < limit:
        order = terminal.order(
            FindOrder, query=query, after=after or None, limit=min(limit - len(rows), 500)
        )
        found = _ask(context, "POST", "/search", order)
        rows += found["rows"]
        after, behind = found["after"], found["behind"]
        if not after:
            break
    form = terminal.chosen(output, as_json)
    show(rows, form, *_COLUMNS)
    if form is terminal.Output.TABLE:
        if after:
            out.print(f"There are more than these {len(rows)}: ask for more by --limit.")
        if behind:
            out.print(f"About {behind} certificates cannot be searched by terms yet.")


@app.command("export")
def export(
    context: typer.Context,
    query: Query = "",
    form: Annotated[Export, typer.Option("--as", help="How it is written.")] = Export.CSV,
    to: Annotated[
        Path | None, typer.Option(help="File to write; without it, the screen or a pipe.")
    ] = None,
) -> None:
    """Write all that is found: a table, JSON lines, or the certificates. It is audited."""
    after: str | None = None
    target = to.open("w", encoding="utf-8", newline="") if to else None
    try:
        while after != "":
            order = terminal.order(ExportOrder, query=query, after=after, form=form)
            part = _ask(context, "POST", "/search/export", order)
            after = part["after"]
            if target is not None:
                target.write(part["written"])
            else:
                typer.echo(part["written"], nl=False)
    finally:
        if target is not None:
            target.close()


@app.command("list")
def list_(context: typer.Context, output: OutputOption = None, as_json: AsJson = False) -> None:
    """List the queries that you keep, and those that others share."""
    rows = _ask(context, "GET", "/searches")
    show(rows, terminal.chosen(output, as_json), "name", "query", "owner", "shared")


@app.command("keep")
def keep(
    context: typer.Context,
    name: Name,
    query: Query,
    *,
    shared: Annotated[bool, typer.Option(help="Offer it to everybody.")] = False,
) -> None:
    """Keep a query under a name, or change it."""
    _ask(context, "PUT", _place(name), terminal.order(KeepOrder, query=query, shared=shared))
    out.print(f"The query {escape(name)} is kept.")


@app.command("drop")
def drop(context: typer.Context, name: Name) -> None:
    """Forget a query."""
    _ask(context, "DELETE", _place(name))
    out.print(f"The query {escape(name)} is dropped.")


def _place(name: str) -> str:
    return f"/searches/{quote(name, safe='')}"


def _ask(
    context: typer.Context, method: str, route: str, order: console.Order | None = None
) -> Any:
    return console.ask(config.load(context.obj).control_socket, method, route, order)
