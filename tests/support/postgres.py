"""A PostgreSQL server of one's own: on a unix socket in a temporary folder, gone with the tests."""

import itertools
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import ManagedProcess, ProcessError, accepting, run

USER = "tma"
_DEBIAN = Path("/usr/lib/postgresql")
_SOCKET = ".s.PGSQL.5432"
#: What a test may lose with the machine's power.
_NUMBERS = itertools.count(1)
_FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=on")


class PostgresServer:
    """One running server; everybody on this machine may log in as ``USER``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, database: str) -> str:
        """Give the address of one of its databases."""
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def new(self) -> dict[str, object]:
        """Make a database; gives central's settings for it, with a password as it should be."""
        database = f"central_{next(_NUMBERS)}"
        secret = self.folder / f"{database}.password"
        secret.write_text("not a secret\n", encoding="ascii")
        secret.chmod(0o600)
        self.sql(f"CREATE ROLE {database} LOGIN PASSWORD 'not a secret'")
        self.sql(f"CREATE DATABASE {database} OWNER {database}")
        url = f"postgresql://{database}@/{database}?host={self.folder}"
        return {"url": url, "password": f"file:{secret}"}

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement and give its rows, columns parted by ``|``."""
        return run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(database)])


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Run a server; ``durable`` as in production, for measurements."""
    folder = Path(tempfile.mkdtemp(prefix="tma-pg-"))
    user = _unprivileged(folder)
    data = folder / "data"
    # Sorted as no database of ours may be: our tables must say themselves how text compares.
    locale = ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
    run([*user, _program("initdb"), "-D", str(data), "-A", "trust", "-U", USER, "-E", "UTF8",
         "--no-sync", "--no-instructions", *locale])  # fmt: skip
    others = "local all all scram-sha-256\n"
    (data / "pg_hba.conf").write_text(f"local all {USER} trust\n{others}", encoding="ascii")
    settings = (
        "listen_addresses=",
        f"unix_socket_directories={folder}",
        "max_connections=100",
        *(() if durable else _FAST),
    )
    options = [part for setting in settings for part in ("-c", setting)]
    argv = [*user, _program("postgres"), "-D", str(data), *options]
    process = ManagedProcess("postgres", argv, folder / "postgres.log", extra_environ={})
    try:
        process.start()
        process.wait_ready(lambda: accepting(folder / _SOCKET))
        yield PostgresServer(folder)
    finally:
        if process.running:
            process.signal(signal.SIGINT)  # SIGTERM would wait for whoever is logged in
            process.wait_ended()
        shutil.rmtree(folder)


def for_reader(url: str) -> str:
    """Change an address of ``PostgresServer.new`` so that no password is asked for."""
    return re.sub(r"//\w+@", f"//{USER}@", url)


def _unprivileged(folder: Path) -> list[str]:
    """Give what begins a command that root may not run as root; the folder is that user's."""
    if os.getuid() != 0:
        return []
    shutil.chown(folder, "nobody", "nogroup")
    folder.chmod(0o755)
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=TERM"]


def _program(name: str) -> str:
    found = sorted(_DEBIAN.glob(f"*/bin/{name}"))
    if not found:
        raise ProcessError("PostgreSQL is not installed; `make setup` installs it.")
    return str(found[-1])
