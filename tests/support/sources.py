"""The project's own files, for tests that read them."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCTS = ("gateway", "central", "shared", "provisioning")


@cache
def project_files() -> tuple[Path, ...]:
    """List what git tracks or would track, without what it ignores."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(sorted(path for name in listing.split("\0") if (path := ROOT / name).is_file()))


def python_files(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """Give each Python file below these top folders with its syntax tree."""
    for path in project_files():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders:
            yield path, ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path, line: int) -> str:
    """Name a place so that a terminal can jump to it."""
    return f"{path.relative_to(ROOT)}:{line}"
