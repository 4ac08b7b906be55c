"""``tma-gateway``: the commands of one gateway. docs/gateway.md describes each."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from gateway import config
from gateway import console as orders
from gateway.snapshot import LineState, local_text
from gateway.version import VERSION
from shared.enroll.est import alias_cli
from shared.system import memory
from shared.web import backup_console, console, explain_console, revocation_console, terminal
from shared.web.backup_console import Note
from shared.web.terminal import AsJson, OutputOption, out, show

_STDIN_CHARS_MAX = 4096

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # it would write local variables, secrets too, into the log
    help="""A TMA Edge gateway: it issues certificates at the line, with or without a link.

    First `join`, then `run`; the other commands talk to the running agent.
    `--install-completion` completes them in your shell.

    Exit status: 0 done; 1 refused or failed, the message says why; 2 wrong usage or
    configuration; 3 no agent is running; 4 not now, try again.
    """,
)
station_app = typer.Typer(no_args_is_help=True, help="Places at the line that may enroll.")
line_app = typer.Typer(no_args_is_help=True, help="Stop or continue enrolling on this gateway.")
profile_app = typer.Typer(no_args_is_help=True, help="What certificates may contain.")
alias_app = typer.Typer(no_args_is_help=True, help="Enrollment aliases: the labels of EST.")
app.add_typer(station_app, name="station")
history_app = typer.Typer(no_args_is_help=True, help="What to do with an old database.")
app.add_typer(line_app, name="line")
app.add_typer(history_app, name="history")
app.add_typer(profile_app, name="profile")
app.add_typer(alias_app, name="alias")

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="The gateway's TOML file.", envvar="TMA_GATEWAY_CONFIG"),
]
Serial = Annotated[str, typer.Argument(help="Serial number of the certificate, in hex.")]
HoldId = Annotated[str, typer.Option("--id", help="Name of this hold, of your choice.")]


def main() -> None:
    """Run one command; see ``shared.web.terminal`` for how it ends."""
    terminal.run(app)


@app.callback()
def settings(context: typer.Context, path: ConfigOption = config.DEFAULT_PATH) -> None:
    """Read the configuration once for every command."""
    if not context.resilient_parsing:
        context.obj = path


@app.command()
def join(
    context: typer.Context,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File that holds the join token; without it, it is read from stdin."),
    ] = None,
) -> None:
    """Make this box a gateway of its central, with the join token that central printed.

    `tma-central gateway invite NAME` prints the token. Its secret is sent only to the server
    whose key the token names. Repeating the command after a failure is safe: the keys stay.
    The recovery secret that it prints is shown once: keep it away from this box.
    """
    from gateway import join as joining  # noqa: PLC0415  # cryptography and SQLAlchemy

    token = token_file.read_text("ascii") if token_file else sys.stdin.read(_STDIN_CHARS_MAX)
    name = joining.join(_settings(context), token, _print_recovery_secret)
    out.print(f"Joined as [bold]{escape(name)}[/]. Start the gateway with `tma-gateway run`.")


@app.command()
def run(context: typer.Context) -> None:
    """Run the gateway in the foreground until SIGTERM or SIGINT; it logs to stderr."""
    from gateway import agent  # noqa: PLC0415  # the whole product

    memory.settle()
    agent.run(_settings(context))


@app.command()
def status(context: typer.Context, output: OutputOption = None, as_json: AsJson = False) -> None:
    """Say what the technician page says."""
    snapshot = _ask(context, "GET", "/snapshot")
    if terminal.chosen(output, as_json) is terminal.Output.JSON:
        terminal.print_json(snapshot)
        return
    judged = snapshot["verdict"]
    out.print(f"[bold]{judged['headline']}[/]: {escape(judged['why'])}")
    if judged["remedy"]:
        out.print(f"What to do: {escape(judged['remedy'])}")
    for line in _told(snapshot):
        out.print(escape(line))


@app.command()
def revoke(
    context: typer.Context,
    serial: Serial,
    reason: Annotated[
        str, typer.Option(help="Reason of RFC 5280 §5.3.1 in snake case.")
    ] = "unspecified",
) -> None:
    """Revoke a certificate of this gateway for good; works without a link and without the token."""
    order = terminal.order(console.RevokeOrder, serial=serial, reason=reason)
    _print_certificate(_ask(context, "POST", "/revoke", order))


@app.command()
def hold(context: typer.Context, serial: Serial, hold_id: HoldId) -> None:
    """Suspend a certificate of this gateway until every hold on it is released."""
    order = terminal.order(orders.HoldOrder, serial=serial, hold_id=hold_id)
    _print_certificate(_ask(context, "POST", "/hold", order))


@app.command()
def release(context: typer.Context, serial: Serial, hold_id: HoldId) -> None:
    """Release one hold; a released hold id never holds again."""
    order = terminal.order(orders.HoldOrder, serial=serial, hold_id=hold_id)
    _print_certificate(_ask(context, "POST", "/release", order))


@station_app.command("add")
def station_add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the station: a-z, 0-9, dot, dash.")],
    profile: Annotated[
        list[str] | None, typer.Option(help="Profile that it may use; repeat it. Default: all.")
    ] = None,
    days: Annotated[int, typer.Option(help="Days until its token ends.")] = 365,
) -> None:
    """Make a station and print its token, once: only a hash of it is kept."""
    order = terminal.order(
        orders.StationOrder, name=name, profiles=tuple(profile or ["*"]), days=days
    )
    typer.echo(_ask(context, "POST", "/stations", order)["token"])


@station_app.command("list")
def station_list(
    context: typer.Context, output: OutputOption = None, as_json: AsJson = False
) -> None:
    """List the stations, the ended ones too."""
    rows = _ask(context, "GET", "/stations")
    show(rows, terminal.chosen(output, as_json), "name", "profiles", "state", "ends")


@station_app.command("revoke")
def station_revoke(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the station.")]
) -> None:
    """End a station's token; what it enrolled stays valid."""
    _ask(context, "DELETE", f"/stations/{name}")
    out.print(f"The token of station {escape(name)} is no longer accepted.")


