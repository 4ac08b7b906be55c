"""``alias commands`` of both products' command lines."""

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote

import typer

from shared.web import terminal

Ask = Callable[[typer.Context, str, str], Any]


def add_commands(app: typer.Typer, ask: Ask) -> None:
    """Add it to the group ``alias``; ``ask`` asks the running service: method and route."""

    @app.command("commands")
    def _commands(
        context: typer.Context,
        name: Annotated[str, typer.Argument(help="Name of the alias.")],
        device: Annotated[str | None, typer.Option(help="Serial number of the device.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    ) -> None:
        """Print the exact commands for a machine that enrolls at this box by this alias."""
        query = f"?device={quote(device, safe='')}" if device else ""
        steps = ask(context, "GET", f"/aliases/{quote(name, safe='')}/commands{query}")
        if as_json:
            terminal.print_json(steps)
            return
        for step in steps:
            typer.echo(f"# {step['title']}")
            typer.echo("\n".join([*step["lines"], ""]))
