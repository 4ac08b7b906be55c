"""Who may enroll, from central's command line to a gateway that is offline since its start."""

import base64
import csv
import io
import json
from pathlib import Path

from tests.support.est import certificates
from tests.support.fleet import Fleet
from tests.support.idevid import Manufacturer
from tests.support.processes import run, wait_until
from tests.support.products import rows

ENROLL = "/.well-known/est/onboarding/simpleenroll"


def curl(url: str, root: Path, csr: Path, *arguments: str) -> tuple[int, bytes]:
    body = csr.with_suffix(".answer")
    status = run([
        "curl", "-s", "--cacert", str(root), "-o", str(body), "-w", "%{http_code}",
        "-H", "Content-Type: application/pkcs10", "--data-binary", f"@{csr}", *arguments, url,
    ])  # fmt: skip
    return int(status), body.read_bytes()


def request(folder: Path, name: str, serial: str) -> Path:
    key, csr = folder / f"{name}.key", folder / f"{name}.csr"
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)])
    run(["openssl", "req", "-new", "-key", str(key), "-subj", f"/CN={name}/serialNumber={serial}",
         "-outform", "DER", "-out", str(csr)])  # fmt: skip
    return csr


def subject(answer: tuple[int, bytes]) -> str:
    status, body = answer
    assert status == 200, body
    [certificate] = certificates(base64.b64decode(body))
    return certificate.subject.rfc4514_string()


def test_a_line_without_a_link_admits_whom_central_named(fleet: Fleet, tmp_path: Path):
    central, gateway = fleet.central, fleet.gateways[0]
    root = tmp_path / "root.pem"
    root.write_text(central.ca_bundle)
    maker = Manufacturer(tmp_path)
    maker.write_ca(tmp_path / "maker.pem")
    machine, machine_key = maker.device("MX-0042")
    stranger, stranger_key = maker.device("ZZ-0001")

    central.command("manufacturer", "put", "maker", "--certificate", str(tmp_path / "maker.pem"))
    central.command(
        "alias", "put", "onboarding", "--profile", "tls-client", "--accept", "manufacturer",
        "--accept", "code", "--accept", "password", "--manufacturer", "maker",
        "--serial-pattern", "MX-####", "--known-devices-only",
    )  # fmt: skip
    password = central.command("requester", "add", "mes", "--alias", "onboarding").strip()
    (tmp_path / "devices.csv").write_text(
        "serial,product,line,colour\n"
        f"MX-0042,mixer,{gateway.name},red\nMX-0043,mixer,{gateway.name},\n"
        f"MX-0044,mixer,elsewhere,\nMX-0045,mixer,{gateway.name},blue\n"
    )
    assert "4 added" in central.command("device", "import", str(tmp_path / "devices.csv"))
    made = central.command("device", "codes", "MX-0043", "--gateway", gateway.name)
    [code] = [row["code"] for row in csv.DictReader(io.StringIO(made))]

    wait_until(lambda: _told(gateway.database), what="the gateway heard of all")
    gateway.process.stop()
    central.cut_link()
    gateway.start()
    url = f"{gateway.machine_url}{ENROLL}"

    idevid = ("--cert", str(machine), "--key", str(machine_key))
    first = curl(url, root, request(tmp_path, "m-42", "MX-0042"), *idevid)
    assert subject(first) == "2.5.4.5=MX-0042,CN=m-42"
    by_code = request(tmp_path, "m-43", "MX-0043")
    login = ("-u", f"MX-0043:{code}")
    [one, again] = [curl(url, root, by_code, *login) for _ in range(2)]
    assert subject(one) == "2.5.4.5=MX-0043,CN=m-43"
    assert one == again
    other = curl(url, root, request(tmp_path, "m-43b", "MX-0043"), *login)
    by_password = ("-u", f"mes:{password}")
    assert subject(curl(url, root, request(tmp_path, "m-45", "MX-0045"), *by_password))
    elsewhere = curl(url, root, request(tmp_path, "m-44", "MX-0044"), *by_password)
    not_its_own = curl(url, root, request(tmp_path, "m-x", "MX-0045"), *idevid)
    foreign = ("--cert", str(stranger), "--key", str(stranger_key))
    pattern = curl(url, root, request(tmp_path, "m-z", "ZZ-0001"), *foreign)
    assert [other[0], elsewhere[0], not_its_own[0], pattern[0]] == [403] * 4
    assert b"used by another request" in other[1]
    assert b"not known here" in elsewhere[1]
    listed = json.loads(gateway.command("alias", "list", "--json"))
    assert "onboarding" in [one["name"] for one in listed]
    shown = gateway.command("alias", "commands", "onboarding", "--device", "MX-0045")
    assert f"{gateway.machine_url}{ENROLL}" in shown
    central.restore_link()
    spent = "SELECT count(*) FROM one_time_code WHERE spent_by LIKE '%/%'"
    wait_until(lambda: rows(central.database, spent) == [(1,)], what="central knows what is spent")


def _told(database: Path) -> bool:
    rows = run(["python3", "-c", _COUNT, str(database)])
    return json.loads(rows) == [3, 1, 1]


_COUNT = """
import sqlite3, sys, json
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
one = lambda sql: db.execute(sql).fetchone()[0]
print(json.dumps([one("SELECT count(*) FROM device"), one("SELECT count(*) FROM one_time_code"),
                  one("SELECT count(*) FROM directive WHERE kind = 'access'")]))
"""
