"""``python -m tests.sim``: many bad days, one per seed, until there were enough or time is up.

A seed that fails is named with what reproduces it. With ``--resume`` a run goes on where the last
one ended; its file holds the counts of all of them.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.support.sim_load import fault_count, survive
from tests.support.sim_tally import TABLE
from tests.support.sim_world import ViolationError

_CHUNK = 10
_ENDLESS = 1 << 31
_CONSOLE = Console(soft_wrap=True)


@dataclass
class Report:
    """What came of some seeds. ``following`` is the first seed that nobody has run."""

    following: int = 0
    seeds: int = 0
    fewest_events: int = 1 << 30
    fewest_faults: int = 1 << 30
    tally: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Report") -> None:
        self.seeds += other.seeds
        self.fewest_events = min(self.fewest_events, other.fewest_events)
        self.fewest_faults = min(self.fewest_faults, other.fewest_faults)
        self.tally.update(other.tally)
        self.failures.update(other.failures)

    @classmethod
    def read(cls, path: Path | None, first: int) -> "Report":
        if path is None or not path.exists():
            return cls(first)
        value = json.loads(path.read_text())
        return cls(**value | {"tally": Counter(value["tally"])})

    def write(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(vars(self), indent=1, sort_keys=True))
            fresh.replace(path)


def live(seeds: range) -> Report:
    """Run some seeds, in a process of the pool."""
    report = Report()
    for seed in seeds:
        report.seeds += 1
        try:
            world = survive(seed)
        except ViolationError as error:
            report.failures[str(seed)] = str(error)
            continue
        report.tally.update(world.tally)
        report.fewest_events = min(report.fewest_events, world.tally["events"])
        report.fewest_faults = min(report.fewest_faults, fault_count(world))
    return report


def run(report: Report, seeds: int, seconds: float, jobs: int, resume: Path | None) -> None:
    """Add to the report until ``seeds`` are run, or time is up."""
    chunks = _chunks(report.following, seeds - report.seeds)
    end = time.monotonic() + seconds
    columns = (
        TextColumn("seeds"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[failed]} failed"),
    )
    shown = Progress(*columns, console=_CONSOLE, disable=not _CONSOLE.is_terminal)
    with ProcessPoolExecutor(jobs) as pool, shown as progress:
        task = progress.add_task(
            "", total=seeds if seeds < _ENDLESS else None, completed=report.seeds, failed=0
        )
        running: dict[Future[Report], range] = {}
        done: dict[int, Report] = {}  # ends of chunks: one may be ready before those in front
        while True:
            while len(running) < 2 * jobs and time.monotonic() < end:
                if (chunk := next(chunks, None)) is None:
                    break
                running[pool.submit(live, chunk)] = chunk
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                done[running.pop(future).start] = future.result()
            while (ready := done.pop(report.following, None)) is not None:
                report.add(ready)
                report.following += ready.seeds
                report.write(resume)
            progress.update(task, completed=report.seeds, failed=len(report.failures))


def _chunks(first: int, count: int) -> Iterator[range]:
    for start in itertools.count(first, _CHUNK):
        if start >= first + count:
            return
        yield range(start, min(start + _CHUNK, first + count))


def show(report: Report) -> None:
    """Print what was met, and each failing seed with how to reproduce it."""
    faults = sum(n for name, n in report.tally.items() if name.startswith("fault: "))
    passed = max(1, report.seeds - len(report.failures))
    table = Table("met", "times", "a seed", title=f"{report.seeds} seeds", title_justify="left")
    for name, number in sorted(report.tally.items()):
        table.add_row(name, str(number), f"{number / passed:.2f}")
    for name in TABLE:
        if name not in report.tally:
            table.add_row(name, "0", "never met", style="yellow")
    _CONSOLE.print(table)
    _CONSOLE.print(
        f"{report.tally['events'] / passed:.0f} events a seed (at least {report.fewest_events}), "
        f"{faults / passed:.0f} faults (at least {report.fewest_faults})."
    )
    for seed, error in report.failures.items():
        _CONSOLE.print(f"[red]{error}[/red]", highlight=False)
        _CONSOLE.print(f"  at {_commit()}: .venv/bin/python -m tests.sim --first {seed} --seeds 1")


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "this version"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=_ENDLESS, help="at most (default: no end)")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--resume", type=Path, help="go on from this file, and keep it")
    asked = parser.parse_args()
    report = Report.read(asked.resume, asked.first)
    try:
        run(report, asked.seeds, asked.seconds, asked.jobs, asked.resume)
    except KeyboardInterrupt:
        _CONSOLE.print("Interrupted.")
    show(report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
