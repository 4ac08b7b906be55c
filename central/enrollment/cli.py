"""``tma-central alias | requester | manufacturer | device``: who may enroll."""

import csv
import json
import sys
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from central import config
from central.enrollment import orders
from shared.enroll.est import alias_cli
from shared.web import console, terminal
from shared.web.terminal import AsJson, OutputOption, out, show

_ROWS_AT_ONCE = 500
_FAILED = 1

alias_app = typer.Typer(no_args_is_help=True, help="Enrollment aliases: the labels of EST.")
requester_app = typer.Typer(no_args_is_help=True, help="Who may enroll without a station token.")
manufacturer_app = typer.Typer(no_args_is_help=True, help="CAs of devices (IEEE 802.1AR IDevIDs).")
device_app = typer.Typer(no_args_is_help=True, help="Device records and one-time codes.")

Name = Annotated[str, typer.Argument(help="Its name.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``tma-central``."""
    app.add_typer(alias_app, name="alias")
    app.add_typer(requester_app, name="requester")
    app.add_typer(manufacturer_app, name="manufacturer")
    app.add_typer(device_app, name="device")


@alias_app.command("put")
def alias_put(
    context: typer.Context,
    name: Name,
    *,
    profile: Annotated[str, typer.Option(help="The profile that it issues for.")],
    accept: Annotated[
        list[str] | None,
        typer.Option(help="token, certificate, password, code, manufacturer, webhook; repeat it."),
    ] = None,
    manufacturer: Annotated[
        list[str] | None, typer.Option(help="Whose device certificates it takes; repeat it.")
    ] = None,
    serial_pattern: Annotated[
        str, typer.Option(help="Serial numbers: # is a digit, ? one character, * any.")
    ] = "*",
    known_devices_only: Annotated[
        bool, typer.Option("--known-devices-only", help="Refuse devices without a record.")
    ] = False,
    server_keys: Annotated[
        bool, typer.Option("--server-keys", help="Make keys for who cannot (serverkeygen).")
    ] = False,
    renewal: Annotated[bool, typer.Option(help="Whether certificates may be renewed.")] = True,
    renewal_window_days: Annotated[
        int | None, typer.Option(help="Renew in the last so many days only.")
    ] = None,
    change_subject: Annotated[
        bool, typer.Option("--change-subject", help="Let a renewal change the names (RFC 6402).")
    ] = False,
    channel_binding: Annotated[
        bool, typer.Option("--channel-binding", help="Demand tls-unique (TLS 1.2 only).")
    ] = False,
    wrapping: Annotated[str, typer.Option(help="Base64 in lines: auto, always, never.")] = "auto",
    enabled: Annotated[bool, typer.Option(help="Whether it is on.")] = True,
) -> None:
    """Add an alias, or replace the one of this name; each gateway hears of it.

    The alias `default` is the address without a label.
    """
    document: dict[str, Any] = {
        "name": name,
        "profile": profile,
        "accepts": accept or ["token"],
        "manufacturers": manufacturer or [],
        "serial_pattern": serial_pattern,
        "known_devices_only": known_devices_only,
        "server_keys": server_keys,
        "renewal": renewal,
        "renewal_window_days": renewal_window_days,
        "change_subject": change_subject,
        "channel_binding": channel_binding,
        "wrapping": wrapping,
        "enabled": enabled,
    }
    _ask(context, "PUT", "/access/alias", _Raw(document=document))
    out.print(f"Alias {escape(name)} issues for {escape(profile)}.")


@requester_app.command("add")
def requester_add(
    context: typer.Context,
    name: Name,
    *,
    alias: Annotated[list[str], typer.Option(help="Alias that he may use, or *; repeat it.")],
    kind: Annotated[str, typer.Option(help="password, certificate or webhook.")] = "password",
    profile: Annotated[list[str] | None, typer.Option(help="Profiles; default: all.")] = None,
    gateway: Annotated[
        list[str] | None, typer.Option(help="Gateways, or _central; default: all.")
    ] = None,
    days: Annotated[int | None, typer.Option(help="Days until it ends; default: never.")] = None,
    certificate: Annotated[
        str | None, typer.Option(help="SHA-256 of his client certificate, in hex.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where a webhook is asked.")] = None,
) -> None:
    """Let somebody enroll and print the password or webhook secret that was made, once."""
    order = terminal.order(
        orders.RequesterOrder,
        name=name,
        kind=kind,
        aliases=tuple(alias),
        profiles=tuple(profile or ["*"]),
        gateways=tuple(gateway or ["*"]),
        days=days,
        certificate=certificate,
        url=url,
    )
    secret = _ask(context, "POST", "/access/requester", order)["secret"]
    typer.echo(secret if secret is not None else f"Requester {name} may enroll.")


@manufacturer_app.command("put")
def manufacturer_put(
    context: typer.Context,
    name: Name,
    certificate: Annotated[
        list[Path], typer.Option(help="File with CA certificates, PEM or DER; repeat it.")
    ],
    crl: Annotated[list[Path] | None, typer.Option(help="CRL of theirs, PEM or DER.")] = None,
) -> None:
    """Believe device certificates of these CAs, where an alias names the manufacturer.

    Name the CAs between the root and the devices too: devices rarely send them.
    """
    from central.enrollment import files  # noqa: PLC0415  # cryptography

    document = {
        "name": name,
        "certificates": [_text(der) for path in certificate for der in files.certificates(path)],
        "crls": [_text(files.crl(path)) for path in crl or []],
    }
    _ask(context, "PUT", "/access/manufacturer", _Raw(document=document))
    out.print(f"Manufacturer {escape(name)} is trusted where an alias names it.")


@device_app.command("import")
def device_import(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV in UTF-8; `-` reads standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, keep nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import device records. The first line names the columns: serial, product, order, line.

    Any other column is metadata. Each row gets a verdict; what is refused is printed with its
    row number, and the exit status is 1 then. Importing a file again changes nothing.
    """
    source = sys.stdin if str(file) == "-" else file.open(encoding="utf-8-sig", newline="")
    counts: dict[str, int] = dict.fromkeys(("added", "changed", "same", "refused"), 0)
    with source:
        reader = csv.reader(source)
        empty: list[str] = []
        header = [name.strip() for name in next(reader, empty)]
        first = 2
        while rows := [row for _, row in zip(range(_ROWS_AT_ONCE), reader, strict=False)]:
            order = terminal.order(
                orders.ImportOrder, header=header, rows=rows, first_row=first, dry_run=dry_run
            )
            for verdict in _ask(context, "POST", "/devices/import", order):
                counts[verdict["verdict"]] += 1
                if verdict["verdict"] == "refused":
                    typer.echo(f"row {verdict['row']}: {verdict['detail']}", err=True)
            first += len(rows)
            if sys.stderr.isatty():
                typer.echo(f"\r{first - 2} rows", err=True, nl=False)
    if as_json:
        terminal.print_json(counts)
    else:
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        out.print(f"{'Would be: ' if dry_run else ''}{told}.")
    if counts["refused"]:
        raise typer.Exit(_FAILED)


@device_app.command("list")
def device_list(
    context: typer.Context,
    *,
    serial: Annotated[str | None, typer.Option(help="How the serial number begins.")] = None,
    product: Annotated[str | None, typer.Option(help="Product.")] = None,
    order: Annotated[str | None, typer.Option(help="Order.")] = None,
    line: Annotated[str | None, typer.Option(help="Line.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="name=value; repeat it.")] = None,
    after: Annotated[str, typer.Option(help="Go on behind this serial number.")] = "",
    output: OutputOption = None,
    as_json: AsJson = False,
) -> None:
    """List device records by serial number, 100 at a time."""
    from urllib.parse import urlencode  # noqa: PLC0415  # costs start-up time

    wanted = {"serial": serial, "product": product, "order": order, "line": line, "after": after}
    given = {name: value for name, value in wanted.items() if value}
    pairs = map(console.name_and_value, metadata or ())
    query = urlencode(given | {f"meta.{name}": value for name, value in pairs})
    rows = _ask(context, "GET", f"/devices?{query}")
    show(rows, terminal.chosen(output, as_json), "serial", "product", "order", "line")


@device_app.command("remove")
def device_remove(context: typer.Context, serial: Name) -> None:
    """Forget a device, here and at its gateways; its certificates stay."""
    from urllib.parse import urlencode  # noqa: PLC0415  # costs start-up time

    _ask(context, "DELETE", f"/devices?{urlencode({'serial': serial})}")
    out.print(f"Device {escape(serial)} is forgotten.")


@device_app.command("codes")
def device_codes(
    context: typer.Context,
    serial: Annotated[list[str] | None, typer.Argument(help="Serial numbers.")] = None,
    *,
    gateway: Annotated[str, typer.Option(help="Where they can be spent: a gateway, or _central.")],
    file: Annotated[
        Path | None, typer.Option(help="File with one serial number per line; `-`: stdin.")
    ] = None,
    alias: Annotated[str, typer.Option(help="The alias that they open; default: any.")] = "*",
    days: Annotated[int, typer.Option(help="Days until they end.")] = 30,
) -> None:
    """Make one-time codes and print them as CSV (serial,code), this once."""
    serials = list(serial or [])
    if file is not None:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        serials += [line.strip() for line in text.splitlines() if line.strip()]
    order = terminal.order(
        orders.CodesOrder, serials=tuple(serials), gateway=gateway, alias=alias, days=days
    )
    writer = csv.writer(sys.stdout)
    writer.writerow(["serial", "code"])
    writer.writerows([one["serial"], one["code"]] for one in _ask(context, "POST", "/codes", order))


@device_app.command("lines")
def device_lines(
    context: typer.Context,
    gateway: Annotated[str, typer.Argument(help="Name of the gateway.")],
    line: Annotated[list[str] | None, typer.Argument(help="Lines; none: its own name.")] = None,
) -> None:
    """Say which lines a gateway serves: it gets their device records, and those of no line."""
    order = terminal.order(orders.LinesOrder, name=gateway, lines=tuple(line or []))
    _ask(context, "PUT", "/gateways/lines", order)
    out.print(f"{escape(gateway)} serves: {escape(', '.join(line or [gateway]))}.")


def _add_list_and_remove(app: typer.Typer, kind: str, *columns: str) -> None:
    """Give each kind the same two commands."""

    def list_all(
        context: typer.Context, output: OutputOption = None, as_json: AsJson = False
    ) -> None:
        rows = _ask(context, "GET", f"/access/{kind}")
        show(rows, terminal.chosen(output, as_json), *columns)

    def remove(context: typer.Context, name: Name) -> None:
        _ask(context, "DELETE", f"/access/{kind}/{name}")
        out.print(f"{kind.capitalize()} {escape(name)} is removed.")

    list_all.__doc__ = f"List every {kind}."
    remove.__doc__ = f"Remove a {kind}; whom it admitted is refused from now on."
    app.command("list")(list_all)
    app.command("remove")(remove)


class _Raw(console.Order):
    """A document as it is; the server checks it."""

    document: dict[str, Any]

    def model_dump_json(self, **_options: Any) -> str:
        """Write the document alone."""
        return json.dumps(self.document)


def _text(der: bytes) -> str:
    return b64encode(der).decode()


def _ask(
    context: typer.Context, method: str, route: str, order: console.Order | None = None
) -> Any:
    settings = config.load(context.obj)
    return console.ask(settings.control_socket, method, route, order)


alias_cli.add_commands(alias_app, _ask)
_add_list_and_remove(alias_app, "alias", "name", "profile", "accepts", "enabled")
_add_list_and_remove(requester_app, "requester", "name", "kind", "aliases", "gateways")
_add_list_and_remove(manufacturer_app, "manufacturer", "name", "certificates", "crls")
