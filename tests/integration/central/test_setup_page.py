"""A central that is not there yet serves the page that founds it, and then goes on as usual."""

import json
import re
import signal
import ssl
import stat
import subprocess
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from playwright.async_api import expect

from shared.pki.keywrap import recovery_secret
from shared.web.terminal import ExitStatus
from tests.support.central_pages import browser_page, violations
from tests.support.fleet import Central, Ports
from tests.support.postgres import PostgresServer
from tests.support.processes import PortBlocks, listening, program, wait_until

_PASSWORD = "four words beside each other"


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Central]:
    """A configuration, and nothing else."""
    settings: dict[str, dict[str, object]] = {}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        settings["database"] = server.new()
    blocks = PortBlocks()
    made = Central(tmp_path / "central", Ports(blocks.take()), settings=settings)
    try:
        yield made
    finally:
        made.process.stop()
        blocks.close()


@pytest.fixture
def started(fresh: Central) -> Central:
    start(fresh)
    return fresh


@pytest.fixture
def http(fresh: Central) -> Generator[httpx.Client]:
    """Somebody who cannot know the page's certificate yet."""
    with httpx.Client(verify=False, base_url=fresh.web_url, timeout=60) as client:
        yield client


def start(central: Central) -> None:
    central.process.start()
    central.process.wait_ready(lambda: listening(central.ports.web))


def code_file(central: Central) -> Path:
    return central.folder / "state" / "setup.code"


def filled(central: Central, **changes: str) -> dict[str, str]:
    """Fill the form in as a person does: two names stay as they are."""
    form = {
        "code": code_file(central).read_text("ascii").strip(),
        "organization": "Plant Nine",
        "root_name": "Nine Root",
        "fleet_name": "TMA Edge Fleet CA",
        "issuing_name": "TMA Edge Issuing CA",
        "days": "7300",
        "key_type": "ec-p384",
        "admin": "Ada",
        "password": _PASSWORD,
        "again": _PASSWORD,
    }
    return form | changes


def shown_once(answer: httpx.Response) -> tuple[str, str]:
    """Read the recovery secret, and what confirms it."""
    assert answer.status_code == 200, answer.text
    [secret] = re.findall(r"(?:[A-Z2-7]{7}-){7}[A-Z2-7]{7}", answer.text)
    [shown] = re.findall(r'name="shown" value="(\w+)"', answer.text)
    assert recovery_secret(secret)
    return secret, shown


def confirm(central: Central, http: httpx.Client, shown: str) -> None:
    answer = http.post("/setup/confirm", data={"shown": shown})
    assert answer.status_code == 200, answer.text
    assert 'href="/login"' in answer.text
    assert "Central starts" in http.get("/setup").text  # the page is there a moment longer
    central.process.wait_ready(lambda: listening(central.ports.joining))


def root_of(central: Central) -> x509.Certificate:
    return x509.load_pem_x509_certificate((central.folder / "state" / "root.pem").read_bytes())


def fingerprint(central: Central) -> str:
    return root_of(central).fingerprint(SHA256()).hex()


def trusting(central: Central) -> httpx.Client:
    """A client that trusts the root, and says as a browser does that our own page sends it."""
    trusted = ssl.create_default_context(cafile=str(central.folder / "state" / "root.pem"))
    own = {"Sec-Fetch-Site": "same-origin"}
    return httpx.Client(verify=trusted, base_url=central.web_url, headers=own)


def logs_in(client: httpx.Client, name: str = "Ada", password: str = _PASSWORD) -> bool:
    answer = client.post("/login", data={"name": name, "password": password})
    return answer.status_code == 303


def wrong(answer: httpx.Response) -> set[str]:
    """Tell at which fields something is said."""
    return set(re.findall(r'<p id="(\w+)-wrong"', answer.text))


