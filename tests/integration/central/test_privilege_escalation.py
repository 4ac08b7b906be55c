"""Whoever is limited to a scope stays in it: what he tries outside is refused, and changes nothing.

An RA officer of a profile, of a line and of a tenant, at the real server; tokens after their end;
an administrator of one line who would give away more than he has.
"""

import asyncio
import itertools
import ssl
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.pki import keys
from shared.policy.shipped import SHIPPED
from tests.support.central_puppet import Puppet
from tests.support.fleet import Central
from tests.support.processes import wait_until
from tests.support.products import rows
from tests.support.rest_server import request_pem, wish

BASE = "/api/v2.0"
_NUMBERS = itertools.count(1)
_KEY = keys.generate()
#: What none of the attempts may change. Tokens, sessions and logins are not in it: they are used.
_STATE = (
    "SELECT name, disabled_at, password_hash FROM \"user\" WHERE name LIKE ? OR name = 'admin'",
    'SELECT "user", role, scope FROM assignment',
    "SELECT name, permissions FROM role",
    'SELECT id, "user", revoked_at FROM api_token',
    "SELECT name, version, state, sha256 FROM profile",
    "SELECT grant_id, version, quota, state FROM grant_use",
    "SELECT ca_id, state, tenant FROM ca",
    "SELECT ca_id FROM ca_request",
    "SELECT name, state FROM gateway",
    "SELECT name, role, revoked_at FROM station",
    "SELECT * FROM device",
    "SELECT serial, gateway, spent_by FROM one_time_code",
    "SELECT ca_id, serial, status FROM certificate WHERE protocol = 'rest'",
    "SELECT value FROM fact WHERE name = 'rules'",
)


@dataclass(frozen=True)
class Ground:
    """What there is of two lines, of two profiles and of a tenant; certificates by their ids."""

    client: str
    server: str
    of_tenant: str
    of_line: str
    of_other_line: str
    line: str
    other_line: str
    tenant: str
    tenant_profile: str
    cas: dict[str, str]

    def all(self) -> set[str]:
        return {self.client, self.server, self.of_line, self.of_other_line, self.of_tenant}


@pytest.fixture
def people(central: Central, api: httpx.Client) -> Generator[Callable[..., httpx.Client]]:
    """Make somebody with a role within a scope; gives his REST client."""
    opened: list[httpx.Client] = []

    def person(role: str, scope: str) -> httpx.Client:
        name = f"limited-{next(_NUMBERS)}"
        order = {"name": name, "login": False, "role": role, "scope": scope}
        assert (made := api.post(f"{BASE}/users", json=order)).status_code == 201, made.text
        token = api.post(f"{BASE}/tokens", json={"user": name, "name": "ci"})
        opened.append(bearer(central, token.json()["data"]["attributes"]["token"]))
        opened[-1].headers["X-Name"] = name
        return opened[-1]

    yield person
    for client in opened:
        client.close()


def bearer(central: Central, token: str) -> httpx.Client:
    trusted = ssl.create_default_context(cafile=str(central.folder / "state" / "root.pem"))
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(verify=trusted, headers=headers, base_url=central.web_url, timeout=60)


def order(profile: str, name: str) -> dict[str, Any]:
    return wish({"profile": profile, "csr": request_pem(f"{name}.example", _KEY)})


def enrolled(client: httpx.Client, profile: str) -> str:
    answer = client.post(f"{BASE}/certificates", json=order(profile, f"e{next(_NUMBERS)}"))
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]["id"]


def state(central: Central) -> list[list[tuple[Any, ...]]]:
    return [
        sorted(rows(central.database, one, *(["limited-%"] * one.count("?"))), key=repr)
        for one in _STATE
    ]


async def _lines(central: Central, folder: Path) -> dict[str, str]:
    """Two gateways of which central knows a certificate each: its id by the line's name."""
    found: dict[str, str] = {}
    for _ in range(2):
        name = f"limited-line-{next(_NUMBERS)}"
        invitation = await asyncio.to_thread(central.command, "gateway", "invite", name)
        puppet = await Puppet.join(invitation, folder / name)
        async with puppet.open(), puppet.online():
            body = puppet.certificate(f"SN-{name}")
            await puppet.emit("certificate.issued", body)
            await puppet.drained()
        found[name] = f"{body['ca_id']}-{body['serial']}"
    return found


@pytest.fixture(scope="module")
def ground(central: Central, tmp_path_factory: pytest.TempPathFactory) -> Generator[Ground]:
    lines = asyncio.run(_lines(central, tmp_path_factory.mktemp("lines")))
    with bearer(central, central.admin_token) as api:
        yield _founded(api, lines)
        for one in api.get(f"{BASE}/policy/profiles").json()["data"]:
            if one["name"].startswith("acme-client-"):
                api.post(f"{BASE}/policy/profiles/{one['name']}/withdraw")


