"""One core for both products: the same requests become the same certificates, or are refused alike.

Central and a gateway are asked by their command lines what would become of a request. The gateway's
grant gives it more reasons to refuse, so only what the profile says is compared.
"""

import json
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Fleet

_NAMES = {
    "plain": ("--cn", "dev-1.example", "--device", "SN-1"),
    "no device": ("--cn", "dev-2.example"),
    "odd name": ("--cn", "a" * 65, "--device", "SN-3"),
    "nothing": (),
}
_ALT_NAMES = ["URI:urn:dev-1.example:app,DNS:dev-1.example,IP:192.0.2.1"]


def _explained(command: Callable[..., str], profile: str, *asked: str) -> dict[str, Any]:
    return json.loads(command("profile", "explain", profile, *asked, "--json"))


def _said(found: dict[str, Any]) -> tuple[Any, ...]:
    """Give what both sides must agree on; the moment differs, its length does not."""
    certificate = dict(found["certificate"] or {})
    begin, end = certificate.pop("not_before", None), certificate.pop("not_after", None)
    lasts = None
    if begin and end:
        lasts = datetime.fromisoformat(end) - datetime.fromisoformat(begin)
    verdicts = [
        (one["rule"], one["outcome"], one["value"])
        for one in found["verdicts"]
        if not one["rule"].startswith(("grant", "clock", "contact", "issuer"))
    ]
    return certificate, lasts, verdicts


def _csr(folder: Path, san: str) -> str:
    path = folder / "request.pem"
    key = folder / "key.pem"
    argv = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", str(key), "-subj", "/CN=dev-1.example/O=Maker",
            "-addext", f"subjectAltName={san}", "-out", str(path)]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    return str(path)


@pytest.mark.parametrize("profile", ["tls-server", "tls-client", "idevid", "opc-ua-ecc"])
def test_the_same_request_is_planned_alike_by_both(fleet: Fleet, tmp_path: Path, profile: str):
    [gateway] = fleet.gateways
    corpus = list(_NAMES.values())
    corpus += [("--csr", _csr(tmp_path, san)) for san in _ALT_NAMES]
    issued = 0
    for asked in corpus:
        central = _explained(fleet.central.command, profile, *asked)
        own = _explained(gateway.command, profile, *asked)
        granted = not (own["refusal"] or {"rule": ""})["rule"].startswith("grant")
        begin = 0 if granted else 2  # without a grant there is no plan
        assert _said(own)[begin:] == _said(central)[begin:], asked
        issued += own["outcome"] == "issue"
    assert issued or profile == "opc-ua-ecc"
