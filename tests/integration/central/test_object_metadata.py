"""Metadata of CAs, gateways, stations, profiles and users, against the real server."""

import itertools
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from central.identity.operations import everything
from central.metadata.operations import Metadata
from central.metadata.orders import Kind
from shared.kernel import limits
from shared.policy.shipped import SHIPPED
from tests.support.fleet import Central
from tests.support.processes import ProcessError
from tests.support.products import rows
from tests.support.store_databases import open_database
from tests.support.store_intents import CA_ID
from tests.support.store_old_databases import restore

_BASE = "/api/v2.0"
_NUMBERS = itertools.count(1)
_WRITES = {
    "ca": "authority.write",
    "gateway": "gateway.command",
    "station": "station.write",
    "profile": "profile.write",
    "user": "user.write",
}
_LISTS = {
    "ca": f"{_BASE}/authorities",
    "gateway": f"{_BASE}/gateways",
    "station": f"{_BASE}/stations",
    "profile": f"{_BASE}/policy/profiles",
    "user": f"{_BASE}/users",
}
_SCOPES = {"ca": "tenant={}-tenant", "gateway": "line={}", "profile": "profile={}"}
_PAGES = {
    "ca": "/authorities",
    "gateway": "/gateways",
    "profile": "/profiles",
    "user": "/users",
}


@dataclass(frozen=True, slots=True)
class Carrier:
    """An object that carries metadata."""

    kind: str
    id: str

    @property
    def metadata(self) -> str:
        """Where its metadata is."""
        return f"{_LISTS[self.kind]}/{self.id}/metadata"


Make = Callable[[str], Carrier]


@pytest.fixture
def name() -> str:
    return f"carrier-{next(_NUMBERS):03}"


@pytest.fixture
def make(central: Central, api: httpx.Client, name: str) -> Make:
    """Make an object of a kind."""

    def make(kind: str) -> Carrier:
        match kind:
            case "ca":
                order = {"name": name, "kind": "root", "tenant": f"{name}-tenant"}
                made = api.post(_LISTS[kind], json=order)
                return Carrier(kind, made.json()["data"]["id"])
            case "gateway":
                central.command("gateway", "invite", name)
            case "station":
                central.command("station", "add", name)
            case "profile":
                document = SHIPPED[0].to_document() | {"name": name}
                assert api.post(_LISTS[kind], json={"data": document}).status_code == 200
            case _:
                order = {"name": name, "login": False}
                assert api.post(_LISTS[kind], json=order).status_code == 201
        return Carrier(kind, name)

    return make


@pytest.fixture
def enabled(
    api: httpx.Client, bearer: Callable[[str], httpx.Client], name: str
) -> Generator[Callable[..., httpx.Client]]:
    """Give REST with the token of a new user, who has a role within a scope until the test ends."""
    users: list[str] = []

    def enabled(role: str, *, scope: str = "*", permissions: Sequence[str] = ()) -> httpx.Client:
        users.append(user := f"{name}-{next(_NUMBERS)}")
        order = {"name": user, "role": role, "scope": scope, "login": False}
        assert api.post(_LISTS["user"], json=order).status_code == 201
        wish = {"user": user, "name": "test", "permissions": permissions}
        made = api.post(f"{_BASE}/tokens", json=wish).json()
        return bearer(made["data"]["attributes"]["token"])

    yield enabled
    for user in users:
        assert api.post(f"{_LISTS['user']}/{user}/disable").status_code == 204


def _patched(client: httpx.Client, carrier: Carrier, **pairs: str | None) -> dict[str, str]:
    answer = client.patch(carrier.metadata, json={"metadata": pairs})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["attributes"]["metadata"]


def _listed(client: httpx.Client, kind: str, **wanted: str) -> dict[str, dict[str, str]]:
    """Filter the list of a kind; gives what is found, with its metadata."""
    query = {f"filter[meta.{name}]": value for name, value in wanted.items()}
    answer = client.get(_LISTS[kind], params=query)
    assert answer.status_code == 200, answer.text
    found = [row.get("attributes", row) for row in answer.json()["data"]]
    return {row.get("ca_id" if kind == "ca" else "name"): row["metadata"] for row in found}