def test_the_page_founds_a_central_that_issues(started: Central, http: httpx.Client):
    assert stat.S_IMODE(code_file(started).stat().st_mode) == 0o600
    code = code_file(started).read_text("ascii").strip()
    answer = http.post("/setup", data=filled(started, code=code.lower().replace("-", " ")))
    secret, shown = shown_once(answer)
    assert fingerprint(started) in answer.text
    days = root_of(started).not_valid_after_utc - root_of(started).not_valid_before_utc
    assert days.days == 7300
    confirm(started, http, shown)
    assert not code_file(started).exists()
    with trusting(started) as client:
        assert logs_in(client)
        page = client.get("/authorities").text
        for name in ("Nine Root", "Plant Nine Fleet CA", "Plant Nine Issuing CA"):
            assert name in page
        token = started.command("station", "add", "line-1").strip()
        wish = {"data": {"type": "cert_tls-server", "attributes": {"cn": "pump.example"}}}
        bearer = {"Authorization": f"Bearer {token}"}
        issued = client.post("/api/v2.0/cert_tls-server", json=wish, headers=bearer)
        assert issued.status_code == 201, issued.text
        made = client.post("/authorities", data={"name": "Later", "kind": "root"})
        assert "Plant Nine" in client.get(made.headers["Location"]).text
        assert client.post("/setup", data={"code": code}).status_code == 404
    again = json.loads(started.command("init", "--json"))
    assert (again["password"], again["recovery_secret"]) == (None, None)
    assert again["root_sha256"] == fingerprint(started)
    log = started.process.log.read_text("utf-8")
    assert str(code_file(started)) in log
    for hidden in (code, code.replace("-", ""), secret, _PASSWORD):
        assert hidden not in log


def test_nothing_else_is_served_before(started: Central, http: httpx.Client):
    for path in ("/", "/login", "/certificates?q=x", "/setup/elsewhere"):
        answer = http.get(path)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/setup")
    for method in ("GET", "POST"):
        refused = http.request(method, "/api/v2.0/status", headers={"Accept": "text/html"})
        assert refused.status_code == 503
        assert refused.headers["Content-Type"].startswith("application/problem+json")
        assert refused.json()["code"] == "unavailable"
    page = http.get("/setup")
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    [style] = re.findall(r'href="(/static/\w+/app.css)"', page.text)
    assert http.get(style).status_code == 200
    for port in (started.ports.machines, started.ports.joining, started.ports.status):
        with pytest.raises(ConnectionError):
            listening(port)


def test_another_code_founds_nothing_and_is_throttled(started: Central, http: httpx.Client):
    codes = ["", "0" * 20, "\u0660" * 20, *(f"WRONG-{number}" for number in range(7))]
    for code in codes:
        answer = http.post("/setup", data=filled(started, code=code, days="x"))
        assert (answer.status_code, wrong(answer)) == (403, {"code"})
    late = http.post("/setup", data=filled(started))
    assert late.status_code == 429
    assert int(late.headers["Retry-After"]) > 0
    assert not (started.folder / "state" / "root.pem").exists()
    huge = http.post("/setup", content=b"code=" + b"x" * 10_000)
    assert huge.status_code == 413
    elsewhere = http.post(
        "/setup", data=filled(started), headers={"Origin": "https://evil.example"}
    )
    assert elsewhere.status_code == 403


@pytest.mark.parametrize("fresh", ["sqlite"], indirect=True)
def test_what_is_wrong_is_told_at_its_field(started: Central, http: httpx.Client):
    for changes, fields in (
        ({"organization": "", "days": "0"}, {"organization", "days"}),
        ({"root_name": "x" * 65, "fleet_name": "Fl\u202eeet"}, {"root_name", "fleet_name"}),
        ({"issuing_name": "nine  ROOT"}, {"issuing_name"}),
        ({"days": "36526"}, {"days"}),
        ({"days": "ten"}, {"days"}),
        ({"key_type": "rsa-other"}, {"key_type"}),
        ({"admin": "A da", "again": "another one"}, {"admin", "again"}),
        ({"password": "", "again": ""}, {"password"}),
        ({"password": "short", "again": "short"}, {"password"}),
        ({"password": "ada-ada-ada-ada", "again": "ada-ada-ada-ada"}, {"password"}),
    ):
        answer = http.post("/setup", data=filled(started, **changes))
        assert (answer.status_code, wrong(answer)) == (400, fields)
        assert filled(started)["code"] not in answer.text
        assert 'value="Nine Root"' in answer.text or "root_name" in fields
    assert not (started.folder / "state" / "root.pem").exists()


def test_a_second_try_makes_the_secret_anew_and_no_ca(started: Central, http: httpx.Client):
    former, _ = outdated = shown_once(http.post("/setup", data=filled(started)))
    root = fingerprint(started)
    finish = http.get("/setup").text
    assert "Finish the setup" in finish
    assert "root_name" not in finish
    other = {"root_name": "Another", "admin": "Bob", "password": f"{_PASSWORD}!"}
    answer = http.post("/setup", data=filled(started, **other, again=f"{_PASSWORD}!"))
    secret, shown = shown_once(answer)
    assert secret != former
    assert "were made before" in answer.text
    assert fingerprint(started) == root
    refused = http.post("/setup/confirm", data={"shown": outdated[1]})
    assert refused.status_code == 403
    assert http.post("/setup/confirm", data={}).status_code == 403
    confirm(started, http, shown)
    with trusting(started) as client:
        assert not logs_in(client)
        assert logs_in(client, "Bob", f"{_PASSWORD}!")
    if not isinstance(started.database, str):  # backups are of SQLite
        opens = restored(started, secret)
        assert (opens, restored(started, former)) == (0, ExitStatus.FAILED)


