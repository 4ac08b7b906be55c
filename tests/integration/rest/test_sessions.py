"""Logins over real TLS and a real database, with pages around them."""

import asyncio
import os
from collections.abc import AsyncIterator

import httpx
import pytest
from aiohttp import web
from argon2 import PasswordHasher

from central.identity import people
from shared.kernel.errors import BadRequestError
from shared.policy.rights import EVERYWHERE, Permission
from shared.store.accounts import Accounts
from shared.store.database import Database
from shared.web import app, passwords, sessions
from shared.web.auth import open_to_all
from shared.web.pages import Pages
from shared.web.sessions import COOKIE, Sessions
from shared.web.throttle import Throttle
from tests.support.store_clock import ManualClock
from tests.support.store_databases import open_database

PASSWORD = "correct horse battery"
PAGE = {"Sec-Fetch-Site": "same-origin"}


class Site:
    """A login, a page that needs one, and a change that needs a permission of admins."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database, self.clock, self.url = database, clock, ""
        self.accounts = Accounts(database)
        self.sessions = Sessions(
            accounts=self.accounts, clock=clock, random=os.urandom, failures=Throttle(clock)
        )

    def routes(self) -> list[web.RouteDef]:
        async def log_in(request: web.Request) -> web.Response:
            form = await request.json()
            token = await self.sessions.log_in(request, form["name"], form["password"])
            answer = web.Response(text="in")
            sessions.set_cookie(answer, token)
            return answer

        async def log_out(request: web.Request) -> web.Response:
            answer = web.Response(text="out")
            await self.sessions.log_out(request, answer)
            return answer

        async def page(request: web.Request) -> web.Response:
            return web.Response(text=(await self.sessions.require(request, None)).name)

        async def change(request: web.Request) -> web.Response:
            who = await self.sessions.require(request, Permission.USER_WRITE)
            return web.Response(text=who.name)

        return [
            web.post("/login", open_to_all(log_in, "test")),
            web.post("/logout", open_to_all(log_out, "test")),
            web.get("/page", open_to_all(page, "test")),
            web.post("/change", open_to_all(change, "test")),
        ]

    async def add(self, name: str, role: str, *, must_change: bool = False) -> None:
        encoded = passwords.encode(PASSWORD)

        def unit(tx) -> None:
            people.add_user(tx, name, encoded, "user:test", must_change=must_change)
            people.assign(tx, name, role, EVERYWHERE, "user:test")

        await self.database.writer.run(unit)

    def browser(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=PAGE, trust_env=False)

    async def log_in(self, client: httpx.AsyncClient, password: str = PASSWORD, name: str = "ada"):
        return await client.post("/login", json={"name": name, "password": password})


@pytest.fixture
async def site(tmp_path) -> AsyncIterator[Site]:
    clock = ManualClock()
    async with open_database(tmp_path / "site.db", clock=clock) as database:
        site = Site(database, clock)
        for name, role in (("ada", "admin"), ("eve", "auditor")):
            await site.add(name, role)
        pages = Pages(product="Test", version="1", login_path="/login")
        application = app.create(site.routes(), random=os.urandom, pages=pages)
        async with app.serve([app.Endpoint(application, "127.0.0.1", 0)]) as (port,):
            site.url = f"http://127.0.0.1:{port}"
            yield site


def keep(client: httpx.AsyncClient, answer: httpx.Response) -> None:
    """Send the cookie along though the test speaks plain HTTP."""
    client.headers["Cookie"] = answer.headers["Set-Cookie"].split(";")[0]


async def test_log_in_and_out(site: Site):
    async with site.browser() as client:
        assert (await client.get("/page")).status_code == 401
        answer = await site.log_in(client)
        assert answer.status_code == 200
        attributes = answer.headers["Set-Cookie"].lower()
        assert attributes.startswith(f"{COOKIE.lower()}=")
        for needed in ("secure", "httponly", "samesite=strict", "path=/"):
            assert needed in attributes
        keep(client, answer)
        assert (await client.get("/page")).text == "user:ada"
        assert (await client.post("/change")).text == "user:ada"
        await client.post("/logout")
        assert (await client.get("/page")).status_code == 401


async def test_a_browser_is_sent_to_the_login(site: Site):
    async with site.browser() as client:
        answer = await client.get("/page?x=1", headers={"Accept": "text/html"})
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/login?next=/page%3Fx%3D1"


async def test_roles(site: Site):
    async with site.browser() as client:
        keep(client, await site.log_in(client, name="eve"))
        assert (await client.get("/page")).status_code == 200
        assert (await client.post("/change")).status_code == 403


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}]
)
async def test_a_session_changes_nothing_for_another_page(site: Site, headers: dict[str, str]):
    async with httpx.AsyncClient(base_url=site.url, trust_env=False) as client:
        login = await client.post(
            "/login", json={"name": "ada", "password": PASSWORD}, headers=PAGE
        )
        keep(client, login)
        assert (await client.get("/page")).status_code == 200
        assert (await client.post("/change", headers=headers)).status_code == 403
        refused = await client.post(
            "/login", json={"name": "ada", "password": PASSWORD}, headers=headers
        )
        assert refused.status_code == 403


async def test_sessions_end_when_idle_and_after_a_shift(site: Site):
    async with site.browser() as client:
        keep(client, await site.log_in(client))
        for _ in range(3):
            site.clock.advance(29 * 60)
            assert (await client.get("/page")).status_code == 200
        site.clock.advance(31 * 60)
        assert (await client.get("/page")).status_code == 401
        keep(client, await site.log_in(client))
        for _ in range(26):
            site.clock.advance(27 * 60)
            await client.get("/page")
        site.clock.advance(25 * 60)
        assert (await client.get("/page")).status_code == 401


async def test_a_new_password_ends_the_sessions(site: Site):
    async with site.browser() as client:
        keep(client, await site.log_in(client))
        new_hash = passwords.encode("another long password")
        await site.database.writer.run(
            lambda tx: people.set_password(tx, "ada", new_hash, "user:test", must_change=False)
        )
        assert (await client.get("/page")).status_code == 401
        assert (await site.log_in(client)).status_code == 401
        assert (await site.log_in(client, "another long password")).status_code == 200


async def test_the_delay_rises_and_ends_with_a_good_login(site: Site):
    async with site.browser() as client:
        for _ in range(5):
            assert (await site.log_in(client, "wrong")).status_code == 401
        waits = []
        for _ in range(3):
            refused = await site.log_in(client, PASSWORD)
            assert refused.status_code == 429
            waits.append(int(refused.headers["Retry-After"]))
            site.clock.advance(waits[-1] + 1)
            assert (await site.log_in(client, "wrong")).status_code == 401
        assert waits == [1, 2, 4]
        site.clock.advance(20)
        assert (await site.log_in(client)).status_code == 200
        assert (await site.log_in(client, "wrong")).status_code == 401


async def test_parallel_guesses_do_not_outrun_the_delay(site: Site):
    async with site.browser() as client:
        answers = await asyncio.gather(*(site.log_in(client, f"guess {n}") for n in range(16)))
    tried = [answer for answer in answers if answer.status_code == 401]
    assert {answer.status_code for answer in answers} == {401, 429}
    assert 1 <= len(tried) <= 5
    user = await site.accounts.user("ada")
    assert user is not None
    assert user.failed_logins == len(tried)


@pytest.mark.parametrize("name", ["nobody", "", "x" * 10_000, "ada' --"])
async def test_unknown_names(site: Site, name: str):
    async with site.browser() as client:
        answer = await site.log_in(client, name=name)
    assert answer.status_code == 401
    assert answer.json()["detail"] == "Name or password is wrong."


@pytest.mark.parametrize("cookie", ["x", "x" * 5_000, "ä", '"', "a;b"])
async def test_forged_cookies(site: Site, cookie: str):
    async with site.browser() as client:
        answer = await client.get("/page", headers={"Cookie": f"{COOKIE}={cookie}".encode()})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "password",
    [
        "", "short", "x" * 257, "aaaaaaaaaaaa", "Password1234!", "qwertyuiop12",
        "ada-is-my-name", "Administrator1",
    ],
)  # fmt: skip
def test_passwords_that_are_guessed_first_are_refused(password: str):
    with pytest.raises(BadRequestError):
        passwords.require_good(password, "ada")


def test_a_sentence_is_a_password():
    passwords.require_good(PASSWORD, "ada")


async def test_the_browsers_earlier_session_ends_with_a_login(site: Site):
    """Session fixation: what somebody planted in the browser is worth nothing afterwards."""
    async with site.browser() as client:
        keep(client, await site.log_in(client))
        planted = client.headers["Cookie"]
        keep(client, await site.log_in(client))
        assert client.headers["Cookie"] != planted
        assert (await client.get("/page")).status_code == 200
        assert (await client.get("/page", headers={"Cookie": planted})).status_code == 401
        invented = f"{COOKIE}=" + "A" * 43
        answer = await client.post(
            "/login", json={"name": "ada", "password": PASSWORD}, headers={"Cookie": invented}
        )
        assert answer.headers["Set-Cookie"].split(";")[0] != invented


async def test_a_first_password_only_opens_the_page_that_changes_it(site: Site):
    await site.add("new", "admin", must_change=True)
    async with site.browser() as client:
        keep(client, await site.log_in(client, name="new"))
        answer = await client.get("/page")
    assert (answer.status_code, answer.json()["code"]) == (403, "password-change-needed")


async def test_a_disabled_user_is_out_at_once_and_stays_out(site: Site):
    async with site.browser() as client:
        keep(client, await site.log_in(client, name="eve"))
        await site.database.writer.run(lambda tx: people.disable(tx, "eve", "user:test"))
        assert (await client.get("/page")).status_code == 401
        assert (await site.log_in(client, name="eve")).status_code == 401
        await site.database.writer.run(lambda tx: people.enable(tx, "eve", "user:test"))
        assert (await site.log_in(client, name="eve")).status_code == 200


async def test_a_dated_hash_is_renewed_at_the_login(site: Site):
    dated = PasswordHasher(time_cost=1, memory_cost=8 * 1024).hash(PASSWORD)
    await site.database.writer.run(
        lambda tx: people.set_password(tx, "ada", dated, "user:test", must_change=False)
    )
    async with site.browser() as client:
        assert (await site.log_in(client)).status_code == 200
        user = await site.accounts.user("ada")
        assert user is not None
        assert user.password_hash != dated
        assert not passwords.is_dated(user.password_hash)
        assert (await site.log_in(client)).status_code == 200
