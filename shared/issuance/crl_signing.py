"""Signs complete CRLs, partitions and deltas of the CAs whose keys are here, one at a time."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from shared.issuance.crls import CrlSchedule, CrlStanding, CrlStore, Listing, SignedCrl
from shared.issuance.ports import IssuingKey, IssuingKeys, Priority, Purpose
from shared.kernel.clock import US_PER_SECOND, Clock, ClockQuality
from shared.kernel.errors import TmaError, UnavailableError
from shared.pki import crl
from shared.pki.crl import Entry
from shared.pki.partitions import Partition

#: A CRL that is so far ahead was signed by a clock that was wrong: relying parties refuse it.
_AHEAD_US = 3600 * US_PER_SECOND


class CrlSigning:
    """Makes, signs and saves CRLs. CRLNumber = max(last + 1, Unix µs): it never falls back.

    While the clock is in doubt a CRL is not dated before the last one: in the past it would be
    refused as outdated. Where it is not, one from the future is due at once.

    A CA whose issuer has ``delta_urls`` signs a delta at each change, and complete CRLs by the
    schedule; another one signs a complete CRL each time. Of a CA with partitions those are signed
    whose entries changed: before the complete CRL, so that nothing about a large one keeps their
    news back. They have no deltas: each is as small as one likes, and is signed at once.
    """

    def __init__(
        self, keys: IssuingKeys, crls: CrlStore, clock: Clock, schedule: CrlSchedule
    ) -> None:
        """Take the ports."""
        self._keys = keys
        self._crls = crls
        self._clock = clock
        self._schedule = schedule
        self._one = asyncio.Lock()  # two CRLs at once would take the same number

    async def sign(self, ca_id: str) -> bytes:
        """Sign and publish all CRLs of a CA now; gives the complete one.

        Raises TokenUnavailableError, OutcomeUnknownError, StorageFullError.
        """
        async with self._one:
            key = self._keys.of(ca_id)
            der = await self._complete(key, every=True)
            if _has_deltas(key):
                await self._delta(key)
            return der

    async def sign_news(self, ca_id: str) -> None:
        """Publish what changed: complete only, where there are no deltas or it is due anyway."""
        async with self._one:
            key = self._keys.of(ca_id)
            standing = await self._crls.standing(ca_id)
            if not _has_deltas(key):
                await self._complete(key)
                return
            try:
                if self._complete_is_due(standing, deltas=True):
                    await self._complete(key)
                else:
                    await self._changed_partitions(key)
            except UnavailableError:
                raise
            except TmaError:  # too large, perhaps: that must not keep the news back
                if standing.based:
                    await self._delta(key)
                raise
            await self._delta(key)

    async def due(self, ca_ids: Sequence[str], *, news: bool = True) -> list[str]:
        """Give the CAs of which time asks for a CRL or, with ``news``, what none shows yet.

        So a revocation is shown also when a crash came between its commit and its CRL.
        """
        standings, nothing = await self._crls.standings(), CrlStanding()
        found = ((ca_id, standings.get(ca_id, nothing)) for ca_id in ca_ids)
        return [ca_id for ca_id, one in found if (news and one.news) or self._is_due(ca_id, one)]

    def _is_due(self, ca_id: str, standing: CrlStanding) -> bool:
        try:
            key = self._keys.of(ca_id)
            deltas, partitions = _has_deltas(key), key.issuer.partitions.every
        except TmaError:  # as it is now, nothing can be signed: who tries it says why
            deltas, partitions = False, ()
        if self._complete_is_due(standing, deltas=deltas):
            return True
        if any(self._is_old(standing, one, self._schedule.interval_s) for one in partitions):
            return True
        return deltas and (
            standing.delta_us is None
            or standing.behind
            or self._passed(standing.delta_us, self._schedule.delta_s)
        )

    def _complete_is_due(self, standing: CrlStanding, *, deltas: bool) -> bool:
        last_us = standing.complete_us
        if last_us is None or self._passed(last_us, self._schedule.interval_s):
            return True
        # Else the complete CRL names deltas that nobody makes, or none can build on it.
        return not standing.based if deltas else standing.delta_us is not None

    def _passed(self, since_us: int, seconds: int) -> bool:
        now = self._clock.now()
        ahead = since_us - now.utc_us > _AHEAD_US and now.quality is not ClockQuality.UNKNOWN
        return ahead or now.utc_us - since_us >= seconds * US_PER_SECOND

    def _time_us(self, standing: CrlStanding) -> int:
        now = self._clock.now()
        if now.quality is not ClockQuality.UNKNOWN:
            return now.utc_us
        last = [one.this_update_us for one in standing.partitions.values()]
        return max(now.utc_us, standing.complete_us or 0, *last)

    def _is_old(self, standing: CrlStanding, partition: Partition, seconds: int) -> bool:
        last = standing.partitions.get(partition)
        return last is None or self._passed(last.this_update_us, seconds)

    async def _complete(self, key: IssuingKey, *, every: bool = False) -> bytes:
        listing = await self._crls.listing(key.issuer.ca_id, self._keep_us)
        # Looked up after the entries were read: what changed meanwhile is signed once more.
        wanted = key.issuer.partitions.every if every else await self._stale(key)
        await self._partitions(key, wanted, listing)
        return await self._sign(key, listing, None)

    async def _changed_partitions(self, key: IssuingKey) -> None:
        if wanted := await self._stale(key):
            listing = await self._crls.listing(key.issuer.ca_id, self._keep_us, wanted)
            await self._partitions(key, wanted, listing)

    async def _stale(self, key: IssuingKey) -> Sequence[Partition]:
        """Find the partitions that must be signed, or soon must: so they come due together."""
        every = key.issuer.partitions.every
        if not every:
            return ()
        standing = await self._crls.standing(key.issuer.ca_id)
        shown = {one: last.through for one, last in standing.partitions.items()}
        after = min((shown.get(one, 0) for one in every), default=0)
        changes = await self._crls.changes(key.issuer.ca_id, after)
        changed = {
            partition
            for count in {one.count for one in every}
            for serial, change in changes.items()
            if change > shown.get(partition := Partition.of(serial, count), 0)
        }
        soon_s = self._schedule.interval_s // 2
        return [one for one in every if one in changed or self._is_old(standing, one, soon_s)]

    async def _partitions(
        self, key: IssuingKey, wanted: Sequence[Partition], listing: Listing
    ) -> None:
        entries: dict[Partition, list[Entry]] = defaultdict(list)
        for count in {one.count for one in wanted}:
            shares = [entries[Partition(count, index)] for index in range(count)]
            for entry in listing.entries:
                shares[entry[0] % count].append(entry)
        for one in wanted:
            share = replace(listing, entries=entries[one])
            await self._sign(key, share, None, one)

    async def _delta(self, key: IssuingKey) -> None:
        """Sign a delta; its number is above that of each complete CRL (RFC 5280 §5.2.4)."""
        found = await self._crls.delta_listing(key.issuer.ca_id, self._keep_us)
        await self._sign(key, Listing(found.entries, found.through), found.base)

    @property
    def _keep_us(self) -> int:
        return self._schedule.keep_expired_s * US_PER_SECOND

    async def _sign(
        self,
        key: IssuingKey,
        listing: Listing,
        base: int | None,
        partition: Partition | None = None,
    ) -> bytes:
        ca_id, schedule = key.issuer.ca_id, self._schedule
        now_us = self._time_us(await self._crls.standing(ca_id))
        number = max(await self._crls.number(ca_id) + 1, now_us)
        lifetime_s = schedule.lifetime_s if base is None else schedule.delta_lifetime_s
        next_update_us = now_us + lifetime_s * US_PER_SECOND
        heads = await self._crls.chain_heads()
        tbs = await asyncio.to_thread(  # the loop has other work than 100,000 entries
            lambda: crl.unsigned(
                key.issuer,
                number,
                now_us,
                next_update_us,
                listing.entries,
                heads,
                base=base,
                partition=partition,
            )
        )
        signature = await key.sign(
            tbs, Purpose.CRL, priority=Priority.STATUS, reference=f"crl {number}"
        )
        der = await asyncio.to_thread(crl.assemble, tbs, signature, key.issuer)
        # Who took the complete CRL just before the next one came goes on with deltas to it.
        overlap_us = schedule.interval_s * US_PER_SECOND
        signed = SignedCrl(
            ca_id,
            number,
            der,
            now_us,
            next_update_us,
            None if base is not None else listing,
            now_us - overlap_us if _has_deltas(key) else None,
            partition,
            listing.through,
        )
        await self._crls.save_crl(signed)
        return der


def _has_deltas(key: IssuingKey) -> bool:
    return bool(key.issuer.delta_urls)
