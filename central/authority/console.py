"""CAs from the console of central's box: routes of the socket, and the commands ``ca …``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from aiohttp import web
from rich.markup import escape
from rich.table import Table

from central.authority.doors import one_root
from central.authority.orders import (
    CaOrder,
    CertificatesOrder,
    CreateOrder,
    CrossOrder,
    PartitionOrder,
    RequestOrder,
)
from shared.kernel.errors import BadRequestError, NotFoundError
from shared.pki import formats
from shared.pki.key_types import KeyType
from shared.policy.rights import Permission
from shared.web import terminal
from shared.web.console import Order, command, read_order
from shared.web.terminal import out

_PEM_BYTES_MAX = 64 * 1024

_READ, _WRITE = Permission.AUTHORITY_READ, Permission.AUTHORITY_WRITE

#: Sends a command to the running server: context, method, route, order.
Ask = Callable[[typer.Context, str, str, Order | None], Any]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Id = Annotated[str, typer.Argument(help="Id of the CA; `ca list` shows it.")]
Type = Annotated[KeyType, typer.Option("--key-type", help="Type of the CA's key.")]
Tenant = Annotated[str, typer.Option(help="Whose CA it is; empty: everybody's.")]
Partitions = Annotated[int, typer.Option(help="Partitions of the CRL: 1, 2, 4, … 256.")]


class Authorities(Protocol):
    """What changes the hierarchy (``central.authority.administration``)."""

    async def listed(self) -> list[dict[str, Any]]:
        """Describe every CA."""
        ...

    async def certificates(self, ca_id: str) -> list[bytes]:
        """Give a CA's certificates, DER."""
        ...

    async def create(self, order: CreateOrder, actor: str) -> str:
        """Make a CA; gives its id."""
        ...

    async def request(self, order: RequestOrder, actor: str) -> bytes:
        """Make the key of a CA below a foreign one; gives the CSR, DER."""
        ...

    async def install(self, ders: Sequence[bytes], actor: str) -> str:
        """Take the certificate that was made of a request; gives the CA's id."""
        ...

    async def trust(self, der: bytes, name: str, actor: str) -> str:
        """Trust a foreign root; gives its id."""
        ...

    async def cross_certify(self, order: CrossOrder, actor: str) -> bytes:
        """Certify another CA; gives the certificate, DER."""
        ...

    async def roll_over(self, ca_id: str, actor: str) -> str:
        """Follow a CA by its next generation; gives its id."""
        ...

    async def partition(self, ca_id: str, count: int, actor: str) -> None:
        """Share out a CA's CRL to partitions."""
        ...

    async def retire(self, ca_id: str, actor: str) -> None:
        """Let a CA issue no more."""
        ...

    async def delete(self, ca_id: str, actor: str) -> None:
        """Forget a CA that nothing uses."""
        ...


def routes(authorities: Authorities) -> list[web.AbstractRouteDef]:
    """Give the routes of the unix socket."""

    async def create(request: web.Request, actor: str) -> Any:
        return {"ca_id": await authorities.create(await read_order(request, CreateOrder), actor)}

    async def ask(request: web.Request, actor: str) -> Any:
        csr = await authorities.request(await read_order(request, RequestOrder), actor)
        return {"csr": formats.request_pem(csr)}

    async def install(request: web.Request, actor: str) -> Any:
        order = await read_order(request, CertificatesOrder)
        ders = formats.certificates(order.pem.encode())
        return {"ca_id": await authorities.install(ders, actor)}

    async def trust(request: web.Request, actor: str) -> Any:
        order = await read_order(request, CertificatesOrder)
        return {"ca_id": await authorities.trust(one_root(order.pem), order.name, actor)}

    async def cross(request: web.Request, actor: str) -> Any:
        der = await authorities.cross_certify(await read_order(request, CrossOrder), actor)
        return {"certificate": formats.pem([der])}

    return [
        *_on_one(authorities),
        web.post("/cas", command(_WRITE, create)),
        web.post("/cas/request", command(_WRITE, ask)),
        web.post("/cas/install", command(_WRITE, install)),
        web.post("/cas/trust", command(_WRITE, trust)),
        web.post("/cas/cross", command(_WRITE, cross)),
    ]