@line_app.command("stop")
def line_stop(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why; the technician page shows it.")],
) -> None:
    """Refuse every enrollment until `line continue`; revoking and status go on."""
    _ask(context, "POST", "/line", orders.LineOrder(state=LineState.STOPPED, reason=reason))
    out.print("The line is stopped.")


@line_app.command("continue")
def line_continue(context: typer.Context) -> None:
    """Let the line enroll again."""
    order = orders.LineOrder(state=LineState.RUNNING, reason="continued by an operator")
    _ask(context, "POST", "/line", order)
    out.print("The line goes on.")


@history_app.command("continue")
def history_continue(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why; it is reported to central.")],
    remaining: Annotated[
        int, typer.Option(help="Certificates that may still be issued until central is met.")
    ] = 0,
) -> None:
    """Go on with a database that is an old copy, without waiting for central.

    With a link nothing needs to be done: what was forgotten comes back from central by itself.
    Without one, nobody here knows what was issued since the copy was made: so say how many
    certificates may still be issued. Revoking works in any case. Central settles it later.
    """
    order = terminal.order(orders.GoOnOrder, remaining=remaining, reason=reason)
    _ask(context, "POST", "/history", order)
    out.print("The gateway goes on; central will settle what is missing.")


@alias_app.command("list")
def alias_list(
    context: typer.Context, output: OutputOption = None, as_json: AsJson = False
) -> None:
    """List the aliases that are on at this gateway."""
    rows = _ask(context, "GET", "/aliases")
    show(rows, terminal.chosen(output, as_json), "name", "profile", "accepts")


class _Offline:
    """Backup and restore where no agent runs."""

    def make(self, context: typer.Context, target: Path, note: Note) -> Mapping[str, Any]:
        """Back up."""
        from gateway import backup  # noqa: PLC0415  # cryptography and SQLAlchemy

        return backup.make_offline(_settings(context), target, note)

    def restore(
        self, context: typer.Context, path: Path, ask_secret: Callable[[], str], note: Note
    ) -> str:
        """Put a backup back."""
        from gateway import backup  # noqa: PLC0415  # cryptography and SQLAlchemy

        return backup.put_back(_settings(context), path, ask_secret, note)


@app.command("version")
def show_version() -> None:
    """Print the version."""
    typer.echo(VERSION)


def _settings(context: typer.Context) -> config.GatewaySettings:
    return config.load(context.obj)


def _ask(context: typer.Context, method: str, route: str, order: Any = None) -> Any:
    return console.ask(_settings(context).agent_socket, method, route, order)


def _told(snapshot: dict[str, Any]) -> list[str]:
    token, link, queue = snapshot["token"], snapshot["link"], snapshot["queue"]
    authority, disk = snapshot["authority"], snapshot["disk"]
    online = "online" if link["online"] else "offline"
    offline_until = local_text(link["offline_until_us"])
    issue_until = local_text(authority["issue_until_us"])
    remaining = authority["quota"] - authority["used"]
    only_here, unsigned = queue["certificates_only_here"], queue["to_be_signed"]
    return [
        f"Token: {token['state']}. {token['detail']}",
        f"Central: {online} since {local_text(link['since_us'])}.",
        f"Without central: until {offline_until}, then {link['offline_until_why']}.",
        f"Queue: {queue['waiting']} events waiting, {only_here} certificates only on this box.",
        f"Requests that wait for central to sign: {unsigned}.",
        f"CA: {authority['name']}, issues until {issue_until}.",
        f"Grant: {remaining} of {authority['quota']} certificates left.",
        f"Disk: {disk['free'] // 1_000_000} MB free.",
    ]


def _print_recovery_secret(secret: str) -> None:
    out.print(
        "Recovery secret. It is shown this once, and if it was shown before, this one counts.\n"
        "Keep it away from this box: with it and a backup the gateway is restored elsewhere."
    )
    out.print(secret, style="bold", soft_wrap=True)


def _print_certificate(certificate: dict[str, str]) -> None:
    out.print(f"Certificate {certificate['serial']} is now: {certificate['status']}.")


backup_console.add_commands(app, _ask, _Offline())
revocation_console.add_commands(app, _ask)
explain_console.add_command(profile_app, _ask)
alias_cli.add_commands(alias_app, _ask)

if __name__ == "__main__":
    main()