@pytest.mark.parametrize("kind", _LISTS)
def test_pairs_are_set_shown_found_and_removed(central, api, make, name, kind):
    carrier = make(kind)
    assert api.get(carrier.metadata).json()["data"]["attributes"]["metadata"] == {}
    assert _patched(api, carrier, site=name, hall="7/a") == {"hall": "7/a", "site": name}
    assert _patched(api, carrier, hall="8", owner="Ünal & söhne") == {
        "hall": "8",
        "owner": "Ünal & söhne",
        "site": name,
    }
    shown = api.get(carrier.metadata).json()["data"]
    assert shown["type"] == "metadata" and shown["id"] == carrier.id
    assert _listed(api, kind, site=name, hall="8") == {carrier.id: shown["attributes"]["metadata"]}
    assert _listed(api, kind, site=name, hall="7/a") == {}
    assert _listed(api, kind, site=name.upper()) == {}
    assert carrier.id in _listed(api, kind)
    assert _patched(api, carrier, site=None, never=None) == {"hall": "8", "owner": "Ünal & söhne"}
    assert _listed(api, kind, site=name) == {}

    told = [
        json.loads(row[0])
        for row in rows(
            central.database,
            "SELECT detail FROM audit WHERE action = ? AND subject = ? ORDER BY id",
            f"{kind}.metadata-changed",
            carrier.id,
        )
    ]
    assert told == [
        {"set": ["hall=7/a", f"site={name}"]},
        {"set": ["hall=8", "owner=Ünal & söhne"]},
        {"removed": ["site"]},
    ]
    _patched(api, carrier, hall="8")  # the same again
    entries = "SELECT id FROM audit WHERE subject = ? AND action LIKE '%.metadata-changed'"
    assert len(rows(central.database, entries, carrier.id)) == len(told)


@pytest.mark.parametrize("kind", ["ca", "user"])
def test_an_object_shows_its_metadata(api, make, kind):
    carrier = make(kind)
    _patched(api, carrier, site="Nordhausen")
    shown = api.get(f"{_LISTS[kind]}/{carrier.id}").json()["data"]["attributes"]
    assert shown["metadata"] == {"site": "Nordhausen"}


def test_what_is_no_short_text_is_refused_by_its_pointer(api, make):
    carrier = make("station")
    wrong: dict[str, Any] = {
        "": "x",
        "n" * 65: "x",
        "a/b~c": "line\nbreak",
        "empty": "",
        "long": "v" * 257,
        " space": "x",
        "hidden": "x\u202e",
    }
    answer = api.patch(carrier.metadata, json={"metadata": wrong | {"good": "x"}})
    assert answer.status_code == 400
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    pointers = {one["pointer"] for one in answer.json()["errors"]}
    names = ("", "n" * 65, "a~1b~0c", "empty", "long", " space", "hidden")
    assert pointers == {f"/metadata/{one}" for one in names}
    assert api.get(carrier.metadata).json()["data"]["attributes"]["metadata"] == {}
    for body, pointer in (
        ({"metadata": {"site": 7}}, "/metadata/site"),
        ({"metadata": []}, "/metadata"),
        ({}, "/metadata"),
        ({"metadata": {}, "name": "x"}, "/name"),
    ):
        answer = api.patch(carrier.metadata, json=body)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert api.patch(carrier.metadata, content=b"{}").status_code == 415


def test_an_object_carries_no_more_pairs_than_a_device(api, make):
    carrier = make("gateway")
    full = {f"n{number}": "x" for number in range(limits.METADATA_PAIRS_MAX)}
    assert _patched(api, carrier, **full) == full
    answer = api.patch(carrier.metadata, json={"metadata": {"more": "x"}})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/metadata"
    assert len(_patched(api, carrier, n0=None, more="x")) == limits.METADATA_PAIRS_MAX


@pytest.mark.parametrize("kind", _LISTS)
def test_what_is_not_there_has_no_metadata(api, kind):
    unknown = Carrier(kind, "00" * 20)
    assert api.get(unknown.metadata).status_code == 404
    answer = api.patch(unknown.metadata, json={"metadata": {"site": "x"}})
    assert answer.status_code == 404
    assert unknown.id in answer.json()["detail"]


def test_a_list_is_filtered_by_metadata_only(api):
    for query in ({"filter[name]": "x"}, {"filter[meta.a]": "x" * 257}, {"site": "x"}):
        for address in _LISTS.values():
            assert api.get(address, params=query).status_code == 400


def test_a_filtered_list_is_given_page_by_page(central, api, name):
    names = [f"{name}-{number}" for number in range(4)]
    for one in names:
        central.command("station", "add", one)
        if one != names[1]:
            _patched(api, Carrier("station", one), batch=name)
    found: list[str] = []
    query = {"filter[meta.batch]": name, "page[size]": "2"}
    address = str(httpx.URL(_LISTS["station"], params=query))
    while address:
        page = api.get(address).json()
        found.append(" ".join(row["id"] for row in page["data"]))
        address = page["links"].get("next")
    assert found == [f"{names[0]} {names[2]}", names[3]]


@pytest.mark.parametrize("kind", _LISTS)
def test_who_may_not_manage_an_object_changes_nothing_of_it(api, enabled, make, name, kind):
    carrier = make(kind)
    _patched(api, carrier, site="Nordhausen")
    everything_else = [one for other, one in _WRITES.items() if other != kind]
    reader, other = enabled("auditor"), enabled("admin", permissions=everything_else)
    for client, seen in ((reader, 200), (other, 403)):
        assert client.get(carrier.metadata).status_code == seen
        answer = client.patch(carrier.metadata, json={"metadata": {"site": name}})
        assert answer.status_code == 403
        assert _WRITES[kind] in answer.json()["detail"]
    assert _listed(api, kind, site=name) == {}


