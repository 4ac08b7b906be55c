"""``make demo``: a line enrolls, the link is cut, the line goes on, the link returns, and central
knows every certificate. Real processes, real TLS, a CA key in a PKCS#11 token."""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress

from rich.console import Console

from tests.demo.journey import Journey
from tests.support.fleet import Fleet
from tests.support.processes import ROOT, all_free

_PORTS_DEFAULT = 18_400
_PORTS_USED = 32
_DEVICES_MIN, _DEVICES_MAX = 4, 100_000
_EXIT_FAILED, _EXIT_INTERRUPTED = 1, 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="end after the summary")
    parser.add_argument("--devices", type=int, default=120, help="devices that enroll")
    parser.add_argument(
        "--port-base",
        type=int,
        default=_PORTS_DEFAULT,
        help="first of the 32 ports that are used; another base is another demo beside this one",
    )
    arguments = parser.parse_args()
    if not _DEVICES_MIN <= arguments.devices <= _DEVICES_MAX:
        parser.error(f"--devices must be from {_DEVICES_MIN} to {_DEVICES_MAX}")
    return arguments


def _terminate(_number: int, _frame: object) -> None:
    """Let SIGTERM end the demo as Ctrl-C does, so that one way of cleaning up is enough."""
    os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    """Run the demo; gives the exit status: 0 only if all counts agree."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _terminate)
    console = Console(highlight=False)
    if not all_free(range(arguments.port_base, arguments.port_base + _PORTS_USED)):
        console.print(
            f"[red]Ports from {arguments.port_base} on are in use, perhaps by another demo.[/] "
            "Choose others with --port-base."
        )
        return _EXIT_FAILED
    folder = ROOT / "var" / "demo" / str(arguments.port_base)
    shutil.rmtree(folder, ignore_errors=True)
    fleet = Fleet(folder / "state", arguments.port_base)
    try:
        agreed = Journey(fleet, folder, console).run(arguments.devices)
        if not arguments.exit:
            _wait_for_the_end(console)
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except Exception as error:
        console.print(fleet.explain(), markup=False, soft_wrap=True)
        console.print("[red]The demo failed:[/]")
        console.print(*_reasons(error), sep="\n", markup=False, soft_wrap=True)
        return _EXIT_FAILED
    finally:
        console.print("Ending every process.")
        fleet.stop()
    return 0 if agreed else _EXIT_FAILED


def _reasons(error: BaseException) -> Iterator[str]:
    """Give every error that stations met at once, each one once."""
    if isinstance(error, ExceptionGroup):
        yield from dict.fromkeys(reason for inner in error.exceptions for reason in _reasons(inner))
    else:
        yield f"{type(error).__name__}: {error}"


def _wait_for_the_end(console: Console) -> None:
    console.print("Everything keeps running. [bold]Ctrl-C[/] ends it.")
    with suppress(KeyboardInterrupt):
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
