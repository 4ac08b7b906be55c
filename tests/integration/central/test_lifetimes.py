"""No certificate outlives its issuer: at each issuing CA of a hierarchy, also a short-lived one.

The certificates are looked at, not the plans: each ends at the latest with the one above it.
"""

import itertools
from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest
from cryptography import x509

from shared.policy.shipped import SHIPPED
from tests.support.rest_server import request_pem, wish

BASE = "/api/v2.0"
_NUMBERS = itertools.count(1)
#: Days of the root (None: no expiry), of a CA between, if any, and of the issuing CA.
HIERARCHIES = {
    "no expiry anywhere": (None, None, None),
    "a short issuing CA": (None, None, 20),
    "a short CA between": (None, 30, 3_650),
    "a short root": (40, 3_650, 3_650),
    "each shorter": (300, 200, 100),
}


@pytest.fixture(params=HIERARCHIES)
def issuing(api: httpx.Client, request: pytest.FixtureRequest) -> str:
    """Give the id of an issuing CA; each is a tenant's, so that nobody else is issued by it."""
    root, between, own = HIERARCHIES[request.param]
    above = _made(api, "root", None, root)
    if request.param != "a short issuing CA":
        above = _made(api, "sub", above, between)
    return _made(api, "issuing", above, own)


def _made(api: httpx.Client, kind: str, parent: str | None, days: int | None) -> str:
    name = f"Life {next(_NUMBERS)}"
    order: dict[str, Any] = {"name": name, "kind": kind, "parent": parent, "days": days}
    answer = api.post(
        f"{BASE}/authorities", json=order | {"tenant": name.replace(" ", "-").lower()}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["data"]["id"]


@pytest.fixture
def profile(api: httpx.Client, issuing: str) -> Generator[Callable[..., str]]:
    """Publish a variant of a shipped profile that this CA issues; gives its name."""
    made: list[str] = []

    def publish(shipped: str, **validity: Any) -> str:
        [found] = [one for one in SHIPPED if one.name == shipped]
        document = found.to_document()
        name = f"life-{next(_NUMBERS)}"
        document |= {"name": name, "version": 1, "issuing_ca": issuing}
        document["validity"] |= validity
        drafted = api.post(f"{BASE}/policy/profiles", json={"data": document})
        assert drafted.status_code == 200, drafted.text
        done = api.post(f"{BASE}/policy/profiles/{name}/publish", json={"version": 1})
        assert done.status_code == 200, done.text
        made.append(name)
        return name

    yield publish
    for name in made:
        api.post(f"{BASE}/policy/profiles/{name}/withdraw")


def enroll(api: httpx.Client, profile: str, days: int | None, **how: Any) -> httpx.Response:
    attributes = {"profile": profile, "subject": {"common_name": "a", "serial_number": "SN-1"}}
    more = {"cert_days": days} if days else {}
    return api.post(f"{BASE}/certificates", json=wish(attributes | more | how))


def assert_ends_with_its_issuers(answer: httpx.Response) -> list[x509.Certificate]:
    assert answer.status_code == 201, answer.text
    found = answer.json()["data"]["attributes"]
    chain = x509.load_pem_x509_certificates((found["certificate"] + found["chain"]).encode())
    assert len(chain) >= 3
    for below, above in itertools.pairwise(chain):
        assert below.issuer == above.subject
        assert below.not_valid_after_utc <= above.not_valid_after_utc
        assert below.not_valid_before_utc >= above.not_valid_before_utc
    return chain


def test_what_is_clipped_ends_with_its_issuer(
    api: httpx.Client, issuing: str, profile: Callable[..., str]
):
    name = profile("tls-client")
    for days in (None, 1, 825):
        ours = enroll(api, name, days, csr=request_pem("a"))
        leaf, issuer, *_ = assert_ends_with_its_issuers(ours)
        made_here, *_ = assert_ends_with_its_issuers(enroll(api, name, days))
        if days == 1:
            assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 1
        elif (issuer.not_valid_after_utc - leaf.not_valid_before_utc).days < 365:
            assert leaf.not_valid_after_utc == issuer.not_valid_after_utc
            assert made_here.not_valid_after_utc == issuer.not_valid_after_utc
        link = ours.json()["data"]["links"]["self"]
        renewal = api.post(f"{link}/renew", json=wish({"csr": request_pem("a")}))
        assert_ends_with_its_issuers(renewal)


def test_what_has_no_end_ends_with_its_issuer_or_is_refused(
    api: httpx.Client, issuing: str, profile: Callable[..., str]
):
    clipped = enroll(api, profile("idevid", too_long="clip"), None)
    leaf, issuer, *_ = assert_ends_with_its_issuers(clipped)
    assert leaf.not_valid_after_utc == issuer.not_valid_after_utc
    refused = enroll(api, profile("idevid"), None)
    if issuer.not_valid_after_utc.year == 9999:
        assert_ends_with_its_issuers(refused)
    else:
        assert (refused.status_code, refused.json()["rule"]) == (403, "validity.issuer")
        assert "CA that lives longer" in refused.json()["remedy"]


def test_every_ca_and_its_next_generation_end_with_the_one_above(api: httpx.Client, issuing: str):
    former = _certificate(api, issuing)
    successor = api.post(f"{BASE}/authorities/{issuing}/roll-over")
    assert successor.status_code == 201, successor.text
    new = _certificate(api, successor.json()["data"]["id"])
    assert new.issuer == former.issuer
    assert new.public_key() != former.public_key()
    known = [_certificate(api, one["id"]) for one in api.get(f"{BASE}/authorities").json()["data"]]
    for one in (former, new):
        while one.issuer != one.subject:
            [above] = [other for other in known if other.subject == one.issuer]
            assert one.not_valid_after_utc <= above.not_valid_after_utc
            one = above  # noqa: PLW2901 - upwards to the root


def _certificate(api: httpx.Client, ca_id: str) -> x509.Certificate:
    found = api.get(f"{BASE}/authorities/{ca_id}").json()["data"]["attributes"]
    return x509.load_pem_x509_certificates(found["certificates"].encode())[0]