def _founded(api: httpx.Client, lines: dict[str, str]) -> Ground:
    number = next(_NUMBERS)
    cas = {
        one["attributes"]["kind"]: one["id"]
        for one in api.get(f"{BASE}/authorities").json()["data"]
        if one["attributes"]["tenant"] == "" and one["attributes"]["state"] == "active"
    }
    tenant, profile = f"acme-{number}", f"acme-client-{number}"
    cas["tenant"] = _tenant_ca(api, cas["root"], tenant)
    _publish(api, profile, cas["tenant"])
    records = "".join(f"DEV-{name},pump,{name}\n" for name in lines)
    assert _import(api, f"serial,product,line\n{records}")["added"] == 2
    leaves = [enrolled(api, name) for name in ("tls-client", "tls-server", profile)]
    return Ground(*leaves, *lines.values(), *lines, tenant, profile, cas)


def _tenant_ca(api: httpx.Client, root: str, tenant: str) -> str:
    order = {"name": f"{tenant} CA", "kind": "issuing", "parent": root, "tenant": tenant}
    answer = api.post(f"{BASE}/authorities", json=order)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]["id"]


def _publish(api: httpx.Client, name: str, ca: str) -> None:
    [shipped] = [one for one in SHIPPED if one.name == "tls-client"]
    document = shipped.to_document() | {"name": name, "version": 1, "issuing_ca": ca}
    base = f"{BASE}/policy/profiles"
    assert api.post(base, json={"data": document}).status_code == 200
    answer = api.post(f"{base}/{name}/publish", json={"version": 1})
    assert answer.status_code == 200, answer.text


def _import(client: httpx.Client, text: str) -> dict[str, int]:
    headers = {"Content-Type": "text/csv"}
    answer = client.post(f"{BASE}/devices/import", content=text, headers=headers)
    assert answer.status_code == 200, answer.text
    return httpx.Response(200, text=answer.text.splitlines()[-1]).json()["summary"]


def beyond_any_officer(ground: Ground, me: str) -> list[tuple[str, str, Any]]:
    """What no RA officer may, whatever his scope: the orders are well-formed."""
    ca, grant = ground.cas["issuing"], "no-grant"
    policy, users = "/policy/profiles", f"/users/{me}"
    [shipped] = [one for one in SHIPPED if one.name == "tls-client"]
    mine = shipped.to_document() | {"name": "mine", "version": 1}
    admin = {"role": "admin"}
    return [
        ("POST", policy, {"data": mine}),
        ("POST", f"{policy}/{ground.tenant_profile}/publish", {"version": 1}),
        ("POST", f"{policy}/{ground.tenant_profile}/withdraw", None),
        ("POST", "/policy/presets/hardened", None),
        ("POST", "/policy/rules", {"data": {"rules": []}}),
        ("POST", f"/policy/grants/{grant}", {"data": {"quota": 1_000_000}}),
        ("POST", f"/policy/grants/{grant}/end", None),
        ("GET", "/users", None),
        ("GET", "/users/admin", None),
        ("POST", "/users", {"name": "eve", "login": False} | admin),
        ("POST", "/users/admin/password", None),
        ("POST", "/users/admin/disable", None),
        ("POST", f"{users}/assign", admin | {"scope": "*"}),
        ("POST", f"{users}/assign", {"role": "ra-officer", "scope": "*"}),
        ("POST", f"{users}/withdraw", {"role": "ra-officer", "scope": "*"}),
        ("GET", "/roles", None),
        ("PUT", "/roles/mine", {"permissions": ["user.write"]}),
        ("PUT", "/roles/ra-officer", {"permissions": ["user.write"]}),
        ("DELETE", "/roles/mine", None),
        ("GET", "/tokens", None),
        ("POST", "/tokens", {"user": "admin", "name": "mine"}),
        ("POST", "/tokens", {"user": me, "name": "wider"}),
        ("GET", "/sessions", None),
        ("DELETE", "/sessions/admin", None),
        ("GET", "/audit", None),
        ("GET", "/audit/export", None),
        ("POST", "/audit/verify", None),
        ("POST", "/authorities", {"name": "Mine", "kind": "root"}),
        ("POST", "/authorities", {"name": "Mine", "kind": "issuing", "parent": ground.cas["root"],
                                  "tenant": ground.tenant}),
        ("POST", "/authorities/request", {"name": "Mine", "kind": "issuing"}),
        ("POST", "/authorities/trust", {"pem": "x", "name": "Mine"}),
        ("POST", "/authorities/cross", {"ca_id": ca, "issuer": ground.cas["root"]}),
        ("POST", f"/authorities/{ca}/roll-over", None),
        ("POST", f"/authorities/{ca}/retire", None),
        ("POST", f"/authorities/{ca}/partition", {"crl_partitions": 4}),
        ("DELETE", f"/authorities/{ca}", None),
        ("POST", "/directive-keys/rotate", None),
        ("POST", "/backups", None),
    ]  # fmt: skip