def _on_one(authorities: Authorities) -> list[web.AbstractRouteDef]:
    async def listed(_request: web.Request, _actor: str) -> Any:
        return await authorities.listed()

    async def shown(request: web.Request, _actor: str) -> Any:
        return {"pem": formats.pem(await authorities.certificates(request.match_info["ca_id"]))}

    async def roll_over(request: web.Request, actor: str) -> Any:
        order = await read_order(request, CaOrder)
        return {"ca_id": await authorities.roll_over(order.ca_id, actor)}

    async def partition(request: web.Request, actor: str) -> Any:
        order = await read_order(request, PartitionOrder)
        await authorities.partition(request.match_info["ca_id"], order.crl_partitions, actor)

    async def retire(request: web.Request, actor: str) -> Any:
        await authorities.retire((await read_order(request, CaOrder)).ca_id, actor)

    async def delete(request: web.Request, actor: str) -> Any:
        await authorities.delete(request.match_info["ca_id"], actor)

    return [
        web.get("/cas", command(_READ, listed)),
        web.post("/cas/roll-over", command(_WRITE, roll_over)),
        web.post("/cas/retire", command(_WRITE, retire)),
        web.get("/cas/{ca_id}", command(_READ, shown)),
        web.post("/cas/{ca_id}/partition", command(_WRITE, partition)),
        web.delete("/cas/{ca_id}", command(_WRITE, delete)),
    ]


def commands(ask: Ask) -> typer.Typer:
    """Give the group ``ca``."""
    app = typer.Typer(no_args_is_help=True, help="CAs: any number, at any depth.")
    _add_looking(app, ask)
    _add_making(app, ask)
    _add_foreign(app, ask)
    _add_ending(app, ask)
    return app


def _add_looking(app: typer.Typer, ask: Ask) -> None:
    @app.command("list")
    def listed(context: typer.Context, as_json: Json = False) -> None:
        """Show every CA below its issuer; where its key is, and whether it issues."""
        rows = ask(context, "GET", "/cas", None)
        if as_json:
            terminal.print_json(rows)
            return
        table = Table("name", "kind", "state", "tenant", "key", "algorithm", "until", "CRLs", "id")
        for row in rows:
            name = f"{'  ' * row['depth']}{row['name']}"
            rest = ("kind", "state", "tenant", "key", "algorithm", "not_after")
            shown = (*rest, "crl_partitions", "ca_id")
            table.add_row(escape(name), *(escape(str(row.get(part, ""))) for part in shown))
        out.print(table)

    @app.command()
    def show(context: typer.Context, ca_id: Id) -> None:
        """Print a CA's certificate and its cross-certificates in PEM."""
        typer.echo(ask(context, "GET", f"/cas/{ca_id}", None)["pem"], nl=False)


def _add_making(app: typer.Typer, ask: Ask) -> None:
    @app.command()
    def create(  # noqa: PLR0917 - options of a command
        context: typer.Context,
        name: Annotated[str, typer.Argument(help="Name (CN) of the CA.")],
        kind: Annotated[
            str,
            typer.Option(help="root; sub (certifies CAs); fleet (certifies gateways); issuing."),
        ] = "issuing",
        parent: Annotated[
            str | None, typer.Option(help="Id of the CA above; none: a root.")
        ] = None,
        key_type: Type = KeyType.EC_P256,
        path_length: Annotated[
            int | None, typer.Option(help="How many CAs may follow below (RFC 5280 §4.2.1.9).")
        ] = None,
        days: Annotated[int | None, typer.Option(help="Days to live; none: no expiry.")] = None,
        tenant: Tenant = "",
        crl_partitions: Partitions = 1,
    ) -> None:
        """Make a CA and print its id.

        Of several active ones the newest is used: fleet CAs for gateways that join, issuing CAs
        for what names no other. A profile names its CA by id or kind.
        """
        order = terminal.order(
            CreateOrder,
            name=name,
            kind=kind,
            parent=parent,
            key_type=key_type,
            path_length=path_length,
            days=days,
            tenant=tenant,
            crl_partitions=crl_partitions,
        )
        typer.echo(ask(context, "POST", "/cas", order)["ca_id"])

    @app.command("cross-certify")
    def cross_certify(
        context: typer.Context,
        ca_id: Id,
        issuer: Annotated[str, typer.Option(help="Id of the CA that certifies it too.")],
        days: Annotated[int | None, typer.Option(help="Days to live; none: as both.")] = None,
    ) -> None:
        """Certify a CA by another of ours, so that who trusts either one trusts it; prints PEM."""
        order = terminal.order(CrossOrder, ca_id=ca_id, issuer=issuer, days=days)
        typer.echo(ask(context, "POST", "/cas/cross", order)["certificate"], nl=False)


