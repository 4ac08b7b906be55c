"""``profile explain`` at the command line of both products."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field
from rich.markup import escape
from rich.table import Table

from shared.kernel.errors import BadRequestError
from shared.web import terminal
from shared.web.console import Order
from shared.web.terminal import out

#: Asks the running service: context, method, route, order.
Ask = Callable[[typer.Context, str, str, Any], Any]


class ExplainOrder(Order):
    """The attributes of an enrollment, and who would ask (station:x, user:x, …)."""

    attributes: Annotated[dict[str, Any], Field(default_factory=dict[str, Any])]
    principal: str = "station:explain"


def add_command(app: typer.Typer, ask: Ask) -> None:
    """Add ``explain`` to the ``profile`` commands of a product."""

    @app.command("explain")
    def explain(  # noqa: PLR0917 - one option per field
        context: typer.Context,
        name: Annotated[str, typer.Argument(help="Name of the profile.")],
        csr: Annotated[Path | None, typer.Option(help="File with a CSR in PEM.")] = None,
        attributes: Annotated[
            Path | None, typer.Option(help="JSON file with the attributes of an enrollment.")
        ] = None,
        common_name: Annotated[str | None, typer.Option("--cn", help="Common name.")] = None,
        device: Annotated[str | None, typer.Option(help="Device id.")] = None,
        principal: Annotated[
            str, typer.Option(help="Who would ask: station:NAME, user:NAME, …")
        ] = "station:explain",
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    ) -> None:
        """Explain what would become of a request, rule by rule; nothing is issued."""
        wanted: dict[str, Any] = read_json(attributes) if attributes else {}
        wanted |= {"csr": csr.read_text("ascii")} if csr else {}
        wanted |= {"cn": common_name} if common_name else {}
        wanted |= {"device_id": device} if device else {}
        order = terminal.order(ExplainOrder, attributes=wanted, principal=principal)
        told = ask(context, "POST", f"/profiles/{name}/explain", order)
        if as_json:
            terminal.print_json(told)
        else:
            _print(told)


def read_json(path: Path) -> Any:
    """Read a JSON file; raises BadRequestError."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadRequestError(f"The file {path} cannot be read as JSON.") from error


def _print(told: dict[str, Any]) -> None:
    table = Table("rule", "verdict", "value", "what to do")
    for verdict in told["verdicts"]:
        table.add_row(
            verdict["rule"],
            verdict["outcome"].replace("_", " "),
            escape(verdict["value"]),
            escape(f"{verdict['message']} {verdict['remedy']}".strip()),
        )
    out.print(table)
    if told["certificate"] is None:
        out.print(f"It would be refused: {escape(told['refusal']['message'])}")
        return
    out.print("It would be issued:")
    for field, value in told["certificate"].items():
        out.print(f"  {field}: {escape(str(value))}", soft_wrap=True)