def at_gateway(name: str) -> list[tuple[str, str, Any]]:
    return [
        ("POST", f"/gateways/{name}/compare", None),
        ("POST", f"/gateways/{name}/decide", {"keep": "here", "reason": "mine"}),
    ]


def outside(*foreign: str) -> list[tuple[str, str, Any]]:
    """What may be done to certificates, but not to these."""
    return [
        attempt
        for one in foreign
        for attempt in (
            ("GET", f"/certificates/{one}", None),
            ("POST", f"/certificates/{one}/revoke", wish({"reason": "key_compromise"})),
            ("POST", f"/certificates/{one}/hold", wish({"hold_id": "mine"})),
            ("POST", f"/certificates/{one}/release", wish({"hold_id": "mine"})),
            ("POST", f"/certificates/{one}/renew", wish({"csr": request_pem("x", _KEY)})),
        )
    ]


def assert_refused(client: httpx.Client, attempts: list[tuple[str, str, Any]], *statuses: int):
    """Try each; what is wrong with the order must not be judged before the right."""
    wrong: list[str] = []
    for method, path, body in attempts:
        answer = client.request(method, f"{BASE}{path}", json=body)
        if answer.status_code not in statuses:
            wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
    assert not wrong, "\n".join(wrong)


def seen(client: httpx.Client, ground: Ground) -> set[str]:
    """What of the ground the lists show: the plain one, the search and its export."""
    found: list[set[str]] = []
    plain = client.get(f"{BASE}/certificates", params={"page[size]": 500})
    found.append({one["id"] for one in plain.json()["data"]})
    search = client.get(f"{BASE}/search", params={"q": "state:issued", "page[size]": 500})
    assert (plain.status_code, search.status_code) == (200, 200), search.text
    found.append({one["id"].replace("/", "-") for one in search.json()["data"]})
    shown = [one & ground.all() for one in found]
    assert shown[0] == shown[1]
    return shown[0]


def test_an_officer_of_a_profile(
    central: Central, api: httpx.Client, people: Callable[..., httpx.Client], ground: Ground
):
    officer = people("ra-officer", "profile=tls-client")
    me = officer.headers["X-Name"]
    before = state(central)
    assert_refused(officer, beyond_any_officer(ground, me), 403)
    assert_refused(officer, [*at_gateway(ground.line), *at_gateway(ground.other_line)], 404)
    foreign = ground.server, ground.of_line, ground.of_other_line, ground.of_tenant
    assert_refused(officer, outside(*foreign), 404)
    enrollments = [
        ("POST", "/certificates", order(name, "other")) for name in ("tls-server", "sub-ca")
    ]
    assert_refused(
        officer, [*enrollments, ("POST", "/cert_server", wish({"cn": "a"}, "cert_server"))], 403
    )
    batch = {"data": [order("tls-server", "other")["data"]]}
    answer = officer.post(f"{BASE}/certificates/batch", json=batch).json()["data"]
    assert [one["status"] for one in answer] == [403]
    _assert_no_records(officer, ground, ground.line, ground.other_line)
    _assert_mass_revocation_finds_nothing(officer, {"profile": "tls-server"})
    assert seen(officer, ground) == {ground.client}
    assert state(central) == before
    mine = enrolled(officer, "tls-client")
    for one in (mine, ground.client):
        revoked = officer.post(f"{BASE}/certificates/{one}/revoke", json=wish({}))
        assert revoked.status_code == 200, revoked.text