def _add_foreign(app: typer.Typer, ask: Ask) -> None:
    @app.command("request")
    def request(
        context: typer.Context,
        name: Annotated[str, typer.Argument(help="Name (CN) of the CA.")],
        kind: Annotated[str, typer.Option(help="sub, fleet or issuing.")] = "fleet",
        key_type: Type = KeyType.EC_P256,
        tenant: Tenant = "",
    ) -> None:
        """Make the key of a CA that your company's CA shall certify; prints the CSR.

        Bring back what it makes of it with `ca install`.
        """
        order = terminal.order(RequestOrder, name=name, kind=kind, key_type=key_type, tenant=tenant)
        typer.echo(ask(context, "POST", "/cas/request", order)["csr"], nl=False)

    @app.command()
    def install(
        context: typer.Context,
        path: Annotated[
            Path, typer.Argument(help="PEM: the CA's certificate, then its chain to the root.")
        ],
    ) -> None:
        """Take in the certificate that a foreign CA made of a request; prints the CA's id."""
        order = terminal.order(CertificatesOrder, pem=_read(path))
        typer.echo(ask(context, "POST", "/cas/install", order)["ca_id"])

    @app.command()
    def trust(
        context: typer.Context,
        path: Annotated[Path, typer.Argument(help="The foreign root's certificate, PEM or DER.")],
        name: Annotated[str, typer.Option(help="What to call it here.")] = "",
    ) -> None:
        """Trust a foreign root: compare its fingerprint first. Prints its id."""
        order = terminal.order(CertificatesOrder, pem=_read(path), name=name)
        typer.echo(ask(context, "POST", "/cas/trust", order)["ca_id"])


def _add_ending(app: typer.Typer, ask: Ask) -> None:
    @app.command("roll-over")
    def roll_over(context: typer.Context, ca_id: Id) -> None:
        """Follow a CA by its next generation, with a new key; prints its id.

        The former keeps its CRL and OCSP. Roots certify each other; gateways below a fleet CA get
        a new certificate for their CA and need no visit.
        """
        order = terminal.order(CaOrder, ca_id=ca_id)
        typer.echo(ask(context, "POST", "/cas/roll-over", order)["ca_id"])

    @app.command()
    def partition(
        context: typer.Context,
        ca_id: Id,
        count: Annotated[int, typer.Argument(help="1 (the whole CRL), 2, 4, … 256.")],
    ) -> None:
        """Share out a CA's CRL to so many partitions; new certificates name theirs.

        Each revocation then signs one small list. Certificates of before keep the CRL that they
        name: the whole one, or a partition of a former number.
        """
        order = terminal.order(PartitionOrder, crl_partitions=count)
        ask(context, "POST", f"/cas/{ca_id}/partition", order)
        out.print("All partitions are served; new certificates name theirs.")

    @app.command()
    def retire(context: typer.Context, ca_id: Id) -> None:
        """Let a CA issue no more; what it issued goes on being answered for."""
        ask(context, "POST", "/cas/retire", terminal.order(CaOrder, ca_id=ca_id))
        out.print("The CA only keeps its status from now on.")

    @app.command()
    def delete(context: typer.Context, ca_id: Id) -> None:
        """Forget a CA with its key; refused while anything uses it, saying what."""
        ask(context, "DELETE", f"/cas/{ca_id}", None)
        out.print("The CA and its key are gone.")


def _read(path: Path) -> str:
    """Read certificates as PEM, whichever of the two forms the file has."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > _PEM_BYTES_MAX:
        raise BadRequestError(f"{path} is too large to hold a chain.")
    return formats.pem(formats.certificates(data))
