"""``tma-central audit | approval``: what was done, and what waits for a second person."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from central import config
from central.identity.oversight import DecisionOrder, VerifyOrder
from shared.kernel.errors import BadRequestError
from shared.web import console, terminal
from shared.web.terminal import AsJson, OutputOption, out, show

_BROKEN = 1

audit_app = typer.Typer(no_args_is_help=True, help="The audit log: who did what.")
approval_app = typer.Typer(no_args_is_help=True, help="What waits for a second person.")

Number = Annotated[int, typer.Argument(help="Its number, as `approval list` prints it.")]
Remark = Annotated[str, typer.Option(help="Why; it is recorded.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``tma-central``."""
    app.add_typer(audit_app, name="audit")
    app.add_typer(approval_app, name="approval")


@audit_app.command("list")
def audit_list(
    context: typer.Context,
    *,
    actor: Annotated[str, typer.Option(help="Who, for example user:anna.")] = "",
    action: Annotated[str, typer.Option(help="What; gateway.* is all about gateways.")] = "",
    subject: Annotated[str, typer.Option(help="About whom or what.")] = "",
    before: Annotated[int, typer.Option(help="Go on with entries before this one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """List entries, newest first."""
    from urllib.parse import urlencode  # noqa: PLC0415  # costs start-up time

    asked = {"actor": actor, "action": action, "subject": subject, "before": before, "limit": limit}
    rows = _ask(context, "GET", f"/audit?{urlencode(asked)}")
    show(rows, terminal.chosen(output, as_json), "id", "at", "actor", "action", "subject")


@audit_app.command("verify")
def audit_verify(
    context: typer.Context,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="File with a checkpoint that was kept elsewhere; repeat it."),
    ] = None,
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """Judge the whole log: is any entry changed, missing or added? Exit status 1 if one is.

    Entries missing at the end show by the heads that the server signs every ten minutes; where
    those are gone too, by a checkpoint that you kept elsewhere.
    """
    kept = tuple(_read(path) for path in checkpoint or ())
    verdict = _ask(context, "POST", "/audit/verify", terminal.order(VerifyOrder, checkpoints=kept))
    broken = verdict["broken"]
    if terminal.chosen(output, as_json) is terminal.Output.JSON:
        terminal.print_json(verdict)
    elif broken is None:
        out.print(f"All {verdict['entries']} entries are as they were written.")
    else:
        typer.echo(f"Entry {broken['entry']} is broken: {broken['why']}.", err=True)
    if broken is not None:
        raise typer.Exit(_BROKEN)


@audit_app.command("checkpoint")
def audit_checkpoint(context: typer.Context) -> None:
    """Print the newest entry's number and hash, signed: keep it elsewhere, for `verify`."""
    typer.echo(_ask(context, "POST", "/audit/checkpoint")["checkpoint"])


@audit_app.command("export")
def audit_export(
    context: typer.Context,
    after: Annotated[int, typer.Option(help="Begin behind this entry.")] = 0,
) -> None:
    """Print the log as JSON lines, oldest first; `--after` continues an earlier export."""
    while rows := _ask(context, "GET", f"/audit?after={after}"):
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
        after = rows[-1]["id"]


@approval_app.command("list")
def approval_list(
    context: typer.Context, output: OutputOption = None, as_json: AsJson = False
) -> None:
    """List the newest requests."""
    rows = _ask(context, "GET", "/approvals")
    columns = ("id", "kind", "subject", "state", "requested_by", "expires", "decided_by")
    show(rows, terminal.chosen(output, as_json), *columns)


@approval_app.command("agree")
def approval_agree(context: typer.Context, number: Number, remark: Remark = "") -> None:
    """Agree to a request of somebody else, and have it done."""
    _ask(context, "POST", f"/approvals/{number}/agree", DecisionOrder(remark=remark))
    out.print(f"Request {number} is done.")


@approval_app.command("refuse")
def approval_refuse(context: typer.Context, number: Number, remark: Remark = "") -> None:
    """Refuse a request, or take one's own back."""
    _ask(context, "POST", f"/approvals/{number}/refuse", DecisionOrder(remark=remark))
    out.print(f"Request {number} is refused.")


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"{path} cannot be read as a checkpoint.") from error


def _ask(
    context: typer.Context, method: str, route: str, order: console.Order | None = None
) -> Any:
    return console.ask(config.load(context.obj).control_socket, method, route, order)
