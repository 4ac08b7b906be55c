"""When CRLs are signed, what they list, and what their signing needs from storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shared.pki.crl import Entry
from shared.pki.partitions import Partition

_DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class CrlSchedule:
    """When CRLs are signed and how long they hold, in seconds.

    ``lifetime_s`` must outlast the longest time without a link that the grant allows, because a
    gateway whose box dies leaves its last CRL as the only one. ``delta_s`` and
    ``delta_lifetime_s`` are those of deltas, which a CA makes if its issuer has ``delta_urls``.
    ``keep_expired_s`` is how long an entry stays after the end of its certificate, but never less
    than one complete CRL that was issued after it (RFC 5280 §3.3).
    """

    interval_s: int = _DAY_S
    lifetime_s: int = 180 * _DAY_S
    retry_s: int = 5
    delta_s: int = 3600
    delta_lifetime_s: int = 7 * _DAY_S
    keep_expired_s: int = 32 * _DAY_S


class PartitionStanding(NamedTuple):
    """The newest CRL of a partition: thisUpdate in UTC µs, the last change that it surely shows."""

    this_update_us: int
    through: int


@dataclass(frozen=True, slots=True)
class CrlStanding:
    """What was signed last for a CA: thisUpdate in UTC µs.

    ``based``: a complete CRL is known that a delta can build on; ``behind``: the newest delta is
    older than the newest complete one; ``news``: a status changed that neither of them surely
    shows, because it did just now or a crash came between.
    """

    partitions: Mapping[Partition, PartitionStanding] = field(
        default_factory=dict[Partition, PartitionStanding]
    )
    complete_us: int | None = None
    delta_us: int | None = None
    based: bool = False
    behind: bool = False
    news: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """What a complete CRL or a partition lists, and what later deltas must know of it.

    ``through`` is the last change of status that it surely shows. Certificates that ended before
    ``cutoff_us`` (UTC µs) are left out, unless no complete CRL has listed them yet; the first end
    of those that it lists is ``oldest_end_us``.
    """

    entries: Sequence[Entry] = ()
    through: int = 0
    cutoff_us: int = 0
    oldest_end_us: int = 0


@dataclass(frozen=True, slots=True)
class DeltaListing:
    """What changed since the complete CRL with the number ``base``, surely up to ``through``."""

    base: int
    entries: Sequence[Entry]
    through: int


@dataclass(frozen=True, slots=True)
class SignedCrl:
    """A CRL to be served; times in UTC µs.

    ``listing`` is what it was made of; None of a delta, which surely shows what changed
    ``through`` there.

    ``partition`` says which share it lists; None: all.

    A complete CRL with deltas says ``bases_until_us``: those older than the newest one of before
    that moment are no base any more. None: there are no deltas (any more).
    """

    ca_id: str
    number: int
    der: bytes
    this_update_us: int
    next_update_us: int
    listing: Listing | None = Listing()
    bases_until_us: int | None = None
    partition: Partition | None = None
    through: int = 0


class CrlStore(Protocol):
    """What CRL signing needs from storage."""

    async def number(self, ca_id: str) -> int:
        """Tell the highest CRLNumber of the CA; 0: none."""
        ...

    async def standings(self) -> Mapping[str, CrlStanding]:
        """Tell what was signed last for each CA that is known."""
        ...

    async def standing(self, ca_id: str) -> CrlStanding:
        """Tell what was signed last for one CA."""
        ...

    async def changes(self, ca_id: str, after: int) -> Mapping[int, int]:
        """Give the serial numbers whose status changed, each with its last change."""
        ...

    async def listing(
        self, ca_id: str, keep_expired_us: int, only: Sequence[Partition] = ()
    ) -> Listing:
        """Give every serial of the CA that is revoked, voided or held and not long expired.

        With ``only`` give those of some partitions, at least.
        """
        ...

    async def delta_listing(self, ca_id: str, keep_expired_us: int) -> DeltaListing:
        """Give what changed since the oldest complete CRL that deltas build on.

        Raises ConflictError while there is none.
        """
        ...

    async def chain_heads(self) -> bytes | None:
        """CBOR of the outbox chain heads, anchored in the CRL; None where there is no outbox."""
        ...

    async def note_refusal(self, ca_id: str, why: str) -> None:
        """Emit ``crl.refused`` where there is an outbox."""
        ...

    async def save_crl(self, signed: SignedCrl) -> None:
        """Make the CRL the one that is served and emit ``crl.published``, in one commit."""
        ...
