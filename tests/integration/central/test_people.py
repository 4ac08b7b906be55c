"""People by page, REST and command, against the real server."""

import json
from itertools import count

import httpx
import pytest

from tests.support.processes import ProcessError
from tests.support.products import rows

_NUMBERS = count(1)
_LONG = "horse battery staple nine"


@pytest.fixture
def name() -> str:
    return f"person-{next(_NUMBERS)}"


def _own_password(client: httpx.Client, present: str, new: str = _LONG) -> httpx.Response:
    fields = {"present": present, "new": new, "again": new}
    return client.post("/account/password", data=fields)


def test_a_first_password_opens_nothing_but_the_page_that_changes_it(central, browse, name):
    first = central.command("user", "add", name, "--role", "auditor").strip()
    client = browse(name, first)
    for path in ("/", "/certificates", "/account", "/users"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/account/password")
    assert "set by somebody else" in client.get("/account/password").text
    assert _own_password(client, "not it at all").status_code == 400
    assert _own_password(client, first, "short").status_code == 400
    assert _own_password(client, first).status_code == 303
    assert client.get("/certificates").status_code == 200  # the session goes on
    assert browse(name, _LONG).get("/").status_code == 200


def test_another_password_or_being_disabled_ends_every_session(central, browse, name):
    first = central.command("user", "add", name, "--role", "operator").strip()
    client = browse(name, first)
    _own_password(client, first)
    other = central.command("user", "password", name).strip()
    assert client.get("/gateways").headers["Location"].startswith("/login")
    client = browse(name, other)
    central.command("user", "disable", name)
    assert client.get("/account/password").headers["Location"].startswith("/login")
    central.command("user", "enable", name)
    client = browse(name, other)
    central.command("session", "end", name)
    assert client.get("/account/password").headers["Location"].startswith("/login")


def test_a_password_comes_from_a_file_and_never_from_arguments(central, name, tmp_path):
    weak, good = tmp_path / "weak", tmp_path / "good"
    weak.write_text("password1234\n")
    good.write_text(f"{_LONG}\n")
    with pytest.raises(ProcessError, match="first that somebody tries"):
        central.command("user", "add", name, "--password-file", str(weak))
    central.command("user", "add", name, "--password-file", str(good))
    assert _LONG not in json.dumps(rows(central.database, "SELECT detail FROM audit"))


def test_a_token_is_worth_what_its_user_may_and_nothing_once_it_is_revoked(central, bearer, name):
    central.command("user", "add", name, "--role", "auditor", "--no-login")
    client = bearer(central.command("token", "add", name, "ci"))
    narrow = bearer(central.command("token", "add", name, "narrow", "--permission", "status.read"))
    assert client.get("/api/v2.0/users").status_code == 200
    assert client.post("/api/v2.0/users", json={"name": "eve"}).status_code == 403
    assert narrow.get("/api/v2.0/users").status_code == 403
    [shown] = [
        one
        for one in json.loads(central.command("token", "list", "--user", name, "-o", "json"))
        if one["name"] == "ci"
    ]
    central.command("token", "revoke", shown["id"])
    assert client.get("/api/v2.0/users").status_code == 401
    central.command("user", "disable", name)
    assert narrow.get("/api/v2.0/status").status_code in {401, 403}


def test_nobody_gives_what_he_does_not_have(central, bearer, name):
    central.command("role", "put", "people-clerk", "--permission", "user.write")
    central.command("user", "add", name, "--role", "people-clerk", "--no-login")
    clerk = bearer(central.command("token", "add", name, "ci"))
    users = "/api/v2.0/users"
    assert clerk.post(users, json={"name": f"{name}-a", "login": False}).status_code == 201
    answers = [
        clerk.post(users, json={"name": f"{name}-b", "role": "admin"}),
        clerk.post(f"{users}/{name}/assign", json={"role": "admin"}),
        clerk.post(f"{users}/admin/password"),
        clerk.post(f"{users}/admin/disable"),
        clerk.put("/api/v2.0/roles/people-clerk", json={"permissions": ["gateway.end"]}),
        clerk.post("/api/v2.0/tokens", json={"user": "admin", "name": "mine"}),
    ]
    assert [answer.status_code for answer in answers] == [403] * len(answers)
    assert clerk.post(f"{users}/{name}/assign", json={"role": "people-clerk"}).status_code == 204


def test_the_last_administrator_stays(central):
    with pytest.raises(ProcessError, match="Nobody would be left"):
        central.command("user", "disable", "admin")
    with pytest.raises(ProcessError, match="Nobody would be left"):
        central.command("user", "withdraw", "admin", "admin")


def test_pages_about_people_do_the_same(central, browse, name):
    admin = browse("admin", central.admin_password)
    made = admin.post("/users", data={"name": name, "role": "ra-officer", "scope": "line=a",
                                      "login": "on"})  # fmt: skip
    assert "shown this once" in made.text
    assert "ra-officer" in admin.get(f"/users/{name}").text
    for act, fields in (
        ("assign", {"role": "auditor", "scope": "*"}),
        ("withdraw", {"role": "auditor", "scope": "*"}),
        ("disable", {}),
        ("enable", {}),
    ):
        assert admin.post(f"/users/{name}/{act}", data=fields).status_code == 303
    assert admin.post(f"/users/{name}/promote").status_code == 404
    assert admin.post("/roles", data={"name": f"r-{name}", "permission": "audit.read"})
    assert f"r-{name}" in admin.get("/roles").text
    assert admin.post(f"/roles/r-{name}/remove").status_code == 303
    token = admin.post("/account/tokens", data={"name": "mine", "days": "1"})
    assert "tma_" in token.text
    assert "mine" in admin.get("/account").text


def test_guessed_addresses_of_another_line_answer_as_if_there_were_nothing(central, browse, name):
    central.command("gateway", "invite", f"{name}-a")
    central.command("gateway", "invite", f"{name}-b")
    scope = f"line={name}-a"
    first = central.command("user", "add", name, "--role", "operator", "--scope", scope).strip()
    client = browse(name, first)
    _own_password(client, first)
    assert client.get(f"/gateways/{name}-a").status_code == 200
    for path in (f"/gateways/{name}-b", f"/panel/gateways/{name}-b"):
        assert client.get(path).status_code == 404
    assert f"{name}-b" not in client.get("/gateways").text
    assert client.post("/gateways", data={"name": f"{name}-b"}).status_code == 403
    assert client.get("/conflicts/999999").status_code == 404
    for path in ("/users", "/roles", "/audit", "/users/admin"):
        assert client.get(path).status_code == 403
