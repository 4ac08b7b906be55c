"""``tma-central``: the commands of the server. docs/central.md describes each."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from central import config, directive_key_doors, history_console, question_console
from central import console as orders
from central.authority import console as authority_console
from central.enrollment import cli as enrollment
from central.identity import cli as identity
from central.identity import oversight_cli as oversight
from central.inventory import search_cli as search
from central.metadata import cli as metadata
from central.policy import commands as policy_commands
from shared.pki.key_types import KeyType
from shared.system import memory
from shared.web import backup_console, console, revocation_console, terminal
from shared.web.backup_console import Note
from shared.web.terminal import AsJson, OutputOption, out, show

if TYPE_CHECKING:
    from central.founding import Founded

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""TMA Edge central: root of trust, inventory of every certificate, fleet of gateways.

    First `init`, or `run` and its page; then `broker config` and the broker, then `run`. The other
    commands talk to the running server on this box. `--install-completion` completes them in your
    shell.

    Exit status: 0 done; 1 refused or failed, the message says why; 2 wrong usage or
    configuration; 3 no server is running; 4 not now, try again.
    """,
)
gateway_app = typer.Typer(no_args_is_help=True, help="The gateways of the fleet.")
station_app = typer.Typer(no_args_is_help=True, help="Stations and programs with a token.")
broker_app = typer.Typer(no_args_is_help=True, help="The MQTT broker between here and gateways.")
app.add_typer(gateway_app, name="gateway")
app.add_typer(station_app, name="station")
app.add_typer(broker_app, name="broker")
enrollment.add_to(app)
identity.add_to(app)
oversight.add_to(app)
search.add_to(app)
metadata.add_to(app)

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="Central's TOML file.", envvar="TMA_CENTRAL_CONFIG"),
]
GatewayName = Annotated[str, typer.Argument(help="Name of the gateway: a-z, 0-9 and dash.")]


def main() -> None:
    """Run one command; see ``shared.web.terminal`` for how it ends."""
    terminal.run(app)


@app.callback()
def settings(context: typer.Context, path: ConfigOption = config.DEFAULT_PATH) -> None:
    """Keep the path of the configuration for every command."""
    if not context.resilient_parsing:
        context.obj = path


