"""CRL: CPU to build, sign and read back lists, beside cryptography's builder in the same run.

python -m tests.bench.crl [ENTRIES]
"""

import sys
import time
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from shared.kernel.clock import datetime_of
from shared.pki import crl, signed
from shared.pki.crl import CrlEntry
from tests.bench._load import record
from tests.support.pki_hierarchy import DAY_US, NOW_US, Hierarchy

_REASONS = ("unspecified", "superseded", "key_compromise", "cessation_of_operation")


def _entries(count: int) -> list[CrlEntry]:
    return [
        CrlEntry((1 << 127) + n * 7919, NOW_US - n * 1_000_000, _REASONS[n % 4])
        for n in range(count)
    ]


def _cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Measure, print, record."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    gateway, entries = Hierarchy().gateway, _entries(count)

    def ours() -> None:
        tbs = crl.unsigned(gateway.issuer, 1, NOW_US, NOW_US + DAY_US, entries, None)
        crl.assemble(tbs, gateway.sign(tbs), gateway.issuer)

    def reference() -> None:
        builder = x509.CertificateRevocationListBuilder(
            gateway.issuer.name, datetime_of(NOW_US), datetime_of(NOW_US + DAY_US),
            revoked_certificates=list(map(revoked, entries)),
        )  # fmt: skip
        builder.sign(signed.THROWAWAY_KEY, SHA256())

    figures = [(_cpu_s(ours), _cpu_s(reference)) for _ in range(3)]
    value, beside = (min(column) for column in zip(*figures, strict=True))
    print(f"{count} entries: {value:.2f} CPU s, {value / beside:.2f} x cryptography's builder")
    record(f"crl-{count}", value, "CPU s", reference="cryptography's builder",
           reference_value=beside)  # fmt: skip


def revoked(entry: CrlEntry) -> x509.RevokedCertificate:
    """Give the entry as cryptography's builder takes it."""
    extensions: list[x509.Extension[x509.ExtensionType]] = []
    if entry.reason != "unspecified":
        reason = x509.CRLReason(crl.reason_flag(entry.reason))
        extensions.append(x509.Extension(reason.oid, critical=False, value=reason))
    moment = datetime_of(entry.revoked_at_us)
    return x509.RevokedCertificateBuilder(entry.serial, moment, extensions).build()


if __name__ == "__main__":
    main()
