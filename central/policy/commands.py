"""The commands ``profile``, ``preset``, ``rules`` and ``grant`` of ``tma-central``."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from central.policy.orders import DocumentOrder, PublishOrder
from shared.kernel.clock import utc_us_of
from shared.web import explain_console, terminal
from shared.web.explain_console import Ask, read_json
from shared.web.terminal import out

ProfileName = Annotated[str, typer.Argument(help="Name of the profile.")]
Version = Annotated[int | None, typer.Option(help="Version; default: the newest.")]
JsonFile = Annotated[Path, typer.Argument(help="JSON file.")]
SampleFile = Annotated[Path | None, typer.Option(help="JSON file with what a sample says.")]
PresetName = Annotated[str, typer.Argument(help="lab, brownfield, industrial or hardened.")]
GrantId = Annotated[str, typer.Argument(help="Id of the grant, as `grant list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def add_commands(app: typer.Typer, ask: Ask) -> None:
    """Add the commands; ``ask`` asks the running server."""
    profile_app = typer.Typer(no_args_is_help=True, help="What certificates may contain.")
    preset_app = typer.Typer(no_args_is_help=True, help="Security levels for all profiles.")
    rules_app = typer.Typer(no_args_is_help=True, help="Rules beside the profiles.")
    grant_app = typer.Typer(no_args_is_help=True, help="What gateways may issue by themselves.")
    app.add_typer(profile_app, name="profile")
    app.add_typer(preset_app, name="preset")
    app.add_typer(rules_app, name="rules")
    app.add_typer(grant_app, name="grant")
    _reading(profile_app, ask)
    _publishing(profile_app, ask)
    explain_console.add_command(profile_app, ask)
    _presets(preset_app, ask)
    _rules(rules_app, ask)
    _grants(grant_app, ask)


def _reading(app: typer.Typer, ask: Ask) -> None:
    @app.command("list")
    def list_(context: typer.Context, as_json: AsJson = False) -> None:
        """List every version: in force, drafts, withdrawn, and shipped ones to be taken up."""
        columns = ("name", "version", "state", "title", "key_types")
        _print(ask(context, "GET", "/profiles", None), columns, as_json)

    @app.command("show")
    def show(context: typer.Context, name: ProfileName, version: Version = None) -> None:
        """Print a version as JSON; edit it and give it to `profile draft`."""
        query = f"?version={version}" if version else ""
        found = ask(context, "GET", f"/profiles/{name}{query}", None)
        terminal.print_json(found["document"])

    @app.command("diff")
    def diff(
        context: typer.Context,
        name: ProfileName,
        version: Annotated[int, typer.Argument(help="Version.")],
        to: Annotated[int | None, typer.Option(help="Compare to; default: in force.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """List what a version changes."""
        query = f"?version={version}" + (f"&to={to}" if to else "")
        found = ask(context, "GET", f"/profiles/{name}/diff{query}", None)
        _print(found, ("field", "before", "after"), as_json)

    @app.command("rollout")
    def rollout(context: typer.Context, as_json: AsJson = False) -> None:
        """Say which gateway was sent which bundle, and whether it has applied it."""
        columns = ("gateway", "link", "sent", "applied")
        _print(ask(context, "GET", "/rollout", None), columns, as_json)


def _publishing(app: typer.Typer, ask: Ask) -> None:
    @app.command("draft")
    def draft(context: typer.Context, path: JsonFile) -> None:
        """Keep a new version of a profile; without a version it gets the next number."""
        order = DocumentOrder(document=read_json(path))
        line = ask(context, "POST", "/profiles", order)
        out.print(f"Version {line['version']} of {escape(line['name'])} is a draft.")

    @app.command("check")
    def check(
        context: typer.Context,
        name: ProfileName,
        version: Version = None,
        sample: SampleFile = None,
        as_json: AsJson = False,
    ) -> None:
        """Issue a sample for each key type and lint it; nothing is published."""
        order = PublishOrder(version=version, sample=read_json(sample) if sample else {})
        found = ask(context, "POST", f"/profiles/{name}/check", order)
        _print(found, ("key_type", "severity", "code", "message"), as_json)

    @app.command("publish")
    def publish(
        context: typer.Context,
        name: ProfileName,
        version: Annotated[int, typer.Option(help="Version.")],
        sample: SampleFile = None,
    ) -> None:
        """Put a version in force here and at every gateway, once its samples pass pkilint."""
        order = PublishOrder(version=version, sample=read_json(sample) if sample else {})
        found = ask(context, "POST", f"/profiles/{name}/publish", order)
        for one in found["findings"]:
            if one["severity"] == "WARNING":
                out.print(f"Warning: {escape(one['code'])} {escape(one['message'])}")
        if found["approval"] is not None:
            out.print(f"It waits for a second person: `approval agree {found['approval']}`.")
            return
        out.print(f"Version {version} of {escape(name)} is in force.")

    @app.command("withdraw")
    def withdraw(context: typer.Context, name: ProfileName) -> None:
        """Take a profile out of force; what it issued stays valid."""
        ask(context, "POST", f"/profiles/{name}/withdraw", None)
        out.print(f"The profile {escape(name)} is withdrawn.")


def _presets(app: typer.Typer, ask: Ask) -> None:
    def run(context: typer.Context, method: str, wanted: str, as_json: bool) -> None:
        found = ask(context, method, f"/presets/{wanted}", None)
        lines = [
            {"profile": one["profile"], **change} for one in found for change in one["changes"]
        ]
        _print(lines, ("profile", "field", "before", "after"), as_json)

    @app.command("preview")
    def preview(context: typer.Context, preset: PresetName, as_json: AsJson = False) -> None:
        """List what a preset would change, field by field."""
        run(context, "GET", preset, as_json)

    @app.command("apply")
    def apply(context: typer.Context, preset: PresetName, as_json: AsJson = False) -> None:
        """Publish new versions of the profiles that the preset changes."""
        run(context, "POST", preset, as_json)


def _rules(app: typer.Typer, ask: Ask) -> None:
    @app.command("show")
    def show(context: typer.Context) -> None:
        """Print the rules in force as JSON."""
        terminal.print_json(ask(context, "GET", "/rules", None))

    @app.command("put")
    def put(context: typer.Context, path: JsonFile) -> None:
        """Replace all rules, here and at every gateway."""
        ask(context, "POST", "/rules", DocumentOrder(document=read_json(path)))
        out.print("The rules are in force.")


def _grants(app: typer.Typer, ask: Ask) -> None:
    @app.command("list")
    def list_(context: typer.Context, as_json: AsJson = False) -> None:
        """List the grants: what is used, unused and overdrawn."""
        columns = ("gateway", "grant_id", "version", "state", "quota", "used", "unused")
        found = ask(context, "GET", "/grants", None)
        _print(found, (*columns, "overdrawn", "applied"), as_json)

    @app.command("change")
    def change(  # noqa: PLR0917 - one option per field
        context: typer.Context,
        grant: GrantId,
        quota: Annotated[int | None, typer.Option(help="Certificates in total.")] = None,
        until: Annotated[datetime | None, typer.Option(help="End, in UTC.")] = None,
        offline_days: Annotated[
            int | None, typer.Option(help="Days that it holds without central.")
        ] = None,
        profile: Annotated[list[str] | None, typer.Option(help="Profile; repeat it.")] = None,
        station: Annotated[list[str] | None, typer.Option(help="Station; repeat it.")] = None,
        devices: Annotated[
            Path | None, typer.Option(help="File with one device serial per line.")
        ] = None,
    ) -> None:
        """Change a grant; what is used stays used, and the same again changes nothing."""
        fields = {
            "quota": quota,
            "not_after_us": utc_us_of(until.replace(tzinfo=UTC)) if until else None,
            "last_contact_max_s": offline_days and offline_days * 24 * 3600,
            "profiles": profile,
            "stations": station,
            "serials": devices.read_text("utf-8").split() if devices else None,
        }
        document = {name: value for name, value in fields.items() if value is not None}
        new = ask(context, "POST", f"/grants/{grant}", DocumentOrder(document=document))
        out.print(f"Version {new['version']} of the grant is ordered.")

    @app.command("end")
    def end(context: typer.Context, grant: GrantId) -> None:
        """Withdraw a grant: the gateway issues nothing under it once it hears of it."""
        ask(context, "DELETE", f"/grants/{grant}", None)
        out.print("The grant is withdrawn.")


def _print(rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    if as_json:
        terminal.print_json(rows)
        return
    table = Table(*(column.replace("_", " ") for column in columns))
    for row in rows:
        table.add_row(*(escape(_text(row.get(column))) for column in columns))
    out.print(table)


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType] - decoded JSON
        case _:
            return str(value)
