"""CAs by page and REST, against the real server: made, certified elsewhere, ended, refused."""

import itertools

import pytest
from cryptography import x509
from playwright.async_api import expect

from shared.pki import formats
from tests.support.central_pages import log_in
from tests.support.pki_hierarchy import root_authority

_BASE = "/api/v2.0/authorities"
_NUMBERS = itertools.count(1)


@pytest.fixture
def name() -> str:
    """A name that no other test gives a CA."""
    return f"Plant {next(_NUMBERS)}"


def _root(api) -> str:
    rows = api.get(_BASE).json()["data"]
    return next(row["id"] for row in rows if row["attributes"]["kind"] == "root")


def test_a_ca_is_made_used_by_its_child_rolled_over_and_deleted(api, name):
    order = {"name": name, "kind": "sub", "parent": _root(api), "days": 400, "tenant": "acme"}
    made = api.post(_BASE, json=order)
    assert made.status_code == 201, made.text
    ca_id = made.json()["data"]["id"]
    below = {"name": f"{name} issuing", "kind": "issuing", "parent": ca_id, "tenant": "acme"}
    child = api.post(_BASE, json=below).json()["data"]["id"]
    refused = api.delete(f"{_BASE}/{ca_id}")
    assert refused.status_code == 409
    assert f"{name} issuing" in refused.json()["detail"]

    successor = api.post(f"{_BASE}/{child}/roll-over")
    assert successor.status_code == 201, successor.text
    attributes = successor.json()["data"]["attributes"]
    assert attributes["name"] == f"{name} issuing G2"
    [certificate] = x509.load_pem_x509_certificates(attributes["certificates"].encode())
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.value.ca
    retired = api.post(f"{_BASE}/{attributes['ca_id']}/retire").json()["data"]["attributes"]
    assert retired["state"] == "retired"


def test_wrong_orders_are_refused_in_a_sentence(api, name):
    assert (
        api.post(_BASE, json={"name": name, "kind": "root", "parent": "00" * 20}).status_code == 400
    )
    assert (
        api.post(_BASE, json={"name": name, "kind": "sub", "parent": "00" * 20}).status_code == 404
    )
    assert api.get(f"{_BASE}/{'00' * 20}").status_code == 404
    assert api.post(f"{_BASE}/trust", json={"pem": "nonsense"}).status_code == 400


def test_a_station_sees_no_tree_of_keys(central, api, name):
    token = central.command("station", "add", name.lower().replace(" ", "-")).strip()
    answer = api.post(_BASE, json={}, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403


async def test_pages_trust_a_root_and_certify_below_it(page, central, name):
    root = root_authority(f"Foreign {name}")
    await log_in(page, central)
    await page.get_by_role("link", name="CAs", exact=True).click()
    trust = page.locator("form.card").filter(has_text="Trust a foreign root")
    await trust.get_by_label("Name").fill(f"Foreign {name}")
    await trust.get_by_label("Root certificate, PEM").fill(formats.pem([root.issuer.chain[0]]))
    await trust.get_by_role("button", name="Trust").click()
    await expect(page.get_by_role("heading", name=f"Foreign {name}")).to_be_visible()

    await page.goto("/authorities")
    ask = page.locator("form.card").filter(has_text="Below a foreign CA")
    await ask.get_by_label("Name").fill(name)
    await ask.get_by_role("button", name="Make the request").click()
    csr = await page.get_by_label("Certification request").inner_text()
    assert x509.load_pem_x509_csr(csr.encode()).is_signature_valid
    await page.goto("/authorities")
    await expect(page.get_by_role("row", name=name).filter(has_text="waiting")).to_be_visible()


async def test_page_makes_and_deletes_a_root(page, central, name):
    await log_in(page, central)
    await page.goto("/authorities")
    make = page.locator("form.card").filter(has_text="Make a CA")
    await make.get_by_label("Name").fill(name)
    await make.get_by_label("Kind").select_option("root")
    await make.get_by_role("button", name="Make").click()
    await expect(page.get_by_role("heading", name=name)).to_be_visible()
    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("heading", name="Certification authorities")).to_be_visible()
    await expect(page.get_by_role("row", name=name)).to_have_count(0)
