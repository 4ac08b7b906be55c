"""The description of the interface: complete, consistent, and readable without the network."""

import re

import pytest

from shared.enroll.rest import routes as rest
from tests.support.rest_server import Server

BASE = "/api/v2.0"


@pytest.fixture
async def document(server: Server) -> dict:
    async with server.client(None) as client:
        answer = await client.get(f"{BASE}/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def test_every_route_is_described(document: dict, server: Server):
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    mounted = {(route.method, route.path) for route in rest.routes(server.ports)}
    assert mounted - described == {("GET", f"{BASE}/openapi.json")}
    assert described <= mounted


def test_the_document_is_openapi_3_1(document: dict):
    """What the specification requires of what we use (OpenAPI 3.1.0 §4.8)."""
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parameters = operation["parameters"]
            in_path = {item["name"] for item in parameters if item["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path))
            assert all(item["required"] for item in parameters if item["in"] == "path")
            assert ("requestBody" in operation) == (method == "post")
            assert operation["responses"]
            assert all(answer["description"] for answer in operation["responses"].values())


def references(node: object):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere(document: dict):
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas, reference


def test_bounds_are_told(document: dict):
    attributes = document["components"]["schemas"]["EnrollAttributes"]
    assert attributes["additionalProperties"] is False
    assert attributes["properties"]["csr"]["anyOf"][0]["maxLength"] > 0
    assert document["components"]["schemas"]["Batch"]["properties"]["data"]["maxItems"] == 1_000


def test_what_may_wait_for_central_says_so(document: dict):
    waiting = {
        f"{method} {path.removeprefix(BASE)}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "Enrollment" in str(operation["responses"].get("202"))
    }
    issuing = {"/certificates", "/cert_{profile}", "/certificates/{id}/renew"}
    assert waiting == {f"post {path}" for path in issuing} | {"get /enrollments/{id}"}


async def test_the_page_for_people_needs_no_network(server: Server):
    async with server.client(None) as client:
        page = await client.get(f"{BASE}/docs")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        links = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        assert links
        for link in links:
            assert link.startswith("/"), link
            if link.startswith("/static/"):
                answer = await client.get(link)
                assert answer.status_code == 200
                assert "immutable" in answer.headers["Cache-Control"]
    for path in ("/certificates/batch", "/cert_{profile}", "Idempotency-Key"):
        assert path in page.text