def test_an_officer_of_a_line(
    central: Central, api: httpx.Client, people: Callable[..., httpx.Client], ground: Ground
):
    officer = people("ra-officer", f"line={ground.line}")
    before = state(central)
    assert_refused(officer, beyond_any_officer(ground, officer.headers["X-Name"]), 403)
    assert_refused(officer, at_gateway(ground.line), 403)
    assert_refused(officer, at_gateway(ground.other_line), 404)
    foreign = ground.client, ground.server, ground.of_other_line, ground.of_tenant
    assert_refused(officer, outside(*foreign), 404)
    # What central issues is of no line, so he has it issued by his gateway only.
    assert_refused(officer, [("POST", "/certificates", order("tls-client", "x"))], 403)
    assert_refused(officer, [
        ("GET", f"/gateways/{ground.other_line}/comparison", None),
        ("GET", f"/gateways/{ground.other_line}/histories", None),
    ], 403, 404)  # fmt: skip
    _assert_no_records(officer, ground, ground.other_line)
    assert seen(officer, ground) == {ground.of_line}
    assert state(central) == before
    own = officer.get(f"{BASE}/devices/DEV-{ground.line}")
    assert own.status_code == 200
    assert _import(officer, f"serial,line\nNEW-{ground.line},{ground.line}\n")["added"] == 1
    revoked = officer.post(f"{BASE}/certificates/{ground.of_line}/revoke", json=wish({}))
    assert revoked.status_code in {200, 202}, revoked.text


def test_an_officer_of_a_tenant(
    central: Central, api: httpx.Client, people: Callable[..., httpx.Client], ground: Ground
):
    officer = people("ra-officer", f"tenant={ground.tenant}")
    before = state(central)
    assert_refused(officer, beyond_any_officer(ground, officer.headers["X-Name"]), 403)
    assert_refused(officer, [*at_gateway(ground.line), *at_gateway(ground.other_line)], 404)
    foreign = ground.client, ground.server, ground.of_line, ground.of_other_line
    assert_refused(officer, outside(*foreign), 404)
    assert_refused(officer, [("POST", "/certificates", order("tls-client", "x"))], 403)
    _assert_no_records(officer, ground, ground.line, ground.other_line)
    assert seen(officer, ground) == {ground.of_tenant}
    assert state(central) == before
    revoked = officer.post(f"{BASE}/certificates/{ground.of_tenant}/revoke", json=wish({}))
    assert revoked.status_code == 200, revoked.text


def _assert_no_records(client: httpx.Client, ground: Ground, *lines: str) -> None:
    """Neither seen, nor removed, moved, overwritten, nor given codes."""
    for line in lines:
        serial = f"DEV-{line}"
        assert client.get(f"{BASE}/devices/{serial}").status_code in {403, 404}
        assert client.delete(f"{BASE}/devices/{serial}").status_code in {403, 404}
        order = {"serials": [serial], "gateway": line}
        assert client.post(f"{BASE}/codes", json=order).status_code == 403
        listed = client.get(f"{BASE}/devices", params={"filter[line]": line})
        assert listed.status_code == 403 or listed.json()["data"] == []
        headers = {"Content-Type": "text/csv"}
        for text in (f"{serial},{ground.line}x", f"{serial},{line}", f"{serial},"):
            answer = client.post(
                f"{BASE}/devices/import", content=f"serial,line\n{text}\n", headers=headers
            )
            assert answer.status_code == 403 or '"verdict": "refused"' in answer.text, answer.text


def _assert_mass_revocation_finds_nothing(client: httpx.Client, criteria: dict[str, str]) -> None:
    """An order over certificates outside the scope is carried out over none."""
    begun = client.post(f"{BASE}/revocations", json=wish({"filter": criteria}, "revocation"))
    assert begun.status_code == 202, begun.text
    wait_until(
        lambda: (
            client.get(begun.headers["Location"]).json()["data"]["attributes"]["state"] == "done"
        ),
        what="the order is carried out",
    )
    done = client.get(begun.headers["Location"]).json()["data"]["attributes"]
    assert done["revoked"] == 0, done


def test_a_station_token_opens_nothing_after_its_end(central: Central, api: httpx.Client):
    name = f"limited-{next(_NUMBERS)}"
    token = central.command("station", "add", name, "--profile", "tls-client").strip()
    with bearer(central, token) as station:
        mine = enrolled(station, "tls-client")
        assert_refused(station, [("POST", "/certificates", order("tls-server", "x"))], 403)
        central.command("station", "revoke", name)
        before = state(central)
        attempts = [
            ("POST", "/certificates", order("tls-client", "x")),
            ("POST", "/certificates/batch", {"data": [order("tls-client", "x")["data"]]}),
            *outside(mine),
            ("GET", "/certificates", None),
            ("GET", "/profiles", None),
            ("GET", "/status", None),
        ]
        assert_refused(station, attempts, 401)
    assert state(central) == before


def test_an_administrator_of_one_line_gives_nothing_away(
    central: Central, people: Callable[..., httpx.Client], ground: Ground
):
    """Users and roles belong to no line: who is an administrator of one reaches none of them."""
    admin = people("admin", f"line={ground.line}")
    me = admin.headers["X-Name"]
    before = state(central)
    assert_refused(admin, beyond_any_officer(ground, me), 403)
    assert_refused(admin, at_gateway(ground.other_line), 404)
    foreign = ground.client, ground.server, ground.of_tenant, ground.of_other_line
    assert_refused(admin, outside(*foreign), 404)
    assert state(central) == before