@pytest.mark.parametrize("kind", _SCOPES)
def test_a_right_within_a_scope_ends_there(api, enabled, make, name, kind):
    carrier = make(kind)
    inside = enabled("admin", scope=_SCOPES[kind].format(name))
    outside = enabled("admin", scope=_SCOPES[kind].format("elsewhere"))
    assert _patched(inside, carrier, by="inside") == {"by": "inside"}
    answer = outside.patch(carrier.metadata, json={"metadata": {"by": "outside"}})
    assert answer.status_code == outside.get(carrier.metadata).status_code == 404
    assert inside.get(carrier.metadata).json()["data"]["attributes"]["metadata"] == {"by": "inside"}
    if kind == "gateway":
        assert _listed(inside, kind) == _listed(inside, kind, by="inside")
        assert _listed(inside, kind) == {carrier.id: {"by": "inside"}}
        assert _listed(outside, kind) == {}
    else:  # what is listed as a whole is for who may read the whole
        assert inside.get(_LISTS[kind]).status_code == 403


def test_who_has_no_right_at_all_reads_nothing(api, enabled, make):
    carrier = make("station")
    nobody = enabled("ra-officer", permissions=["status.read"])
    assert nobody.get(carrier.metadata).status_code == 403
    assert nobody.get(_LISTS["station"]).status_code == 403
    assert nobody.get(_LISTS["gateway"]).status_code == 403


def test_metadata_ends_with_its_object(central, api, make):
    carrier = make("ca")
    _patched(api, carrier, site="Nordhausen")
    pairs = "SELECT value FROM object_metadata WHERE id = ?"
    assert rows(central.database, pairs, carrier.id) == [("Nordhausen",)]
    assert api.delete(f"{_LISTS['ca']}/{carrier.id}").status_code == 204
    assert rows(central.database, pairs, carrier.id) == []


@pytest.mark.parametrize("kind", _PAGES)
def test_the_page_of_an_object_changes_its_metadata(central, api, browse, make, kind):
    carrier = make(kind)
    client = browse("admin", central.admin_password)
    page, form = f"{_PAGES[kind]}/{carrier.id}", f"/metadata/{kind}/{carrier.id}"
    assert f'action="{form}"' in client.get(page).text
    done = client.post(form, data={"name": " site ", "value": "<Halle> 7"})
    assert (done.status_code, done.headers["Location"]) == (303, page)
    shown = client.get(page).text
    assert "<td>site</td><td>&lt;Halle&gt; 7</td>" in shown
    assert 'aria-label="Remove site"' in shown
    assert client.post(form, data={"name": "site", "value": ""}).status_code == 400
    foreign = {"Sec-Fetch-Site": "cross-site"}
    refused = client.post(form, data={"name": "site", "value": "Erfurt"}, headers=foreign)
    assert refused.status_code == 403
    assert api.get(carrier.metadata).json()["data"]["attributes"]["metadata"] == {
        "site": "<Halle> 7"
    }
    assert client.post(form, data={"name": "site"}).status_code == 303
    assert 'aria-label="Remove site"' not in client.get(page).text


@pytest.mark.parametrize("kind", ["ca", "profile"])
def test_commands_show_set_find_and_remove(central, make, name, kind):
    carrier = make(kind)
    set_ = ("metadata", "set", kind, carrier.id)
    central.command(*set_, "site of", name)
    assert name in central.command(*set_, "hall", "7")
    shown = json.loads(central.command("metadata", "show", kind, carrier.id, "--json"))
    assert shown == {"hall": "7", "site of": name}
    found = json.loads(central.command("metadata", "find", kind, "site of", name, "-o", "json"))
    assert found == [{"id": carrier.id, "metadata": shown}]
    assert carrier.id[:10] in central.command("metadata", "find", kind, "site of", name)
    central.command("metadata", "remove", kind, carrier.id, "site of")
    assert json.loads(central.command("metadata", "find", kind, "site of", name, "--json")) == []
    with pytest.raises(ProcessError, match="must not be empty"):
        central.command(*set_, "hall", "")
    with pytest.raises(ProcessError, match="There is no"):
        central.command("metadata", "show", kind, "nowhere")


async def test_objects_of_version_1_carry_metadata(tmp_path):
    restore("v1", tmp_path / "central.db")
    async with open_database(tmp_path / "central.db") as database:
        metadata, who = Metadata(database), everything("user:test")
        await metadata.change(Kind.CA, CA_ID, {"site": "Nordhausen", "hall": "7"}, who)
        await metadata.change(Kind.CA, CA_ID, {"hall": None}, who)
        assert await metadata.page(Kind.CA, {"site": "Nordhausen"}) == (
            {CA_ID: {"site": "Nordhausen"}},
            "",
        )
        assert await metadata.page(Kind.CA, {"hall": "7"}) == ({}, "")
