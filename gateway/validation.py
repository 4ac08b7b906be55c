"""What this gateway tells relying parties about its CAs; a port of ``shared.validation``."""

from collections.abc import Sequence

from gateway.issuing import Authorities
from gateway.responder import OwnResponder, Responders
from gateway.snapshot import HistoryState
from shared.kernel.errors import UnavailableError
from shared.pki.ocsp import State, Status
from shared.pki.partitions import Partition
from shared.store.reads import AuthorityRow, CrlRow, Reads


class GatewayStatus:
    """CRLs and CA certificates of all CAs known here, OCSP for this gateway's own."""

    def __init__(
        self, reads: Reads, authorities: Authorities, responders: Responders, never_issued: State
    ) -> None:
        """Take the look-ups, who signs, and what serials count as that were never issued here."""
        self._reads = reads
        self._authorities = authorities
        self._responders = responders
        self._never_issued = never_issued

    async def authorities(self) -> Sequence[AuthorityRow]:
        """Give all CAs whose certificates are served here."""
        return await self._reads.authorities()

    async def ca_certificate(self, ca_id: str) -> bytes | None:
        """Give the DER certificate of one CA."""
        return await self._reads.ca_certificate(ca_id)

    async def current_crl(self, ca_id: str) -> CrlRow | None:
        """Give the newest complete CRL of a CA."""
        return await self._reads.current_crl(ca_id)

    async def current_partition(self, ca_id: str, partition: Partition) -> CrlRow | None:
        """Give the newest CRL of a partition, if the CA has or had it."""
        return await self._reads.current_partition(ca_id, partition)

    async def current_delta(self, ca_id: str) -> CrlRow | None:
        """Give the newest delta CRL of a CA, if it has deltas."""
        return await self._reads.current_delta(ca_id)

    async def ocsp_status(self, ca_id: str, serial: str) -> Status:
        """Give the status of a certificate: what this gateway issued, it knows."""
        return await self._reads.ocsp_status(ca_id, serial, self._never_issued)

    async def responder(self, ca_id: str) -> OwnResponder | None:
        """Give the responder; raises UnavailableError where no answer can be given now."""
        self._require_memory()
        return self._responders.responder(ca_id)

    def responder_now(self, ca_id: str) -> OwnResponder | None:
        """Give the responder, None also where no answer can be given now."""
        try:
            self._require_memory()
            return self._responders.responder(ca_id)
        except UnavailableError:
            return None

    def ocsp_status_now(self, ca_id: str, serial: str) -> Status | None:
        """Give the status, None while that could make others wait."""
        return self._reads.ocsp_status_now(ca_id, serial, self._never_issued)

    def _require_memory(self) -> None:
        if self._authorities.history is not HistoryState.CONTINUOUS:
            raise UnavailableError("This database may have forgotten what it issued.")