def test_who_manages_users_gives_no_wider_scope_than_he_has(
    central: Central, api: httpx.Client, people: Callable[..., httpx.Client], ground: Ground
):
    """May manage users everywhere, is RA officer of one line: he makes officers of that line."""
    clerk = people("ra-officer", f"line={ground.line}")
    me, other = clerk.headers["X-Name"], f"limited-{next(_NUMBERS)}"
    users, line = f"{BASE}/users", f"line={ground.line}"
    role, stronger = f"clerk-{next(_NUMBERS)}", f"stronger-{next(_NUMBERS)}"
    assert api.put(f"{BASE}/roles/{stronger}", json={"permissions": ["authority.write"]}).is_success
    assert api.put(f"{BASE}/roles/{role}", json={"permissions": ["user.write"]}).is_success
    assert api.post(f"{users}/{me}/assign", json={"role": role, "scope": "*"}).is_success
    assert clerk.post(users, json={"name": other, "login": False}).status_code == 201
    before = state(central)
    wider = ["*", f"line={ground.other_line}", "profile=tls-client", f"tenant={ground.tenant}"]
    attempts = [
        ("POST", f"/users/{name}/assign", {"role": role, "scope": scope})
        for name in (me, other)
        for role, scope in (
            *(("ra-officer", scope) for scope in wider),
            ("operator", line),
            ("admin", line),
            ("admin", "*"),
        )
    ]
    attempts += [
        ("POST", "/users", {"name": "eve", "login": False, "role": "ra-officer", "scope": "*"}),
        ("PUT", f"/roles/{role}", {"permissions": ["user.write", "certificate.revoke"]}),
        ("POST", "/users/admin/password", None),
        ("POST", "/tokens", {"user": "admin", "name": "mine"}),
    ]
    # What somebody has who may more, he does not take away either.
    token = api.post(f"{BASE}/tokens", json={"user": "admin", "name": other}).json()["data"]["id"]
    attempts += [
        ("POST", "/users/admin/withdraw", {"role": "admin", "scope": "*"}),
        ("DELETE", f"/tokens/{token}", None),
        ("DELETE", "/sessions/admin", None),
        ("DELETE", f"/users/admin/certificates/{'0' * 64}", None),
        ("PUT", f"/roles/{stronger}", {"permissions": ["user.read"]}),
        ("DELETE", f"/roles/{stronger}", None),
    ]
    before = state(central)
    assert_refused(clerk, attempts, 403)
    changed = [number for number, rows in enumerate(state(central)) if rows != before[number]]
    assert changed == []
    narrower = {"role": "ra-officer", "scope": f"{line},profile=tls-client"}
    for order in ({"role": "ra-officer", "scope": line}, narrower):
        assert clerk.post(f"{users}/{other}/assign", json=order).status_code == 204


def test_pages_refuse_an_officer_what_only_they_can_do(
    central: Central, api: httpx.Client, ground: Ground
):
    """Ending and inviting gateways is done by page or command; and the rest once more."""
    name, password = f"limited-{next(_NUMBERS)}", "horse battery staple nine"
    first = api.post(f"{BASE}/users", json={"name": name, "role": "ra-officer", "scope": "*"})
    given = first.json()["data"]["attributes"]["password"]
    trusted = ssl.create_default_context(cafile=str(central.folder / "state" / "root.pem"))
    headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    with httpx.Client(verify=trusted, headers=headers, base_url=central.web_url) as browser:
        assert browser.post("/login", data={"name": name, "password": given}).status_code == 303
        own = {"present": given, "new": password, "again": password}
        assert browser.post("/account/password", data=own).status_code == 303
        assert browser.get("/certificates").status_code == 200
        before = state(central)
        answers = {
            path: browser.post(path, data=fields).status_code
            for path, fields in {
                f"/gateways/{ground.line}/end": {"reason": "stolen"},
                "/gateways": {"name": "mine"},
                "/users": {"name": "eve", "role": "admin", "scope": "*"},
                f"/users/{name}/assign": {"role": "admin", "scope": "*"},
                "/users/admin/disable": {},
                "/roles": {"name": "mine", "permission": "user.write"},
            }.items()
        }
        answers |= {path: browser.get(path).status_code for path in ("/users", "/roles", "/audit")}
    assert set(answers.values()) == {403}, answers
    assert state(central) == before
