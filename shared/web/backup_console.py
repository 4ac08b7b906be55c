"""Backups from the console of a box: routes of the socket, and commands of both products."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from aiohttp import web
from pydantic import Field
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from shared.kernel.errors import TmaError
from shared.policy.rights import Permission
from shared.web import terminal
from shared.web.console import AbsentError, Order, command, read_order
from shared.web.pages import utc_text
from shared.web.terminal import out

_LOOK_S = 0.2
_MEGABYTE = 1_000_000

#: Takes the name of the step, and how many bytes of how many are done.
Note = Callable[[str, int, int], None]
#: Sends a command to the running service: context, method, route, order.
Ask = Callable[[typer.Context, str, str, Order | None], Any]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class BackupOrder(Order):
    """Make or verify a backup; an absolute path, or nothing for the configured directory."""

    path: Annotated[str, Field(max_length=4096, pattern=r"^(/.*)?$")] = ""


class Backups(Protocol):
    """What makes backups (``shared.store.backups``)."""

    def begin(self, target: Path | None) -> str:
        """Start one in the background; gives its id."""
        ...

    async def standing(self) -> Any:
        """Tell how backups are, as a dataclass."""
        ...

    async def verify(self, path: Path) -> Any:
        """Read one back; gives its manifest, a dataclass."""
        ...


def routes(backups: Backups) -> list[web.AbstractRouteDef]:
    """Give the routes of the unix socket."""

    async def begin(request: web.Request, _actor: str) -> Any:
        order = await read_order(request, BackupOrder)
        return {"backup_id": backups.begin(Path(order.path) if order.path else None)}

    async def standing(_request: web.Request, _actor: str) -> Any:
        return asdict(await backups.standing())

    async def verify(request: web.Request, _actor: str) -> Any:
        order = await read_order(request, BackupOrder)
        return _manifest(await backups.verify(Path(order.path)))

    return [
        web.post("/backups", command(Permission.BACKUP_RUN, begin)),
        web.get("/backups", command(Permission.BACKUP_RUN, standing)),
        web.post("/backups/verify", command(Permission.BACKUP_RUN, verify)),
    ]


class Offline(Protocol):
    """The commands that need no running service."""

    def make(self, context: typer.Context, target: Path, note: Note) -> Mapping[str, Any]:
        """Make a backup while the service is stopped; gives its row."""
        ...

    def restore(
        self, context: typer.Context, path: Path, ask_secret: Callable[[], str], note: Note
    ) -> str:
        """Put a backup back; gives what the administrator must know, in sentences."""
        ...


def add_commands(app: typer.Typer, ask: Ask, offline: Offline) -> None:
    """Add ``backup``, ``backups``, ``verify`` and ``restore``."""
    _add_making(app, ask, offline)
    _add_looking(app, ask)
    _add_restoring(app, offline)


def _add_making(app: typer.Typer, ask: Ask, offline: Offline) -> None:
    @app.command()
    def backup(
        context: typer.Context,
        target: Annotated[
            Path | None,
            typer.Argument(help="Directory or file; without it, the configured directory."),
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Back up while everything runs: consistent, encrypted, and read back before it counts.

        In a directory the file takes part in rotation; a file that you name is yours alone. It
        opens on this box, and anywhere with the recovery secret. Works while the service is
        stopped, too.
        """
        with _bar() as note:
            row = _make(context, ask, offline, target, note)
        if as_json:
            terminal.print_json(row)
            return
        size = f"{row['bytes'] / _MEGABYTE:,.1f} MB"
        out.print(f"Backed up and read back: {escape(row['path'])} ({size}).", soft_wrap=True)
        out.print(f"It covers {row['events']:,} events of {row['lanes']:,} lanes.")


def _add_looking(app: typer.Typer, ask: Ask) -> None:
    @app.command()
    def backups(context: typer.Context, as_json: Json = False) -> None:
        """List the backups that were made, newest first."""
        standing = ask(context, "GET", "/backups", None)
        if as_json:
            terminal.print_json(standing)
            return
        if standing["failure"]:
            out.print(f"The last try failed: {escape(standing['failure'])}")
        if standing["overdue"]:
            out.print("[bold]Overdue:[/] no backup that counts is young enough.")
        table = Table("made", "state", "in rotation", "MB", "events", "file")
        for row in standing["backups"]:
            table.add_row(
                utc_text(row["created_at_us"]),
                row["state"],
                "yes" if row["counts"] else "no",
                f"{row['bytes'] / _MEGABYTE:,.1f}",
                f"{row['events']:,}",
                escape(row["path"]),
            )
        out.print(table)

    @app.command()
    def verify(
        context: typer.Context,
        file: Annotated[Path, typer.Argument(help="The backup.")],
        as_json: Json = False,
    ) -> None:
        """Read a backup back as a whole: decrypt it, check the database, compare what it covers."""
        order = BackupOrder(path=str(file.absolute()))
        manifest = ask(context, "POST", "/backups/verify", order)
        if as_json:
            terminal.print_json(manifest)
            return
        out.print(
            f"The backup is whole; it covers {manifest['events']:,} events "
            f"of {manifest['lanes']:,} lanes."
        )


def _add_restoring(app: typer.Typer, offline: Offline) -> None:
    @app.command()
    def restore(
        context: typer.Context,
        file: Annotated[Path, typer.Argument(help="The backup.")],
        secret_file: Annotated[
            Path | None,
            typer.Option(help="File with the recovery secret; without it, it is asked for."),
        ] = None,
    ) -> None:
        """Put a backup back onto a box that has no database; a living one is never overwritten.

        It opens by this box's own secret if that is still there, else by the recovery secret.
        """

        def ask_secret() -> str:
            if secret_file is not None:
                return secret_file.read_text("ascii")
            return typer.prompt("Recovery secret", hide_input=True)

        with _bar() as note:
            told = offline.restore(context, file.absolute(), ask_secret, note)
        out.print(escape(told))


def _make(
    context: typer.Context, ask: Ask, offline: Offline, target: Path | None, note: Note
) -> Mapping[str, Any]:
    """Let the running service do it and watch; do it here where none runs."""
    path = str(target.absolute()) if target else ""
    try:
        wanted = ask(context, "POST", "/backups", BackupOrder(path=path))["backup_id"]
    except AbsentError:
        if target is None:
            raise
        return offline.make(context, target.absolute(), note)
    while True:
        standing = ask(context, "GET", "/backups", None)
        found = [row for row in standing["backups"] if row["backup_id"] == wanted]
        if found:
            return found[0]
        step = standing["running"]
        if step is None:
            raise BackupFailedError(standing["failure"] or "The backup ended without a result.")
        note(step["name"], step["done"], step["total"])
        time.sleep(_LOOK_S)


class BackupFailedError(TmaError):
    """Do what the message asks for, then back up again; the earlier backups are untouched."""

    code = "backup-failed"


@contextmanager
def _bar() -> Generator[Note]:
    """Show how far a step is, on a terminal only."""
    columns = TextColumn("{task.description:>10}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        task = progress.add_task("", total=None)

        def note(name: str, done: int, total: int) -> None:
            progress.update(task, description=name, completed=done, total=total or None)

        yield note


def _manifest(manifest: Any) -> dict[str, Any]:
    values = asdict(manifest)
    return values | {"vector": values["vector"].hex()}
