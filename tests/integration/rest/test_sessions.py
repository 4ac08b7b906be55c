"""Logins over real TLS and a real database, with pages around them."""

import asyncio
import os
from collections.abc import AsyncIterator

import httpx
import pytest
from aiohttp import web

from shared.kernel.errors import BadRequestError
from shared.store.access import Access
from shared.web import app, sessions
from shared.web.auth import Role
from shared.web.pages import Pages
from shared.web.sessions import COOKIE, Sessions
from shared.web.throttle import Throttle
from tests.support.store_clock import ManualClock
from tests.support.store_databases import open_database

PASSWORD = "correct horse battery"
PAGE = {"Sec-Fetch-Site": "same-origin"}


class Site:
    """A login, a page that needs one, and a change that needs the role admin."""

    def __init__(self, access: Access, clock: ManualClock) -> None:
        self.access, self.clock, self.url = access, clock, ""
        self.sessions = Sessions(
            accounts=access, clock=clock, random=os.urandom, failures=Throttle(clock)
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
            return web.Response(text=(await self.sessions.require(request)).name)

        async def change(request: web.Request) -> web.Response:
            return web.Response(text=(await self.sessions.require(request, Role.ADMIN)).name)

        return [
            web.post("/login", log_in),
            web.post("/logout", log_out),
            web.get("/page", page),
            web.post("/change", change),
        ]

    def browser(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=PAGE, trust_env=False)

    async def log_in(self, client: httpx.AsyncClient, password: str = PASSWORD, name: str = "ada"):
        return await client.post("/login", json={"name": name, "password": password})


@pytest.fixture
async def site(tmp_path) -> AsyncIterator[Site]:
    clock = ManualClock()
    async with open_database(tmp_path / "site.db", clock=clock) as database:
        site = Site(Access(database), clock)
        for name, role in (("ada", "admin"), ("eve", "auditor")):
            password_hash = sessions.hash_password(PASSWORD)
            await site.access.set_user(name, password_hash=password_hash, role=role)
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
        new_hash = sessions.hash_password("another long password")
        await site.access.set_user("ada", password_hash=new_hash, role="admin")
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
    user = await site.access.user("ada")
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


@pytest.mark.parametrize("password", ["", "short", "x" * 257])
def test_passwords_have_a_length(password: str):
    with pytest.raises(BadRequestError):
        sessions.hash_password(password)
