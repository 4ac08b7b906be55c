"""Short functions, short files, and no reaching into another module's private names."""

import ast
from collections.abc import Iterator
from pathlib import Path

from shared.kernel import errors
from tests.support.sources import PRODUCTS, place, python_files

_FUNCTION_LINES_MAX = 70
_FILE_LINES_MAX = 500


def test_files_are_short():
    too_long = [
        place(path, lines)
        for path, _tree in python_files(*PRODUCTS, "tests")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > _FILE_LINES_MAX
    ]
    assert not too_long


def test_functions_are_short():
    too_long = [
        f"{place(path, node.lineno)} {node.name} has {lines} lines"
        for path, tree in python_files(*PRODUCTS, "tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > _FUNCTION_LINES_MAX
    ]
    assert not too_long


def _private_imports(path: Path, tree: ast.Module) -> Iterator[str]:
    """Find ``from ours import _name`` and ``module._name`` on a module that is imported."""
    modules = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_ours(node.module):
            for alias in node.names:
                if _is_private(alias.name):
                    yield f"{place(path, node.lineno)} imports {alias.name}"
                modules.add(alias.asname or alias.name)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
            and _is_private(node.attr)
        ):
            yield f"{place(path, node.lineno)} uses {node.value.id}.{node.attr}"


def _is_ours(module: str | None) -> bool:
    return (module or "").split(".")[0] in PRODUCTS


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_private_names_stay_in_their_module():
    found = [
        offence
        for path, tree in python_files(*PRODUCTS)
        for offence in _private_imports(path, tree)
    ]
    assert not found


def _family(base: type[Exception]) -> Iterator[type[Exception]]:
    yield base
    for derived in base.__subclasses__():
        yield from _family(derived)


def test_each_error_tells_its_reader_what_to_do():
    """An inherited docstring is not an answer: each class has its own."""
    undocumented = [kind for kind in _family(errors.TmaError) if not vars(kind).get("__doc__")]
    assert not undocumented


def test_no_second_error_family():
    """Only the family of shared/kernel/errors.py crosses packages (design.md §10)."""
    strangers = [
        f"{place(path, node.lineno)} {node.name}"
        for path, tree in python_files(*PRODUCTS)
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and not _is_private(node.name)
        and {ast.unparse(base) for base in node.bases} & {"Exception", "BaseException"}
        and node.name != "TmaError"
    ]
    assert not strangers
