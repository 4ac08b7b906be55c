"""Revocation by query from the console of a box: routes of the socket, command of both products."""

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from aiohttp import web
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from shared.issuance.revocation_orders import Operation, Revoking, Wanted
from shared.policy.rights import EVERYWHERE, Permission
from shared.policy.selection import Selection
from shared.web import terminal
from shared.web.console import Order, Text, command, name_and_value, read_order
from shared.web.terminal import out

_ID_BYTES = 16
_LOOK_S = 0.3
_KILOBYTE = 1_000
_DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
_Date = Annotated[datetime | None, typer.Option(formats=_DATES, help="In UTC.")]

#: Sends a command to the running service: context, method, route, order.
Ask = Callable[[typer.Context, str, str, Order | None], Any]


class RevokeManyOrder(Order):
    """Revoke what the selection means; with ``dry_run`` only say what that would do."""

    selection: Selection
    reason: Text = "unspecified"
    dry_run: bool = False


def routes(mass: Revoking) -> list[web.AbstractRouteDef]:
    """Give the routes of the unix socket."""

    async def begin(request: web.Request, actor: str) -> Any:
        order = await read_order(request, RevokeManyOrder)
        wanted = Wanted(order.selection, order.reason, (EVERYWHERE,), actor)
        if order.dry_run:
            return [one._asdict() for one in await mass.estimate(wanted)]
        return _told(await mass.begin(os.urandom(_ID_BYTES).hex(), wanted))

    async def fetch(request: web.Request, _actor: str) -> Any:
        return _told(await mass.find(request.match_info["id"]))

    async def cancel(request: web.Request, _actor: str) -> Any:
        return _told(await mass.cancel(request.match_info["id"]))

    return [
        web.post("/revocations", command(Permission.CERTIFICATE_REVOKE, begin)),
        web.get("/operations/{id}", command(Permission.CERTIFICATE_REVOKE, fetch)),
        web.delete("/operations/{id}", command(Permission.CERTIFICATE_REVOKE, cancel)),
    ]


def add_commands(app: typer.Typer, ask: Ask) -> None:
    """Add ``revoke-many``."""

    @app.command("revoke-many")
    def revoke_many(
        context: typer.Context,
        *,
        profile: Annotated[str | None, typer.Option(help="Issued under this profile.")] = None,
        ca: Annotated[str | None, typer.Option(help="Id of the issuing CA.")] = None,
        origin: Annotated[str | None, typer.Option(help="Gateway that issued it.")] = None,
        device: Annotated[list[str] | None, typer.Option(help="Device id; repeat it.")] = None,
        serial: Annotated[
            list[str] | None, typer.Option(help="Serial number in hex; repeat it.")
        ] = None,
        serials_from: Annotated[
            Path | None, typer.Option(help="File with one serial number a line.")
        ] = None,
        metadata: Annotated[list[str] | None, typer.Option(help="name=value; repeat it.")] = None,
        issued_from: _Date = None,
        issued_before: _Date = None,
        expires_from: _Date = None,
        expires_before: _Date = None,
        reason: Annotated[
            str, typer.Option(help="Reason of RFC 5280 §5.3.1 in snake case.")
        ] = "unspecified",
        dry_run: Annotated[bool, typer.Option(help="Only say what it would do.")] = False,
        yes: Annotated[bool, typer.Option(help="Do not ask.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    ) -> None:
        """Revoke all certificates that satisfy every criterion given, for good.

        It first says how many of which CA, and how large its CRL becomes, and asks. The service
        does the work in small steps, also if this command is interrupted; enrollments go on.
        """
        criteria = {
            "profile": profile,
            "ca_id": ca,
            "origin": origin,
            "device_ids": tuple(device or ()),
            "serials": (*(serial or ()), *_lines(serials_from)),
            "metadata": dict(map(name_and_value, metadata or ())),
            "issued_from": _utc(issued_from),
            "issued_before": _utc(issued_before),
            "expires_from": _utc(expires_from),
            "expires_before": _utc(expires_before),
        }
        order = terminal.order(RevokeManyOrder, selection=criteria, reason=reason, dry_run=True)
        estimate = ask(context, "POST", "/revocations", order)
        if dry_run:
            _print_estimate(estimate, as_json=as_json)
            return
        if not yes:
            _print_estimate(estimate, as_json=False)
            typer.confirm("Revoke them for good?", abort=True)
        order = order.model_copy(update={"dry_run": False})
        _finish(context, ask, ask(context, "POST", "/revocations", order), as_json=as_json)


def _finish(context: typer.Context, ask: Ask, operation: Any, *, as_json: bool) -> None:
    done = _watched(context, ask, operation)
    if as_json:
        terminal.print_json(done)
    elif done["state"] == "waiting":
        out.print("Nothing is revoked yet: it waits for a second person (`approval list`).")
    else:
        out.print(f"{done['revoked']:,} certificates are revoked; operation {done['state']}.")


def _watched(context: typer.Context, ask: Ask, operation: Any) -> Any:
    """Show how far it is, until it is at its end."""
    columns = TextColumn("revoked"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        task = progress.add_task("", total=operation["found"])
        while operation["state"] == "running":
            time.sleep(_LOOK_S)
            operation = ask(context, "GET", f"/operations/{operation['operation_id']}", None)
            progress.update(task, completed=operation["revoked"])
    return operation


def _print_estimate(estimate: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(estimate)
        return
    table = Table("CA", "certificates", "CRL becomes about")
    for one in estimate:
        size = f"{one['crl_bytes'] / _KILOBYTE:,.0f} kB"
        table.add_row(escape(one["ca_id"]), f"{one['certificates']:,}", size)
    out.print(table)


def _told(operation: Operation) -> dict[str, Any]:
    return {
        "operation_id": operation.operation_id,
        "state": operation.state,
        "found": operation.found,
        "revoked": operation.revoked,
    }


def _lines(path: Path | None) -> list[str]:
    return path.read_text("ascii").split() if path else []


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(tzinfo=UTC)
