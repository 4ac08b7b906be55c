"""A gateway without a link: it issues, revokes, answers status, stops and goes on."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from shared.kernel.ids import serial_text
from tests.support.gateway_birth import Birthplace
from tests.support.gateway_box import GatewayBox, enroll
from tests.support.processes import ProcessError


async def until(probe: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait until the probe gives something true."""
    for _ in range(300):
        if await probe():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"It did not come true that {what}.")


def issued(answer: httpx.Response) -> x509.Certificate:
    assert answer.status_code == 201, answer.text
    pem = answer.json()["data"]["attributes"]["certificate"]
    return x509.load_pem_x509_certificate(pem.encode())


def serial_of(certificate: x509.Certificate) -> str:
    return serial_text(certificate.serial_number)


class RelyingParty:
    """Follows the pointers of a certificate as a stranger would; the first is the gateway's."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self.certificate = certificate
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        self.crl_url = points[0].full_name[0].value
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
        urls = {entry.access_method: entry.access_location.value for entry in access.value[::-1]}
        self.ocsp_url = urls[x509.AuthorityInformationAccessOID.OCSP]
        self.ca_url = urls[x509.AuthorityInformationAccessOID.CA_ISSUERS]

    async def _ask(self, method: str, url: str, **more) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.request(method, url, **more)

    async def issuer(self) -> x509.Certificate:
        return x509.load_der_x509_certificate((await self._ask("GET", self.ca_url)).content)

    async def delta(self) -> x509.CertificateRevocationList | None:
        """Fetch the delta from where the complete CRL says."""
        answer = await self._ask("GET", self.crl_url)
        crl = x509.load_der_x509_crl(answer.content)
        point = crl.extensions.get_extension_for_class(x509.FreshestCRL).value[0]
        answer = await self._ask("GET", point.full_name[0].value)
        return x509.load_der_x509_crl(answer.content) if answer.status_code == 200 else None

    async def has_crl(self) -> bool:
        return (await self._ask("GET", self.crl_url)).status_code == 200

    async def on_crl(self) -> bool:
        answer = await self._ask("GET", self.crl_url)
        crl = x509.load_der_x509_crl(answer.content)
        assert crl.is_signature_valid((await self.issuer()).public_key())
        return (
            crl.get_revoked_certificate_by_serial_number(self.certificate.serial_number) is not None
        )

    async def ask(self) -> ocsp.OCSPResponse:
        builder = ocsp.OCSPRequestBuilder()
        request = builder.add_certificate(self.certificate, await self.issuer(), SHA256())
        body = request.build().public_bytes(Encoding.DER)
        answer = await self._ask("POST", self.ocsp_url, content=body)
        return ocsp.load_der_ocsp_response(answer.content)

    async def status(self) -> ocsp.OCSPCertStatus:
        return (await self.ask()).certificate_status


async def test_a_line_works_without_central(gateway: GatewayBox, birthplace: Birthplace):
    root = birthplace.root.issuer.chain[0]
    async with await gateway.station(root) as station:
        first, second = [issued(await enroll(station, f"SN-{number}")) for number in (1, 2)]
        stranger = RelyingParty(first)
        await until(stranger.has_crl, "an empty CRL exists from the CA's birth")
        assert await stranger.status() is ocsp.OCSPCertStatus.GOOD
        assert not await stranger.on_crl()

        # Revoked on the console: OCSP says it at once, the CRL follows.
        assert "revoked" in await gateway.command(
            "revoke", serial_of(first), "--reason", "superseded"
        )
        assert await stranger.status() is ocsp.OCSPCertStatus.REVOKED
        await until(stranger.on_crl, "the CRL lists the revoked certificate")

        # Held and released; a released hold never holds again.
        serial = serial_of(second)
        assert "hold" in await gateway.command("hold", serial, "--id", "shift-3")
        assert "good" in await gateway.command("release", serial, "--id", "shift-3")
        assert "good" in await gateway.command("hold", serial, "--id", "shift-3")

        # The line stops and goes on.
        await gateway.command("line", "stop", "--reason", "The mould is changed.")
        refused = await enroll(station, "SN-3")
        assert refused.status_code == 409
        assert "The mould is changed." in refused.json()["detail"]
        shown = await gateway.snapshot()
        assert shown["verdict"]["headline"] == "Production stopped"
        assert shown["recent"][0]["why"].startswith("The line is stopped")
        await gateway.command("line", "continue")
        issued(await enroll(station, "SN-3"))

        async def shows_all() -> bool:  # a snapshot is up to a second old
            shown = await gateway.snapshot()
            only_here, used = shown["queue"]["certificates_only_here"], shown["authority"]["used"]
            return only_here == used == 4

        await until(shows_all, "three devices and the page are counted")
        told = await gateway.command("status")
        assert "4 certificates only on this box" in told
        assert "996 of 1000 certificates left" in told
        page = (await station.get("/", headers={"Accept": "text/html"})).text
        assert "SN-3" in page

        # A revoked station is out at once.
        await gateway.command("station", "revoke", "line-1")
        assert (await enroll(station, "SN-4")).status_code == 401
        assert "revoked" in await gateway.command("station", "list")


async def test_without_its_token_nothing_is_issued_and_status_goes_on(
    gateway: GatewayBox, birthplace: Birthplace
):
    root = birthplace.root.issuer.chain[0]
    async with await gateway.station(root) as station:
        certificate = issued(await enroll(station, "SN-1"))
        stranger = RelyingParty(certificate)
        await until(stranger.has_crl, "there is a CRL")
        assert await stranger.status() is ocsp.OCSPCertStatus.GOOD

        gateway.gateway.hsmd.kill()

        async def token_is(state: str) -> bool:
            return (await gateway.snapshot())["token"]["state"] == state

        await until(lambda: token_is("absent"), "the page says that the token is away")
        refused = await enroll(station, "SN-2")
        assert (refused.status_code, refused.json()["code"]) == (503, "token-unavailable")
        assert "Retry-After" in refused.headers
        assert (await gateway.snapshot())["verdict"]["headline"] == "Production stopped"
        await gateway.command("revoke", serial_of(certificate))
        assert await stranger.status() is ocsp.OCSPCertStatus.REVOKED
        assert not await stranger.on_crl()

        gateway.gateway.start_hsmd()
        await until(lambda: token_is("ready"), "the token is back")
        issued(await enroll(station, "SN-2"))
        await until(stranger.on_crl, "the CRL was signed when the token was back")


async def test_it_stops_politely_and_starts_where_it_was(
    gateway: GatewayBox, birthplace: Birthplace
):
    root = birthplace.root.issuer.chain[0]
    async with await gateway.station(root) as station:
        certificate = issued(await enroll(station, "SN-1"))
        gateway.gateway.process.stop()
        assert gateway.gateway.process.wait_ended() == 0
        with pytest.raises(ProcessError, match="status 3"):
            await gateway.command("status")
        # Without the token it starts too: the page and OCSP need none.
        gateway.gateway.hsmd.stop()
        await gateway.start()
        assert (await gateway.snapshot())["token"]["state"] == "absent"
        assert await RelyingParty(certificate).status() is ocsp.OCSPCertStatus.GOOD
        assert (await station.get("/")).status_code == 200
        gateway.gateway.start_hsmd()

        async def ready() -> bool:
            return (await enroll(station, "SN-2")).status_code == 201

        await until(ready, "it issues again")
        for name in ("gateway.db", "box.key", "witness.cbor"):
            assert (gateway.state / name).stat().st_mode & 0o077 == 0 or name == "gateway.db"


async def test_an_older_copy_of_the_database_stops_the_line(
    gateway: GatewayBox, birthplace: Birthplace
):
    root = birthplace.root.issuer.chain[0]
    copy = gateway.folder / "copy.db"
    async with await gateway.station(root) as station:
        certificate = issued(await enroll(station, "SN-1"))
        gateway.gateway.process.stop()
        shutil.copy(gateway.state / "gateway.db", copy)
        await gateway.start()
        issued(await enroll(station, "SN-2"))
        gateway.gateway.process.stop()

        shutil.copy(copy, gateway.state / "gateway.db")
        await gateway.start()
        shown = await gateway.snapshot()
        assert shown["history"] == "restored"
        assert "older copy" in shown["verdict"]["why"]
        refused = await enroll(station, "SN-3")
        assert refused.status_code == 503
        assert "restored" in refused.json()["detail"]
        with pytest.raises(ProcessError, match="status 4"):
            await gateway.command("revoke", serial_of(certificate))
        answer = await RelyingParty(certificate).ask()
        assert answer.response_status is ocsp.OCSPResponseStatus.TRY_LATER
        # It stays so: nothing that it does on the way makes the copy look new.
        gateway.gateway.process.stop()
        await gateway.start()
        assert (await gateway.snapshot())["history"] == "restored"


def test_a_box_that_did_not_join_says_what_to_do(tmp_path):
    config = tmp_path / "gateway.toml"
    config.write_text(f'state = "{tmp_path}/state"\n')
    outcome = subprocess.run(
        [sys.executable, "-m", "gateway", "-c", str(config), "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 1
    assert "tma-gateway join" in outcome.stderr
    assert "Traceback" not in outcome.stderr


async def test_delta_crls_come_from_the_token_without_a_link(
    box: GatewayBox, birthplace: Birthplace
):
    """The revocation is in the delta, the complete CRL keeps its day."""
    with box.gateway.config.open("a") as file:
        file.write("\n[crl]\ndelta_hours = 1\n")
    await box.join(birthplace.token())
    await box.start()
    root = birthplace.root.issuer.chain[0]
    async with await box.station(root) as station:
        first = issued(await enroll(station, "SN-1"))
        stranger = RelyingParty(first)
        await until(stranger.has_crl, "an empty CRL exists from the CA's birth")

        async def in_delta() -> bool:
            delta = await stranger.delta()
            listed = delta and delta.get_revoked_certificate_by_serial_number(first.serial_number)
            return bool(listed)

        assert not await in_delta()
        await box.command("revoke", serial_of(first), "--reason", "superseded")
        await until(in_delta, "the delta lists the revoked certificate")
        assert not await stranger.on_crl()
        delta = await stranger.delta()
        assert delta is not None
        assert delta.is_signature_valid((await stranger.issuer()).public_key())


async def test_partitions_come_from_the_token_and_break_no_earlier_certificate(
    gateway: GatewayBox, birthplace: Birthplace
):
    root = birthplace.root.issuer.chain[0]
    async with await gateway.station(root) as station:
        whole = RelyingParty(issued(await enroll(station, "SN-1")))
        gateway.gateway.process.stop()
        with gateway.gateway.config.open("a") as file:
            file.write("\n[crl]\npartitions = 4\n")
        await gateway.start()
        share = RelyingParty(issued(await enroll(station, "SN-2")))
        index = share.certificate.serial_number % 4
        assert share.crl_url == whole.crl_url.replace(".crl", f"-4-{index}.crl")
        await until(share.has_crl, "its partition is served")
        await until(whole.has_crl, "the whole is served as before")
        for stranger in (whole, share):
            assert not await stranger.on_crl()
            await gateway.command("revoke", serial_of(stranger.certificate))
            await until(stranger.on_crl, "the CRL that it names lists it")
        other = RelyingParty(share.certificate)
        other.crl_url = whole.crl_url
        assert await other.on_crl(), "the whole lists it, too"
        other.crl_url = whole.crl_url.replace(".crl", f"-4-{(index + 1) % 4}.crl")
        assert not await other.on_crl()
