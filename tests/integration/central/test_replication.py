"""What gateways report reaches the inventory once, and what central orders reaches them."""

import asyncio
import shutil

import pytest
from cryptography import x509

from shared.pki.certificates import responder_plan
from shared.pki.plan import NO_EXPIRY_US
from tests.support.central_ocsp import ocsp_status
from tests.support.central_puppet import Puppet
from tests.support.pki_hierarchy import NOW_US, root_authority, subject
from tests.support.products import rows


def _revocation(body):
    return {
        "ca_id": body["ca_id"],
        "serial": body["serial"],
        "reason": "key_compromise",
        "revoked_at_us": 1_800_000_000_000_000,
    }


def _known(central, name):
    statement = "SELECT device_id, state, status FROM certificate WHERE origin = ? ORDER BY id"
    return rows(central.database, statement, name)


def _gateway(central, name):
    columns = "state, state_reason, link, backlog, version"
    return rows(central.database, f"SELECT {columns} FROM gateway WHERE name = ?", name)[0]


async def _eventually(probe):
    async with asyncio.timeout(30):
        while not probe():  # noqa: ASYNC110 - another process decides
            await asyncio.sleep(0.1)


def _ocsp(central, puppet, serial):
    return ocsp_status(central.status_url, puppet.authority.issuer.certificate, serial)


def _responder(puppet, spki):
    """Certify central's responder key, as the order says."""
    plan = responder_plan(
        subject("Central's OCSP"), spki, not_before_us=NOW_US, not_after_us=NO_EXPIRY_US
    )
    return {"ca_id": puppet.authority.issuer.ca_id, "der": puppet.authority.issue(plan)}


async def test_certificates_arrive_once_and_counters_add_up(central, newborn, api):
    before = api.get("/api/v2.0/status").json()["data"]["attributes"]
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        bodies = [puppet.certificate(f"SN-{number}") for number in range(12)]
        await puppet.emit("certificate.issued", *bodies)
        await puppet.emit("certificate.revoked", _revocation(bodies[0]))
        hold = {"ca_id": bodies[1]["ca_id"], "serial": bodies[1]["serial"], "hold_id": "h"}
        await puppet.emit("certificate.held", hold)
        await puppet.drained()
    known = _known(central, puppet.name)
    assert len(known) == len(set(known)) == 12
    assert [status for _, _, status in known].count("revoked") == 1
    after = api.get("/api/v2.0/status").json()["data"]["attributes"]
    grown = {name: after[name] - before[name] for name in ("issued", "good", "held", "revoked")}
    assert grown == {"issued": 12, "good": 10, "held": 1, "revoked": 1}
    await _eventually(lambda: _gateway(central, puppet.name)[2:] == ("offline", 0, "puppet"))


async def test_revocation_at_central_shows_at_once_and_goes_down(central, newborn, api):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        body = puppet.certificate("SN-revoked")
        await puppet.emit("certificate.issued", body)
        responder = await puppet.heard("directive.responder")
        await puppet.emit("responder.issued", _responder(puppet, responder.body["spki"]))
        await puppet.drained()
        await _eventually(lambda: _ocsp(central, puppet, body["serial"]) == "GOOD")
        assert _ocsp(central, puppet, "ab" * 16) == "GOOD", "enrolled offline, not reported yet"
        place = f"/api/v2.0/certificates/{body['ca_id']}-{body['serial']}/revoke"
        answer = api.post(place, json={"data": {"type": "revocation", "attributes":
                          {"reason": "superseded"}}})  # fmt: skip
        assert answer.status_code == 200, answer.text
        assert _ocsp(central, puppet, body["serial"]) == "REVOKED"
        order = await puppet.heard("directive.revoke")
    assert order.body["serial"] == body["serial"]
    assert order.body["reason"] == "superseded"
    assert rows(central.database, "SELECT actor FROM audit WHERE action = 'certificate.revoked' "
                "AND subject = ?", f"{body['ca_id']}/{body['serial']}")  # fmt: skip


async def test_ocsp_says_try_later_until_the_gateway_certified_the_responder(central, newborn):
    puppet = await newborn()
    await _eventually(lambda: _ocsp(central, puppet, "ab" * 16) == "TRY_LATER")


