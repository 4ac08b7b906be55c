"""Every route of both products says who may use it: a permission, or why it is for everybody."""

import ast
from collections.abc import Iterator

from tests.support.sources import PRODUCTS, place, python_files

_METHODS = {"get", "post", "put", "patch", "delete", "head", "route", "view"}
#: What wraps a handler and says it (``shared.web.auth.needs``); a name is a wrapped handler.
_SAYING = {"needs", "open_to_all", "guarded", "command", "for_users", "for_oneself", "by_rest"}
_ROUTES_MIN = 100  # fewer: this test looks past them


def _routes() -> Iterator[tuple[str, ast.expr]]:
    """Find each ``web.get(path, handler)`` and give its place and handler."""
    for path, tree in python_files(*PRODUCTS):
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in _METHODS
                and ast.unparse(node.func.value) == "web"
            ):
                yield place(path, node.lineno), node.args[-1]


def _says(handler: ast.expr) -> bool:
    match handler:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name.lstrip("_") in _SAYING
        case _:
            return False


def _wrapped_names() -> set[str]:
    """Find names that hold a wrapped handler."""
    return {
        target.id
        for _path, tree in python_files(*PRODUCTS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _says(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def test_each_route_says_who_may_use_it():
    routes, wrapped = list(_routes()), _wrapped_names()
    unsaid = [
        f"{where}: {ast.unparse(handler)}"
        for where, handler in routes
        if not (_says(handler) or (isinstance(handler, ast.Name) and handler.id in wrapped))
    ]
    assert len(routes) > _ROUTES_MIN
    assert not unsaid
