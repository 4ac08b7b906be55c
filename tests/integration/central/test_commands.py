"""``tma-central`` as an administrator types it."""

import json
import stat
import subprocess
from pathlib import Path

import httpx
import pytest

from shared.web.terminal import ExitStatus
from tests.support.processes import program, run


def _command(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("tma-central"), "-c", str(config), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "central.toml"
    path.write_text(f'state = "{tmp_path}/state"\n', "utf-8")
    return path


def test_init_is_one_step_and_harmless_again(config: Path):
    first = json.loads(_command(config, "init", "--json").stdout)
    again = json.loads(_command(config, "init", "--json").stdout)
    assert len(first["password"]) >= 20
    assert first["recovery_secret"].count("-") == 7
    assert again == first | {"password": None, "recovery_secret": None}
    state = config.parent / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "box.key").stat().st_mode) == 0o600
    for path in state.rglob("*"):
        assert first["password"].encode() not in (path.read_bytes() if path.is_file() else b"")
    text = run(["openssl", "x509", "-in", first["root_path"], "-noout", "-text"])
    assert "CA:TRUE, pathlen:2" in text


def test_backup_of_the_database_is_worthless_on_another_box(config: Path):
    _command(config, "init")
    (config.parent / "state" / "box.key").unlink()
    outcome = _command(config, "run")
    assert outcome.returncode == ExitStatus.FAILED
    assert "Traceback" not in outcome.stderr


def test_broker_directory_is_private_and_complete(config: Path, tmp_path: Path):
    _command(config, "init")
    directory = tmp_path / "broker"
    outcome = _command(config, "broker", "config", str(directory))
    assert f"mosquitto -c {directory}/mosquitto.conf" in outcome.stdout
    assert stat.S_IMODE((directory / "server.key").stat().st_mode) == 0o600
    root, crl, server = (
        str(directory / f"{name}.pem") for name in ("transport-root", "transport-crl", "server")
    )
    run(["openssl", "verify", "-CAfile", root, "-crl_check", "-CRLfile", crl, server])


def test_wrong_settings_are_named(config: Path):
    config.write_text("[web]\nprot = 1\nport = 99999\n[grant]\noffline_days = 3000\n", "utf-8")
    outcome = _command(config, "run")
    assert outcome.returncode == ExitStatus.USAGE
    assert "web.prot" in outcome.stderr
    assert "web.port" in outcome.stderr
    assert "docs/central.md" in outcome.stderr


def test_before_init_and_without_server_it_says_what_to_do(config: Path):
    before = _command(config, "broker", "config", str(config.parent / "broker"))
    assert before.returncode == ExitStatus.FAILED
    assert "tma-central init" in before.stderr
    assert _command(config, "gateway", "list").returncode == ExitStatus.NOT_RUNNING


def test_help_teaches():
    for arguments in ((), ("gateway", "invite"), ("station", "add"), ("broker", "config")):
        assert "Usage" in run(["tma-central", *arguments, "--help"])
    assert "Exit status" in run(["tma-central", "--help"])


def test_second_server_on_the_same_state_is_refused(central):
    outcome = _command(central.config, "run")
    assert outcome.returncode == ExitStatus.FAILED
    assert "Another process already holds" in outcome.stderr


def test_station_lives_and_ends(central, api):
    token = central.command("station", "add", "line-3", "--profile", "tls-client").strip()
    own = {"Authorization": f"Bearer {token}"}
    assert api.get("/api/v2.0/certificates", headers=own).status_code == 200
    [listed] = [row for row in json.loads(central.command("station", "list", "--json"))
                if row["name"] == "line-3"]  # fmt: skip
    assert (listed["state"], listed["profiles"]) == ("active", "tls-client")
    central.command("station", "revoke", "line-3")
    assert api.get("/api/v2.0/certificates", headers=own).status_code == 401
    unknown = _command(central.config, "station", "add", "x", "--profile", "no-such-profile")
    assert unknown.returncode == ExitStatus.FAILED
    assert "There is no profile no-such-profile" in unknown.stderr.replace("\n", " ")


def test_central_issues_and_revokes_by_itself(central, api):
    wish = {"data": {"type": "cert_server", "attributes": {"cn": "Certificate", "cert_days": 3650}}}
    issued = api.post("/api/v2.0/cert_server", json=wish)
    if issued.status_code == httpx.codes.NOT_FOUND:
        wish["data"]["type"] = "cert_tls-server"
        issued = api.post("/api/v2.0/cert_tls-server", json=wish)
    assert issued.status_code == 201, issued.text
    serial = issued.json()["data"]["attributes"]["serial"]
    said = central.command("revoke", ":".join(serial[at : at + 2] for at in range(0, 32, 2)))
    assert "is now: revoked" in said
    assert _command(central.config, "revoke", "12ab").returncode == ExitStatus.FAILED


def test_many_are_revoked_by_one_command(central, api):
    wishes = [
        {"type": "certificate", "attributes": {"profile": "tls-server", "cn": f"lot-{number}",
                                               "metadata": {"lot": "L-1"}}}
        for number in range(30)
    ]  # fmt: skip
    answer = api.post("/api/v2.0/certificates/batch", json={"data": wishes})
    assert {one["status"] for one in answer.json()["data"]} == {201}, answer.text
    criteria = ("--profile", "tls-server", "--metadata", "lot=L-1", "--issued-from", "2001-01-01")
    [estimate] = json.loads(central.command("revoke-many", *criteria, "--dry-run", "--json"))
    assert estimate["certificates"] == 30
    assert "30 certificates are revoked" in central.command("revoke-many", *criteria, "--yes")
    [again] = json.loads("[" + central.command("revoke-many", *criteria, "--yes", "--json") + "]")
    assert (again["state"], again["revoked"]) == ("done", 0)
    refused = _command(central.config, "revoke-many", "--yes")
    assert refused.returncode == ExitStatus.USAGE
    assert "at least one criterion" in refused.stderr
