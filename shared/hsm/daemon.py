"""``tma-hsmd``: the process that holds one token and signs documents with it.

One process per token, because PKCS#11 modules crash with threads, and a crash in a vendor's module
must not take the gateway with it (design.md §6). It is started by systemd and restarted by it.
"""

import asyncio
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from shared.hsm import settings as hsm_settings
from shared.hsm import uri as uris
from shared.hsm.keeper import TokenKeeper
from shared.hsm.memory import Memory
from shared.hsm.provider import Provider
from shared.hsm.server import HsmServer
from shared.hsm.software import SoftwareProvider
from shared.hsm.worker import TokenWorker
from shared.kernel.errors import TmaError
from shared.system import files, processes, settings
from shared.system.clock import SystemClock
from shared.system.secrets import read_secret

_LOG = logging.getLogger(__name__)
_STOP_WITHIN_S = 10.0
_WATCH_S = 1.0
_MANUAL = "`tma-hsmd --help`"
_EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h
_EXIT_HANGING = 70  # EX_SOFTWARE: systemd starts it again


def run(
    config: Annotated[Path, typer.Option(help="The TOML file of this token.", metavar="FILE")],
    *,
    verbose: Annotated[bool, typer.Option(help="Log each signature, not only refusals.")] = False,
) -> None:
    """Hold one token and sign documents with its keys."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
    )
    try:
        files.require_trusted(config)
        loaded = settings.load(hsm_settings.Settings, config, manual=_MANUAL)
        code = asyncio.run(_serve(loaded))
    except (TmaError, OSError) as error:
        remedy = error.remedy if isinstance(error, TmaError) else ""
        print(f"tma-hsmd: {error} {remedy}".rstrip(), file=sys.stderr)  # noqa: T201
        code = _EXIT_CONFIGURATION
    # A thread that hangs inside a module cannot be ended otherwise; nothing is left to flush.
    logging.shutdown()
    os._exit(code)


def main() -> None:
    """Run the command."""
    application = typer.Typer(add_completion=False, rich_markup_mode=None)
    application.command(help=_help())(run)
    application()


def _help() -> str:
    """Join docstrings and settings; a backspace keeps click from rewrapping the example."""
    example = (hsm_settings.__doc__ or "").replace("\n\n", "\n\n\b\n")
    return "\n\n".join((str(run.__doc__), example, *hsm_settings.describe()))


async def _serve(loaded: hsm_settings.Settings) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit status."""
    files.private_directory(loaded.state)
    lock = processes.hold_lock(loaded.state / "lock")
    client_uid = os.geteuid() if loaded.client_uid is None else loaded.client_uid
    clock = SystemClock()
    uri = uris.parse(loaded.token.uri, loaded.token.modules)
    memory = Memory(loaded.state)
    keeper = TokenKeeper(
        provider=_provider(uri),
        secret=partial(read_secret, uri.pin_source),
        memory=memory,
        clock=clock,
        random=os.urandom,
        settle_s=loaded.token.settle_s,
    )
    worker = TokenWorker(keeper, clock, poll_s=loaded.token.poll_s)
    server = HsmServer(
        keeper=keeper,
        worker=worker,
        memory=memory,
        policy=loaded.policy,
        random=os.urandom,
        users=frozenset({os.geteuid(), client_uid}),
    )
    listener = processes.listen_private(loaded.socket, owner_uid=client_uid)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker.start()
    listening = await asyncio.start_unix_server(server.connection, sock=listener)
    try:
        code = await _watch(worker, loaded.token.hang_s, stop)
        listening.close()
        await asyncio.to_thread(worker.stop, _STOP_WITHIN_S if code == 0 else 0)
        await server.drained(_STOP_WITHIN_S)
    finally:
        loaded.socket.unlink(missing_ok=True)
        os.close(lock)
    return code


async def _watch(worker: TokenWorker, hang_s: float, stop: asyncio.Event) -> int:
    """Wait for the end, or for a call into the module that does not come back."""
    while worker.alive and worker.busy_s() < hang_s:
        try:
            async with asyncio.timeout(_WATCH_S):
                await stop.wait()
            return 0
        except TimeoutError:
            continue
    _LOG.error("the token's thread hangs or died; a new process is needed")
    return _EXIT_HANGING


def _provider(uri: uris.Pkcs11Uri | uris.SoftwareUri) -> Provider:
    if isinstance(uri, uris.SoftwareUri):
        return SoftwareProvider(uri.directory, os.urandom)
    from shared.hsm.pkcs11 import Pkcs11Provider  # noqa: PLC0415 - only installs with tokens have it

    return Pkcs11Provider(uri)


if __name__ == "__main__":
    main()
