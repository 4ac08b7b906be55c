"""The succession of the directive key, by REST and from the console."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from aiohttp import web
from rich.markup import escape
from rich.table import Table

from central.identity.doors import Door
from central.sync.directive_keys import DirectiveKeys
from shared.kernel.clock import datetime_of
from shared.policy.rights import Permission
from shared.store.backups import Backups
from shared.web import terminal
from shared.web.auth import Principal
from shared.web.console import Order, read_order
from shared.web.terminal import out

_SEE, _CHANGE = Permission.AUTHORITY_READ, Permission.AUTHORITY_WRITE
#: Sends a command to the running server: context, method, route, order.
Ask = Callable[[typer.Context, str, str, Order | None], Any]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class RetireOrder(Order):
    """Retire the former key; ``force``: although gateways or backups know only that one."""

    force: bool = False


def doors(keys: DirectiveKeys, backups: Backups) -> list[Door]:
    """Give what REST and the console have."""

    async def listed(_request: web.Request, _who: Principal) -> Any:
        return await keys.listed()

    async def rotate(_request: web.Request, who: Principal) -> Any:
        return await keys.rotate(who.name)

    async def retire(request: web.Request, who: Principal) -> Any:
        order = await read_order(request, RetireOrder)
        return await keys.retire(who.name, backups, force=order.force)

    return [
        Door(_SEE, "GET", "/directive-keys", "directive-key", listed),
        Door(_CHANGE, "POST", "/directive-keys/rotate", "directive-key", rotate),
        Door(_CHANGE, "POST", "/directive-keys/retire", "directive-key", retire),
    ]


def commands(ask: Ask) -> typer.Typer:
    """Give the group ``directive-key``."""
    app = typer.Typer(no_args_is_help=True, help="The key that signs all that gateways are told.")

    @app.command("list")
    def list_(context: typer.Context, as_json: _Json = False) -> None:
        """List the keys, and the gateways that do not trust the present one yet."""
        _show(ask(context, "GET", "/directive-keys", None), as_json=as_json)

    @app.command("rotate")
    def rotate(context: typer.Context, as_json: _Json = False) -> None:
        """Make a successor, and have all gateways told under the present key's signature.

        A gateway that is offline hears of it when it returns. Invitations that nobody joined by
        are void: invite again.
        """
        _show(ask(context, "POST", "/directive-keys/rotate", None), as_json=as_json)

    @app.command("retire")
    def retire(
        context: typer.Context,
        force: Annotated[
            bool,
            typer.Option(
                "--force", help="Although gateways have not confirmed: they must join again."
            ),
        ] = False,
        as_json: _Json = False,
    ) -> None:
        """Delete the former key; gateways trust it no more.

        Refused until every gateway trusts the present one and a backup that counts holds it.
        """
        order = RetireOrder(force=force)
        _show(ask(context, "POST", "/directive-keys/retire", order), as_json=as_json)

    return app


def _show(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(found)
        return
    table = Table("key", "state", "since", "begins with")
    for one in found:
        since = f"{datetime_of(one['since_us']):%Y-%m-%d %H:%M} UTC" if one["since_us"] else "birth"
        table.add_row(one["id"], one["state"], since, one["kid"][:16])
    out.print(table)
    if waiting := found[0]["not_confirmed_by"]:
        out.print(f"Not confirmed yet by: {escape(', '.join(waiting))}.")
