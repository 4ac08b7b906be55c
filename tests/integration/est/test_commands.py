"""The ready-made commands are executed as they are shown."""

import stat
from pathlib import Path

import pytest
from cryptography import x509

from shared.enroll.est.commands import Place, ready_made
from shared.enroll.est.enrolling import DEFAULT_ALIAS
from shared.policy.access import Access, Alias, Evidence
from tests.support.est import EstClient
from tests.support.rest_server import Server


@pytest.mark.parametrize(
    ("strict", "profile"),
    [("sha256", "tls-client"), ("sha256", "tls-server"), ("sha384", "tls-client")],
    indirect=["strict"],
)
@pytest.mark.usefixtures("strict")
async def test_what_is_shown_works(server: Server, client: EstClient, tmp_path: Path, profile: str):
    alias = Alias(name="line", profile=profile, accepts=(Evidence.TOKEN,))
    server.rules.access = Access(aliases=(alias,))
    place = Place(server.urls["machines"], server.urls["plain"], server.authority.issuer.chain[-1])
    steps = ready_made(alias, server.est.profile(profile), place, "SN-0815")
    folder = tmp_path / "machine"
    folder.mkdir()
    login = folder / "login.conf"
    login.write_text(f'user = "station:{server.token}"\n')
    login.chmod(stat.S_IRUSR | stat.S_IWUSR)
    lines = [line for step in steps for line in step.lines]
    script = "\n".join(["set -e", f"cd {folder}", *lines])
    await client.tool("sh", "-c", script)
    [certificate] = x509.load_pem_x509_certificates((folder / "SN-0815.pem").read_bytes())
    assert "SN-0815" in certificate.subject.rfc4514_string()
    events = server.events("certificate.issued")
    renewals = [event["replaces"] is not None for event in events]
    assert renewals == ([False, True] if profile == "tls-client" else [False])


async def test_the_default_alias_is_shown_for_strongswan_too(server: Server):
    place = Place("https://gw.example:9444", "http://gw.example", server.authority.issuer.chain[-1])
    steps = ready_made(
        Alias(name=DEFAULT_ALIAS, profile="tls-client"), server.est.profile("tls-client"), place
    )
    assert any("strongSwan" in step.title for step in steps)
