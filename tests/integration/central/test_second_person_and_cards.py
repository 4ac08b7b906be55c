"""A central on which one person ends no gateway, and people log in by card; real TLS clients."""

import json
import ssl
from collections.abc import Callable, Generator
from pathlib import Path

import httpx
import pytest

from tests.support.fleet import Central, Ports
from tests.support.processes import PortBlocks, run, wait_until

_BY_TWO = ("gateway.end", "administrator.add", "certificate.revoke-many")
_API = "/api/v2.0"
_LONG = "horse battery staple nine"


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a card CA, a card, one that expired and one of a foreign CA with the same name."""
    folder = tmp_path_factory.mktemp("cards")
    for authority in ("cards", "foreign"):
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", "/CN=Cards", "-days", "9", "-keyout", f"{folder}/{authority}.key",
             "-out", f"{folder}/{authority}.pem"])  # fmt: skip
    for name, authority, days in (
        ("anna", "cards", "9"),
        ("nobody", "cards", "9"),
        ("late", "cards", "-1"),
        ("stranger", "foreign", "9"),
    ):
        run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key",
             "-out", f"{folder}/{name}.csr"])  # fmt: skip
        run(["openssl", "x509", "-req", "-in", f"{folder}/{name}.csr", "-CA",
             f"{folder}/{authority}.pem", "-CAkey", f"{folder}/{authority}.key", "-days", days,
             "-out", f"{folder}/{name}.pem"])  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, cards: Path) -> Generator[Central]:
    blocks = PortBlocks()
    ports = Ports(blocks.take())
    settings: dict[str, dict[str, object]] = {
        "approvals": {"operations": [*_BY_TWO]},
        "web": {"card_port": ports.cards, "card_authorities": [str(cards / "cards.pem")]},
    }
    made = Central(tmp_path_factory.mktemp("strict") / "central", ports, settings=settings)
    try:
        made.found()
        yield made
    finally:
        for process in (made.process, made.relay, made.broker):
            process.stop()
        blocks.close()


@pytest.fixture
def connect(strict: Central, cards: Path) -> Generator[Callable[..., httpx.Client]]:
    """Make a browser-like client, with a card if one is named."""
    opened: list[httpx.Client] = []

    def connect(card: str | None = None, token: str | None = None) -> httpx.Client:
        trusted = ssl.create_default_context(cafile=str(strict.folder / "state" / "root.pem"))
        if card is not None:
            trusted.load_cert_chain(cards / f"{card}.pem", cards / f"{card}.key")
        headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
        if token is not None:
            headers = {"Authorization": f"Bearer {token.strip()}"}
        opened.append(httpx.Client(verify=trusted, headers=headers, base_url=strict.web_url))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


def _card_url(strict: Central) -> str:
    return f"https://127.0.0.1:{strict.ports.cards}/"


def test_a_bound_card_opens_a_session_once(strict, cards, connect):
    strict.command("user", "add", "anna", "--role", "auditor", "--no-login")
    client = connect("anna")
    assert client.get(_card_url(strict)).status_code == 401  # bound to nobody yet
    strict.command("user", "bind", "anna", str(cards / "anna.pem"))
    assert _card_url(strict)[:-1] in client.get("/login").text
    sent = client.get(_card_url(strict))
    assert sent.status_code == 303
    opened = client.get(sent.headers["Location"])
    assert (opened.status_code, opened.headers["Location"]) == (303, "/")
    assert "anna" in client.get("/audit").text
    [session] = json.loads(strict.command("session", "list", "--user", "anna", "-o", "json"))
    assert session["how"] == "card"
    thief = connect()
    assert "/login?next=" in thief.get(sent.headers["Location"]).headers["Location"]
    assert thief.get("/audit").status_code == 303
    fresh = client.get(_card_url(strict)).headers["Location"]
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert thief.get(fresh, headers=cross).status_code == 403  # a link cannot log a victim in
    strict.command("user", "disable", "anna")
    assert client.get("/audit").status_code == 303
    assert client.get(_card_url(strict)).status_code == 401


@pytest.mark.parametrize("card", [None, "stranger", "late"])
def test_without_a_certificate_of_the_card_ca_tls_ends(strict, connect, card):
    with pytest.raises(httpx.TransportError):
        connect(card).get(_card_url(strict))


def test_an_unbound_card_opens_nothing(strict, connect):
    assert connect("nobody").get(_card_url(strict)).status_code == 401


def test_one_person_alone_neither_ends_a_gateway_nor_makes_an_administrator(strict, connect):
    strict.command("gateway", "invite", "press-1")
    client = connect()
    login = {"name": "admin", "password": strict.admin_password}
    assert client.post("/login", data=login).status_code == 303
    ended = client.post("/gateways/press-1/end", data={"reason": "stolen"})
    assert (ended.status_code, ended.headers["Location"]) == (303, "/approvals")
    assert "Somebody else must agree" in client.get("/approvals").text
    [waiting] = json.loads(strict.command("approval", "list", "--json"))
    assert client.post(f"/approvals/{waiting['id']}/agree").status_code == 403
    token = strict.command("token", "add", "admin", "ci")
    by_rest = connect(token=token)
    agree = f"/api/v2.0/approvals/{waiting['id']}/agree"
    assert by_rest.post(agree).status_code == 403  # the same person by another door
    assert strict.gateways()["press-1"]["state"] != "ended"
    strict.command("user", "add", "ben", "--no-login")
    answer = by_rest.post("/api/v2.0/users/ben/assign", json={"role": "admin"})
    assert answer.status_code == 202
    number = answer.json()["data"]["attributes"]["approval"]
    strict.command("approval", "agree", str(number))  # the console's user is the second person
    ben = connect(token=strict.command("token", "add", "ben", "ci"))
    assert ben.post(agree, json={"remark": "seen"}).status_code == 200
    assert strict.gateways()["press-1"]["state"] == "ended"
    assert ben.post(agree).status_code == 409
    assert "entries are as they were written" in strict.command("audit", "verify")
    lines = strict.command("audit", "export").splitlines()
    told = [(row["actor"], row["action"]) for row in map(json.loads, lines)]
    assert ("user:ben", "approval.given") in told
    assert ("user:admin", "gateway.ended") in told
    assert by_rest.get("/api/v2.0/audit/export").text.splitlines()[: len(lines)] == lines


def test_one_person_alone_does_not_revoke_many(strict, connect):
    """The order waits as an operation: another one lets it run or ends it, who asked takes it back.

    The same order again is the same one, and asks nobody twice.
    """
    asking = connect(token=strict.command("token", "add", "admin", "revoking"))
    strict.command("user", "add", "cora", "--role", "ra-officer", "--no-login")
    cora = connect(token=strict.command("token", "add", "cora", "ci"))
    for number in range(3):
        wish = {"data": {"type": "cert_tls-client", "attributes": {"cn": f"many-{number}"}}}
        assert asking.post(f"{_API}/cert_tls-client", json=wish).status_code == 201

    def order(key: str) -> str:
        attributes = {"filter": {"profile": "tls-client"}, "reason": "superseded"}
        answer = asking.post(
            f"{_API}/revocations",
            json={"data": {"type": "revocation", "attributes": attributes}},
            headers={"Idempotency-Key": key},
        )
        assert answer.status_code == 202, answer.text
        return answer.json()["data"]["id"]

    def shown(operation: str) -> tuple[str, int]:
        found = asking.get(f"{_API}/operations/{operation}").json()["data"]["attributes"]
        return found["state"], found["revoked"]

    def waiting() -> list[str]:
        listed = json.loads(strict.command("approval", "list", "--json"))
        kind = "certificate.revoke-many"
        return [
            f"{_API}/approvals/{one['id']}"
            for one in listed
            if (one["kind"], one["state"]) == (kind, "pending")
        ]

    refused = order("first")
    [address] = waiting()
    assert order("first") == refused
    assert waiting() == [address]
    assert shown(refused) == ("waiting", 0)
    assert asking.post(f"{address}/agree").status_code == 403
    assert cora.post(f"{address}/refuse", json={"remark": "no"}).status_code == 200
    assert shown(refused) == ("cancelled", 0)
    taken_back = order("second")
    [address] = waiting()
    assert asking.delete(f"{_API}/operations/{taken_back}").status_code == 200
    assert cora.post(f"{address}/agree").status_code == 409
    agreed = order("third")
    address = next(one for one in waiting() if one != address)
    assert cora.post(f"{address}/agree").status_code == 200
    wait_until(lambda: shown(agreed) == ("done", 3), what="the three are revoked")