async def test_revocation_before_its_issue_is_kept_and_never_undone(central, newborn):
    puppet = await newborn()
    async with puppet.open():
        body = puppet.certificate("SN-early")
        await puppet.emit("certificate.issued", body)  # lane normal: it goes second
        await puppet.emit("certificate.revoked", _revocation(body))
        async with puppet.online():
            await puppet.drained()
    assert _known(central, puppet.name) == [("SN-early", "issued", "revoked")]


async def test_what_is_not_the_gateways_is_quarantined_and_the_rest_goes_on(central, newborn):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        stranger = puppet.certificate("SN-stranger", root_authority("Stranger"))
        forged = puppet.certificate("SN-forged") | {"der": stranger["der"]}
        moved = puppet.certificate("SN-moved") | {"serial": "0" * 31 + "1"}
        honest = puppet.certificate("SN-honest")
        await puppet.emit("certificate.issued", stranger, forged, moved, honest)
        await puppet.drained()
    assert _known(central, puppet.name) == [("SN-honest", "issued", "good")]
    reasons = rows(central.database, "SELECT reason FROM quarantine WHERE peer = ?", puppet.name)
    assert len(reasons) == 3
    assert not any("defect" in reason for (reason,) in reasons), reasons


async def test_same_device_at_two_gateways_is_a_question_not_a_revocation(central, newborn):
    first, second = await newborn(), await newborn()
    for puppet in (first, second):
        async with puppet.open(), puppet.online():
            await puppet.emit("certificate.issued", puppet.certificate("SN-twin"))
            await puppet.drained()
    assert [status for _, _, status in _known(central, first.name)] == ["good"]
    kinds = rows(central.database, "SELECT kind FROM conflict WHERE gateway = ?", second.name)
    assert kinds == [("device-at-two-gateways",)]


async def test_clone_is_stopped_and_stays_stopped(central, newborn):
    puppet = await newborn()
    async with puppet.open():
        pass
    copy = Puppet(puppet.name, puppet.folder.with_name("copy"), puppet.keys, puppet.answer)
    shutil.copytree(puppet.folder, copy.folder)
    async with puppet.open(), puppet.online():
        await puppet.emit("certificate.issued", puppet.certificate("SN-1"))
        await puppet.drained()
    async with copy.open(), copy.online():
        copy.received = puppet.received
        await copy.emit("certificate.issued", copy.certificate("SN-2"))
        stop = await copy.stopped()
    assert stop.reason
    await _eventually(lambda: _gateway(central, puppet.name)[0] in {"cloned", "restored"})
    async with puppet.open(), puppet.online():
        await puppet.stopped()
    assert [device for device, _, _ in _known(central, puppet.name)] == ["SN-1"]


async def test_kill_of_central_loses_nothing_and_doubles_nothing(central, newborn):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        for part in range(6):
            bodies = [puppet.certificate(f"SN-{part}-{number}") for number in range(100)]
            await puppet.emit("certificate.issued", *bodies)
            if part in {1, 3}:
                central.process.kill()
                central.start()  # from the main thread, or it dies with the thread
        await puppet.drained()
    known = _known(central, puppet.name)
    assert len(known) == len(set(known)) == 600
    [(counted,)] = rows(central.database, "SELECT value FROM counter WHERE name = ?",
                        f"issued/{puppet.name}")  # fmt: skip
    assert counted == 600


async def test_ended_gateway_is_cut_off_at_once_and_for_good(central, newborn):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        body = puppet.certificate("SN-shipped")
        await puppet.emit("certificate.issued", body)
        responder = await puppet.heard("directive.responder")
        await puppet.emit("responder.issued", _responder(puppet, responder.body["spki"]))
        await puppet.drained()
        await asyncio.to_thread(
            central.command, "gateway", "end", puppet.name, "--reason", "stolen"
        )
        contacts = puppet.contacts
        await puppet.emit("certificate.issued", puppet.certificate("SN-after"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await puppet.drained()
        assert puppet.contacts == contacts
    assert _gateway(central, puppet.name)[:3] == ("ended", "stolen", "offline")
    await _eventually(lambda: _ocsp(central, puppet, body["serial"]) == "GOOD")  # shipped: lives on
    assert _ocsp(central, puppet, "cd" * 16) == "UNKNOWN"
    crl = x509.load_pem_x509_crl((central.broker_config.parent / "transport-crl.pem").read_bytes())
    transport = x509.load_der_x509_certificate(puppet.answer.transport_certificate)
    assert crl.get_revoked_certificate_by_serial_number(transport.serial_number) is not None
    assert (crl.next_update_utc - crl.last_update_utc).days == 3650