@app.command()
def init(
    context: typer.Context,
    *,
    admin: Annotated[str, typer.Option(help="Name of the first administrator.")] = "admin",
    key_type: Annotated[
        KeyType, typer.Option(help="Type of the keys of root, fleet and issuing CA.")
    ] = KeyType.EC_P256,
    root_key_type: Annotated[
        KeyType | None, typer.Option(help="Type of the root's key, if it is another.")
    ] = None,
    signature: Annotated[
        str | None,
        typer.Option(
            help="What the root signs with, and the CAs below it where their keys can: e.g. "
            "rsa-pss-sha256 or ecdsa-sha512. Default: the usual one of the key type."
        ),
    ] = None,
    root_name: Annotated[
        str, typer.Option(help="Name of the root. Default: the organization and `Root CA`.")
    ] = "",
    fleet_name: Annotated[
        str, typer.Option(help="Name of the CA that certifies gateways. Default: … `Fleet CA`.")
    ] = "",
    issuing_name: Annotated[
        str, typer.Option(help="Name of central's issuing CA. Default: … `Issuing CA`.")
    ] = "",
    days: Annotated[
        int | None,
        typer.Option(help="Days until the root ends, and the CAs below with it. Default: never."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make everything that a new central needs: CAs, keys, profiles, first administrator.

    It prints the administrator's password and the recovery secret, once: keep the secret away
    from this box, a backup is worthless without it. Run again, it changes nothing and prints
    neither. The page that `run` serves before does the same.
    """
    from central import founding  # noqa: PLC0415  # cryptography and SQLAlchemy
    from central.first_order import FirstOrder  # noqa: PLC0415  # the same

    settings = _settings(context)
    order = terminal.order(
        FirstOrder,
        organization=settings.authority.organization,
        root_name=root_name,
        fleet_name=fleet_name,
        issuing_name=issuing_name,
        days=days,
        key_type=key_type,
        root_key_type=root_key_type,
        signature=signature,
        admin=admin,
    )
    founding.found(settings, order, partial(_show_founded, as_json=as_json))


def _show_founded(founded: "Founded", *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(asdict(founded))
        return
    if founded.password is None and founded.recovery_secret is None:
        out.print("This central exists already; nothing was changed.")
        return
    if founded.password is not None:
        out.print(f"Administrator [bold]{escape(founded.admin)}[/], password, shown this once:")
        out.print(founded.password, style="bold", markup=False, soft_wrap=True)
    if founded.recovery_secret is not None:
        out.print("Recovery secret, shown this once; a backup is worthless without it:")
        out.print(founded.recovery_secret, style="bold", soft_wrap=True)
    out.print(f"Root CA: {founded.root_path}, SHA-256 {founded.root_sha256}", soft_wrap=True)
    out.print("Next: `tma-central broker config DIR`, start mosquitto, then `tma-central run`.")


@app.command()
def run(context: typer.Context) -> None:
    """Run the server in the foreground until SIGTERM or SIGINT; it logs to stderr."""
    from central import server  # noqa: PLC0415  # the whole product

    memory.settle()
    server.run(_settings(context))


@app.command()
def revoke(
    context: typer.Context,
    serial: Annotated[str, typer.Argument(help="Serial number of the certificate, in hex.")],
    reason: Annotated[
        str, typer.Option(help="Reason of RFC 5280 §5.3.1 in snake case.")
    ] = "unspecified",
) -> None:
    """Revoke a certificate for good, wherever in the fleet it was issued.

    Central's OCSP shows it at once, the gateway's CRL as soon as the gateway has heard of it.
    """
    order = terminal.order(console.RevokeOrder, serial=serial, reason=reason)
    answer = _ask(context, "POST", "/revoke", order)
    out.print(f"Certificate {answer['serial']} is now: {answer['status']}.")


@gateway_app.command("invite")
def gateway_invite(context: typer.Context, name: GatewayName) -> None:
    """Print a join token, once: carry the line to the gateway and give it to `tma-gateway join`.

    It works once, for the configured time. Inviting again makes the earlier token worthless.
    """
    answer = _ask(context, "POST", "/gateways", terminal.order(orders.InviteOrder, name=name))
    typer.echo(answer["token"])


@gateway_app.command("list")
def gateway_list(
    context: typer.Context, output: OutputOption = None, as_json: AsJson = False
) -> None:
    """List the gateways with the state of their links."""
    columns = ("name", "state", "link", "since", "last contact", "behind", "applied")
    show(_ask(context, "GET", "/gateways"), terminal.chosen(output, as_json), *columns)


@gateway_app.command("end")
def gateway_end(
    context: typer.Context,
    name: GatewayName,
    reason: Annotated[str, typer.Option(help="Why; it is shown and recorded.")],
) -> None:
    """End a gateway that is stolen, broken or no longer needed: it cannot speak to central again.

    What it issued stays valid where central knows it; serials that central has not heard of
    are unknown to its OCSP from now on.
    """
    order = terminal.order(orders.EndOrder, name=name, reason=reason)
    answer = _ask(context, "POST", "/gateways/end", order)
    terminal.tell(answer, f"Gateway {name} is ended.")


@gateway_app.command("command")
def gateway_command(
    context: typer.Context,
    name: GatewayName,
    command: Annotated[str, typer.Argument(help="renew-identity, renew-authority or sign-crl.")],
    within_hours: Annotated[
        int, typer.Option(help="Hours in which the gateway must hear of it; else it does nothing.")
    ] = 7 * 24,
) -> None:
    """Have a gateway do one thing as soon as it is connected; the audit log has its answer.

    renew-identity: new keys and certificate for the link, the old one is revoked.
    renew-authority: a new issuing CA in its token; the old one keeps its CRL and OCSP.
    sign-crl: a fresh CRL for each of its CAs.
    """
    order = terminal.order(
        orders.CommandOrder, name=name, command=command, within_hours=within_hours
    )
    typer.echo(_ask(context, "POST", "/gateways/command", order)["command_id"])


@station_app.command("add")
def station_add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the station: a-z, 0-9, dot, dash.")],
    role: Annotated[str, typer.Option(help="station, admin or auditor.")] = "station",
    profile: Annotated[
        list[str] | None, typer.Option(help="Profile that it may use; repeat it. Default: all.")
    ] = None,
    days: Annotated[int, typer.Option(help="Days until its token ends.")] = 365,
) -> None:
    """Make a station and print its token, once: only a hash of it is kept."""
    order = terminal.order(
        orders.StationOrder, name=name, role=role, profiles=tuple(profile or ["*"]), days=days
    )
    typer.echo(_ask(context, "POST", "/stations", order)["token"])


@station_app.command("list")
def station_list(
    context: typer.Context, output: OutputOption = None, as_json: AsJson = False
) -> None:
    """List the stations, the ended ones too."""
    columns = ("name", "role", "profiles", "state", "ends")
    show(_ask(context, "GET", "/stations"), terminal.chosen(output, as_json), *columns)


@station_app.command("revoke")
def station_revoke(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the station.")]
) -> None:
    """End a station's token; what it enrolled stays valid."""
    _ask(context, "DELETE", f"/stations/{name}")
    out.print(f"The token of station {escape(name)} is no longer accepted.")


@broker_app.command("config")
def broker_config(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Where to write; it is made if missing.")],
) -> None:
    """Write the mosquitto configuration: listener, ACL, transport root, CRL, server certificate.

    Start the broker with `mosquitto -c DIR/mosquitto.conf`. The server keeps CRL and certificate
    in the directory fresh while it runs. Needs no running server.
    """
    from central import founding  # noqa: PLC0415  # cryptography and SQLAlchemy

    path = founding.write_broker(_settings(context), directory)
    out.print(f"Start the broker with: mosquitto -c {escape(str(path))}", soft_wrap=True)


class _Offline:
    """Backup and restore where no server runs."""

    def make(self, context: typer.Context, target: Path, note: Note) -> Mapping[str, Any]:
        """Back up."""
        from central import backup  # noqa: PLC0415  # cryptography and SQLAlchemy

        return backup.make_offline(_settings(context), target, note)

    def restore(
        self, context: typer.Context, path: Path, ask_secret: Callable[[], str], note: Note
    ) -> str:
        """Put a backup back."""
        from central import backup  # noqa: PLC0415  # cryptography and SQLAlchemy

        return backup.put_back(_settings(context), path, ask_secret, note)


@app.command("version")
def show_version() -> None:
    """Print the version."""
    typer.echo(version("tma-edge"))


def _settings(context: typer.Context) -> config.CentralSettings:
    return config.load(context.obj)


def _ask(
    context: typer.Context, method: str, route: str, order: console.Order | None = None
) -> Any:
    return console.ask(_settings(context).control_socket, method, route, order)


backup_console.add_commands(app, _ask, _Offline())
revocation_console.add_commands(app, _ask)
app.add_typer(question_console.conflict_commands(_ask), name="conflict")
app.add_typer(question_console.quarantine_commands(_ask), name="quarantine")
history_console.add_commands(gateway_app, _ask)
policy_commands.add_commands(app, _ask)
app.add_typer(authority_console.commands(_ask), name="ca")
app.add_typer(directive_key_doors.commands(_ask), name="directive-key")

if __name__ == "__main__":
    main()
