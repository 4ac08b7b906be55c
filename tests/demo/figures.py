"""The figures of a demo: every one is the answer to a question, none is what the demo remembers."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.support.openssl import Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """What ``report.json`` holds. Counts are certificates of devices."""

    devices: int
    issued_online: int
    issued_offline: int
    applied: int
    lost: int
    applied_twice: int
    verified_by_openssl: int
    revoked: int
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether nothing is missing, doubled or unverifiable."""
        return (
            self.issued_online + self.issued_offline == self.devices
            and self.applied == self.verified_by_openssl == self.devices
            and self.lost == self.applied_twice == 0
            and self.revoked == REVOCATIONS
        )

    def table(self) -> Table:
        """Show the figures to a person."""
        table = Table("figure", "value", "asked of", title="What the demo found")
        rows = {
            "devices that asked": (self.devices, "the line"),
            "issued with the link up": (self.issued_online, "gateway, REST"),
            "issued with the link cut": (self.issued_offline, "gateway, REST"),
            "applied at central": (self.applied, "central, REST"),
            "lost": (self.lost, "line and gateway against central"),
            "applied twice": (self.applied_twice, "central, REST and counters"),
            "verified": (self.verified_by_openssl, "OpenSSL: chain, CRLs, OCSP"),
            "revoked": (self.revoked, "OpenSSL: CRLs, OCSP"),
            "seconds": (f"{self.seconds:.1f}", "clock"),
        }
        for name, (value, source) in rows.items():
            table.add_row(name, str(value), source)
        return table


#: One at the gateway while the link is cut, one at central.
REVOCATIONS = 2


@dataclass(frozen=True, slots=True)
class Ledgers:
    """What both sides say at one moment about certificates that stations enrolled."""

    gateway: list[dict[str, Any]]
    central: list[dict[str, Any]]
    counted_too_often: int  # by how much central's counter exceeds its certificates


def count(
    received: Collection[bytes],
    ledgers: Ledgers,
    verdicts: Collection[Verdict],
    *,
    issued_online: int,
    seconds: float,
) -> Report:
    """Compare what the line holds with what both sides and OpenSSL say."""
    at_central = [row["sha256"] for row in ledgers.central]
    somewhere = {hashlib.sha256(der).hexdigest() for der in received}
    somewhere |= {row["sha256"] for row in ledgers.gateway}
    doubled = len(at_central) - len(set(at_central))
    return Report(
        devices=len(received),
        issued_online=issued_online,
        issued_offline=len(ledgers.gateway) - issued_online,
        applied=len(set(at_central)),
        lost=len(somewhere - set(at_central)),
        applied_twice=doubled + ledgers.counted_too_often,
        verified_by_openssl=sum(not verdict.problems for verdict in verdicts),
        revoked=sum(verdict.revoked for verdict in verdicts if not verdict.problems),
        seconds=round(seconds, 1),
    )


def write(folder: Path, name: str, document: object) -> None:
    """Write one JSON file of this demo, readable by its user only: it may hold logins."""
    if isinstance(document, Report):
        document = asdict(document)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder / name, folder.parent / name):  # the second is that of the newest demo
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(f"{json.dumps(document, indent=2)}\n", "utf-8")
