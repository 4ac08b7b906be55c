"""Every setting, event and route is written down where an administrator or developer looks."""

import ast
import json
import re
from collections.abc import Iterator
from unittest.mock import Mock, create_autospec

import pytest
from pydantic import BaseModel

from central.config import CentralSettings
from gateway.config import GatewaySettings
from shared.enroll.rest.ports import RestPorts
from shared.enroll.rest.rendering import BASE
from shared.enroll.rest.routes import routes as rest_routes
from shared.policy.profile import Profile
from shared.sync.events import CATALOGUE
from tests.support.sources import PRODUCTS, ROOT, python_files

#: Where addresses stand that are no REST: OCSP, CRL and CA certificates.
_INTERFACES = {"shared/validation/routes.py"}


def _documents(*names: str) -> str:
    paths = [ROOT / name for name in names] if names else sorted((ROOT / "docs").glob("*.md"))
    return "\n".join(path.read_text("utf-8") for path in paths if path.exists())


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation, f"{prefix}{name}.")
        else:
            assert field.description, f"{prefix}{name} says not what it does"
            yield f"{prefix}{name}"


@pytest.mark.parametrize(
    ("model", "manual"),
    [(GatewaySettings, "docs/gateway.md"), (CentralSettings, "docs/central.md")],
)
def test_each_setting_is_documented(model: type[BaseModel], manual: str):
    document = _documents(manual)
    missing = [name for name in _settings(model) if f"`{name}`" not in document]
    assert not missing


def test_each_event_type_is_documented():
    document = _documents("ARCHITECTURE.md", "docs/events.md")
    assert not [name for name in CATALOGUE if f"`{name}`" not in document]


async def test_each_rest_route_is_in_openapi_and_documented():
    mounted = rest_routes(create_autospec(RestPorts, instance=True))
    [machine] = [route for route in mounted if route.path == f"{BASE}/openapi.json"]
    answer = await machine.handler(Mock())
    described = {
        (method.upper(), f"{BASE}{path.removeprefix(BASE)}")
        for path, methods in json.loads(answer.body)["paths"].items()
        for method in methods
    }
    assert described == {(route.method, route.path) for route in mounted if route != machine}
    document = _documents()
    assert not [path for _method, path in described if path.removeprefix(BASE) not in document]


def _fixed_routes() -> Iterator[str]:
    """Find the path of each ``web.get("/path", …)`` that strangers' programs call."""
    for path, tree in python_files(*PRODUCTS):
        if str(path.relative_to(ROOT)) not in _INTERFACES:
            continue
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"get", "post"}
                and ast.unparse(node.func.value) == "web"
            ):
                [address, *_rest] = node.args
                assert isinstance(address, ast.Constant | ast.JoinedStr), ast.unparse(address)
                yield ast.unparse(address).strip("f\"'")


def test_each_status_route_is_documented():
    document = _documents()
    routes = {re.sub(r"\{+(\w+):[^}]*\}+", r"{\1}", route) for route in _fixed_routes()}
    assert routes
    assert not sorted(route for route in routes if route not in document)


def test_the_profile_schema_is_fresh():
    written = json.loads((ROOT / "docs" / "profile.schema.json").read_text("utf-8"))
    assert written == Profile.model_json_schema(), "see docs/profile.schema.json: write it anew"
