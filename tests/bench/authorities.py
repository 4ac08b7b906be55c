"""How a central with a thousand CAs starts, against the same central with its first four.

The CAs are made by the running server, one by one, as an administrator's script would.
"""

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track

from central.authority.orders import CreateOrder
from shared.web.console import ask
from tests.bench._load import record, resident_mb
from tests.support.fleet import Central
from tests.support.products import running_fleet

_AUTHORITIES = 1_000
_STARTS = 3


def _make(central: Central, count: int, console: Console) -> None:
    socket = central.folder / "state" / "run" / "central.sock"
    rows = ask(socket, "GET", "/cas")
    root = next(row["ca_id"] for row in rows if row["kind"] == "root")
    for number in track(range(count), "Making CAs", console=console):
        order = CreateOrder(
            name=f"Plant {number}", kind="issuing", parent=root, tenant=f"t{number}"
        )
        ask(socket, "POST", "/cas", order)


def _start(central: Central) -> float:
    """Give the best of some starts: from the start of the process until it listens, in seconds."""
    took: list[float] = []
    for _ in range(_STARTS):
        central.process.stop()
        began = time.perf_counter()
        central.start()
        took.append(time.perf_counter() - began)
    return min(took)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--authorities", type=int, default=_AUTHORITIES)
    count = parser.parse_args().authorities
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as name, running_fleet(Path(name)) as fleet:
        few = _start(fleet.central)
        began = time.perf_counter()
        _make(fleet.central, count, console)
        each_ms = (time.perf_counter() - began) / count * 1e3
        many = _start(fleet.central)
        memory = resident_mb(fleet.central.process.pid)
    record("authorities_start_s", many, f"s to start with {count} CAs", reference="with four",
           reference_value=few, memory_mb=round(memory), made_ms=round(each_ms))  # fmt: skip
    console.print(
        f"Start with {count} CAs {many:.2f} s and {memory:.0f} MB, with four {few:.2f} s; "
        f"making one takes {each_ms:.0f} ms."
    )


if __name__ == "__main__":
    main()
