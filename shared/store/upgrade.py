"""Brings a database to this version's schema before anything else touches it."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import NullPool

from shared.kernel.errors import IncompatibleError
from shared.store.migrations import HEAD

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(path: Path) -> None:
    """Run the missing migrations, all or none; a new file becomes a new database.

    Raises IncompatibleError when a newer version wrote the database: nothing is touched then.
    """
    migrate = missing(_revision(path))
    if migrate is None:
        return
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin_exclusively)
    with engine.begin() as connection:
        migrate(connection)


def missing(revision: str | None) -> Callable[[Connection], None] | None:
    """Give what migrates from a revision, in the connection's transaction; None: nothing is due.

    Raises IncompatibleError when this version does not know the revision.
    """
    if revision == HEAD:
        return None
    # Only a start that migrates pays for Alembic: a quarter of a second.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise IncompatibleError(
            f"The database was written by a newer version (its schema is “{revision}”, "
            f"this version knows “{HEAD}”).",
            remedy="Install that version again, or restore a backup made by this one.",
        )

    def migrate(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    return migrate


def _revision(path: Path) -> str | None:
    if not path.exists():
        return None
    # Not read-only: what a kill left half done in a migration could not be rolled back then.
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as connection:
        if not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
        ).fetchone():
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return row and row[0]


def _leave_transactions_to_us(connection: sqlite3.Connection, _record: object) -> None:
    """Python's sqlite3 would commit before each DDL statement."""
    connection.isolation_level = None


def _begin_exclusively(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN EXCLUSIVE")
