"""CAs by page and REST, against the real server: made, certified elsewhere, ended, refused."""

import itertools

import httpx
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


def test_the_crl_of_a_ca_is_shared_out(api, central, name):
    """All partitions are served before a certificate names one, and those of before stay."""
    rows = api.get(_BASE).json()["data"]
    parent = next(row["id"] for row in rows if row["attributes"]["kind"] == "fleet")
    order = {"name": name, "kind": "issuing", "parent": parent, "tenant": "acme"}
    made = api.post(_BASE, json={**order, "crl_partitions": 2}).json()["data"]
    assert made["attributes"]["crl_partitions"] == 2
    for count in (3, 0, "4"):
        answer = api.post(f"{_BASE}/{made['id']}/partition", json={"crl_partitions": count})
        assert answer.status_code == 400, answer.text

    shared = api.post(f"{_BASE}/{made['id']}/partition", json={"crl_partitions": 4})
    assert shared.status_code == 200, shared.text
    attributes = shared.json()["data"]["attributes"]
    assert (attributes["crl_partitions"], attributes["crl_partitions_kept"]) == (4, [2])
    for partition in ("4-0", "4-3", "2-0", "2-1"):
        answer = httpx.get(f"{central.status_url}/crl/{made['id']}-{partition}.crl")
        assert answer.status_code == 200
        point = x509.load_der_x509_crl(answer.content).extensions.get_extension_for_class(
            x509.IssuingDistributionPoint
        )
        assert point.critical
        [url] = point.value.full_name or ()
        assert url.value.endswith(f"/crl/{made['id']}-{partition}.crl")
    scopes = {
        row["attributes"]["scope"]
        for row in api.get("/api/v2.0/crls").json()["data"]
        if row["attributes"]["ca_id"] == made["id"]
    }
    assert scopes == {"complete", "partitions-2", "partitions-4"}

    central.command("ca", "partition", made["id"], "1")
    attributes = api.get(f"{_BASE}/{made['id']}").json()["data"]["attributes"]
    assert (attributes["crl_partitions"], attributes["crl_partitions_kept"]) == (1, [2, 4])
    refused = api.post(f"{_BASE}/{parent}/partition", json={"crl_partitions": 4})
    assert refused.status_code == 409
    successor = api.post(f"{_BASE}/{made['id']}/roll-over").json()["data"]["attributes"]
    assert successor["crl_partitions"] == 1


async def test_page_shares_out_a_crl(page, central, api, name):
    rows = api.get(_BASE).json()["data"]
    parent = next(row["id"] for row in rows if row["attributes"]["kind"] == "fleet")
    order = {"name": name, "kind": "issuing", "parent": parent, "tenant": "acme"}
    ca_id = api.post(_BASE, json=order).json()["data"]["id"]
    await log_in(page, central)
    await page.goto(f"/authorities/{ca_id}")
    await expect(page.get_by_text("whole", exact=True)).to_be_visible()
    await page.get_by_label("Partitions").select_option("8")
    await page.get_by_role("button", name="Set").click()
    await expect(page.get_by_text("8 partitions")).to_be_visible()