def restored(central: Central, secret: str) -> int:
    """Put a backup back on another box; gives the exit status."""
    backup = central.folder / "backup"
    if not backup.exists():
        central.command("backup", str(backup))
    other = Central(central.folder / secret[:7], central.ports)
    return subprocess.run(
        [program("tma-central"), "-c", str(other.config), "restore", str(backup)],
        input=f"{secret}\n",
        capture_output=True,
        text=True,
        check=False,
    ).returncode


def test_a_crash_before_anybody_confirmed_is_harmless(started: Central, http: httpx.Client):
    former, _ = shown_once(http.post("/setup", data=filled(started)))
    started.process.kill()
    code, root = code_file(started).read_text("ascii"), fingerprint(started)
    start(started)
    assert code_file(started).read_text("ascii") != code
    with httpx.Client(verify=False, base_url=started.web_url, timeout=60) as again:
        assert "Finish the setup" in again.get("/setup").text
        secret, shown = shown_once(again.post("/setup", data=filled(started)))
        confirm(started, again, shown)
    assert secret != former
    assert fingerprint(started) == root
    with trusting(started) as client:
        assert logs_in(client)


def test_killed_at_any_moment_it_can_be_repeated(fresh: Central):
    for delay_s in (0.02, 0.1, 0.2, 0.35, 0.5):
        start(fresh)
        with (
            pytest.raises(httpx.TimeoutException),
            httpx.Client(verify=False, base_url=fresh.web_url) as client,
        ):
            client.post("/setup", data=filled(fresh), timeout=httpx.Timeout(60, read=delay_s))
            raise httpx.ReadTimeout("It was quicker.")
        fresh.process.kill()
    start(fresh)
    with httpx.Client(verify=False, base_url=fresh.web_url, timeout=60) as client:
        _, shown = shown_once(client.post("/setup", data=filled(fresh)))
        confirm(fresh, client, shown)
    with trusting(fresh) as client:
        assert logs_in(client)


def test_init_and_the_page_exclude_each_other(started: Central, http: httpx.Client):
    argv = [program("tma-central"), "-c", str(started.config), "init", "--json"]
    refused = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert refused.returncode == ExitStatus.FAILED
    assert "Another process already holds" in refused.stderr
    started.process.signal(signal.SIGTERM)
    assert started.process.wait_ended() == 0
    assert not code_file(started).exists()
    named = ("--root-name", "Own Root", "--issuing-name", "Own Issuing", "--days", "9000")
    founded = json.loads(started.command("init", "--json", *named))
    assert founded["root_sha256"] == fingerprint(started)
    assert "Own Root" in root_of(started).subject.rfc4514_string()
    started.start()
    with trusting(started) as client:
        assert logs_in(client, "admin", founded["password"])


@pytest.mark.parametrize("fresh", ["sqlite"], indirect=True)
async def test_a_person_founds_by_keyboard_and_nobody_is_kept_out(started: Central):
    found: list[str] = []
    async with browser_page(started, bypass_csp=True) as page:
        await page.goto("/")
        found += await violations(page)
        await page.keyboard.type("WRONG")
        for label, text in (("Password again", _PASSWORD), ("Password", _PASSWORD)):
            await page.get_by_label(label, exact=True).fill(text)
        await page.keyboard.press("Enter")
        code = page.get_by_label("Setup code")
        await expect(code).to_have_attribute("aria-invalid", "true")
        await expect(code).to_be_focused()
        found += await violations(page)
        await page.keyboard.type(filled(started)["code"])
        for label in ("Password again", "Password"):
            await page.get_by_label(label, exact=True).fill(_PASSWORD)
        await page.keyboard.press("Enter")
        await expect(page.get_by_label("Recovery secret")).to_be_visible()
        found += await violations(page)
        await page.get_by_role("button", name="I have written it down").click()
        await expect(page.get_by_role("heading", name="Central starts")).to_be_visible()
        found += await violations(page)
        await started_up(started)
        await page.get_by_role("link", name="Log in").click()
        await page.get_by_label("Name").fill("admin")
        await page.get_by_label("Password").fill(_PASSWORD)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
    assert not found


async def started_up(central: Central) -> None:
    wait_until(lambda: listening(central.ports.joining), what="central listens")
