"""The import contracts of pyproject.toml hold, and they would notice if they did not."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import PRODUCTS, ROOT, project_files

_LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run with ``folder`` first on the path: the copy is checked, not the editable install."""
    return subprocess.run(
        [_LINT_IMPORTS, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def _copy(destination: Path, *folders: str) -> None:
    for path in project_files():
        relative = path.relative_to(ROOT)
        if relative.parts[0] in folders or relative.name == "pyproject.toml":
            (destination / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, destination / relative)


def test_contracts_are_kept():
    outcome = _lint_imports(ROOT)
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("shared/policy/decide.py", "import time"),
        ("shared/pki/certificates.py", "import shared.policy.decide"),
        ("shared/sync/events.py", "import sqlalchemy"),
        ("gateway/agent.py", "import central.server"),
        ("shared/enroll/rest/routes.py", "import shared.store.schema"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, module: str, statement: str):
    _copy(tmp_path, *PRODUCTS)
    planted = tmp_path / module
    planted.write_text(f"{planted.read_text(encoding='utf-8')}\n{statement}\n", encoding="utf-8")
    outcome = _lint_imports(tmp_path)
    assert outcome.returncode == 1, outcome.stdout
    assert "BROKEN" in outcome.stdout


def test_gateway_runs_without_central_and_provisioning(tmp_path: Path):
    """Extras split dependencies, not code: the image deletes both folders (design.md §2)."""
    _copy(tmp_path, "gateway", "shared")
    script = f"""
import importlib.util, runpy, sys
sys.path = [{str(tmp_path)!r}] + [entry for entry in sys.path if entry != {str(ROOT)!r}]
assert importlib.util.find_spec("central") is None
assert importlib.util.find_spec("provisioning") is None
import gateway.agent
assert gateway.__file__.startswith({str(tmp_path)!r})
sys.argv = ["tma-gateway", "--help"]
runpy.run_module("gateway", run_name="__main__", alter_sys=True)
"""
    outcome = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "Usage" in outcome.stdout


@pytest.mark.parametrize("folder", ["image", "systemd"])
def test_folders_that_must_not_become_packages(folder: str):
    """A package ``systemd`` of ours would shadow python-systemd."""
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_the_tests_run_on_this_checkout():
    spec = importlib.util.find_spec("shared")
    assert spec is not None
    assert spec.origin == str(ROOT / "shared/__init__.py")
