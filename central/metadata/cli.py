"""``tma-central metadata``: pairs of text on CAs, gateways, stations, profiles and users."""

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from central import config
from central.metadata.orders import ADDRESSES, Kind, MetadataOrder
from shared.web import console, terminal
from shared.web.terminal import AsJson, Output, OutputOption, show

app = typer.Typer(
    no_args_is_help=True,
    help="Metadata of CAs, gateways, stations, profiles and users: pairs of text, searchable.",
)
KindArgument = Annotated[Kind, typer.Argument(help="What it is.")]
About = Annotated[str, typer.Argument(help="Its name; of a CA the id, `ca list` shows it.")]
Name = Annotated[str, typer.Argument(help="Name of the pair.")]
Value = Annotated[str, typer.Argument(help="Value of the pair.")]


def add_to(parent: typer.Typer) -> None:
    """Add the group to ``tma-central``."""
    parent.add_typer(app, name="metadata")


@app.command("show")
def show_(
    context: typer.Context,
    kind: KindArgument,
    about: About,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """Show the pairs of one object."""
    _print(_ask(context, "GET", _place(kind, about)), terminal.chosen(output, as_json))


@app.command("set")
def set_(  # noqa: PLR0917 - arguments of a command
    context: typer.Context,
    kind: KindArgument,
    about: About,
    name: Name,
    value: Value,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """Set one pair of an object, and show all of them."""
    order = terminal.order(MetadataOrder, metadata={name: value})
    _print(_ask(context, "PATCH", _place(kind, about), order), terminal.chosen(output, as_json))


@app.command("remove")
def remove(  # noqa: PLR0917 - arguments of a command
    context: typer.Context,
    kind: KindArgument,
    about: About,
    name: Name,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """Remove one pair of an object, and show the others."""
    order = terminal.order(MetadataOrder, metadata={name: None})
    _print(_ask(context, "PATCH", _place(kind, about), order), terminal.chosen(output, as_json))


@app.command("find")
def find(  # noqa: PLR0917 - arguments of a command
    context: typer.Context,
    kind: KindArgument,
    name: Name,
    value: Value,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """List the objects of a kind that carry this pair, by name."""
    rows: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        query = urlencode({f"filter[meta.{name}]": value, "page[after]": after})
        found = _ask(context, "GET", f"/metadata/{kind}?{query}")
        rows += found["rows"]
        after = found["after"] or None
    form = terminal.chosen(output, as_json)
    told = [{**row, "metadata": _told(row["metadata"])} for row in rows]
    show(rows if form is Output.JSON else told, form, "id", "metadata")


def _print(answer: dict[str, Any], form: Output) -> None:
    if form is Output.JSON:
        terminal.print_json(answer["metadata"])
        return
    pairs = [{"name": name, "value": value} for name, value in answer["metadata"].items()]
    show(pairs, form, "name", "value")


def _told(pairs: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in pairs.items()]


def _place(kind: Kind, about: str) -> str:
    return f"{ADDRESSES[kind]}/{quote(about, safe='')}/metadata"


def _ask(
    context: typer.Context, method: str, route: str, order: console.Order | None = None
) -> Any:
    return console.ask(config.load(context.obj).control_socket, method, route, order)
