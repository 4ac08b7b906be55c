"""Partitioned CRLs: which share of a CA's revocations each one lists (RFC 5280 §5.2.5).

Serial numbers are random, so their last bits share revocations out evenly: a certificate's
partition is its serial number modulo the number of partitions. Its distribution point names both,
so it says for itself where it is listed, whatever becomes of the number later: each number that was
ever in force is a partitioning of all the CA's certificates, and goes on being signed and served.
"""

import json
from dataclasses import dataclass, replace
from typing import Literal, Self

#: How many partitions a CA may have: powers of two, so that the last octet of a serial decides.
Count = Literal[1, 2, 4, 8, 16, 32, 64, 128, 256]
_OCTETS = 256
_SUFFIX = ".crl"


@dataclass(frozen=True, slots=True)
class Partition:
    """One of ``count`` shares, counted from 0; as text ``16-3``."""

    count: int
    index: int

    def __str__(self) -> str:
        """Write it as the end of its address, which is the name of its scope too."""
        return f"{self.count}-{self.index}"

    @classmethod
    def of(cls, serial: int, count: int) -> Self:
        """Find the one of ``count`` that a serial number belongs to."""
        return cls(count, serial % count)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what ``str`` wrote; None for anything else."""
        count, _, index = text.partition("-")
        if len(text) > len("256-255") or not (count.isdecimal() and index.isdecimal()):
            return None
        found = cls(int(count), int(index))
        fits = 1 < found.count <= _OCTETS and not _OCTETS % found.count
        return found if fits and found.index < found.count and str(found) == text else None

    def url(self, crl_url: str) -> str:
        """Give its address beside that of the CA's complete CRL."""
        return f"{crl_url.removesuffix(_SUFFIX)}-{self}{_SUFFIX}"

    @classmethod
    def of_url(cls, url: str) -> tuple[Self | None, str]:
        """Undo ``url``: give the partition, if there is one, and the complete CRL's address."""
        name = url.rpartition("/")[2].removesuffix(_SUFFIX)
        found = cls.parse(name.partition("-")[2])
        return found, url.removesuffix(f"-{found}{_SUFFIX}") + _SUFFIX if found else url

    @property
    def octets(self) -> range:
        """The last octets of the serial numbers that belong here."""
        return range(self.index, _OCTETS, self.count)


def kind_of(scope: str) -> str:
    """Name what a scope is one of: partitions are looked at together."""
    partition = Partition.parse(scope)
    return f"partitions-{partition.count}" if partition else scope


@dataclass(frozen=True, slots=True)
class Partitions:
    """How a CA's CRLs are partitioned: ``counts`` as they were used, the last one is in force.

    ``urls`` are all addresses of its complete CRL while it had partitions. Each partition's CRL
    names all of its own that follow from them: a relying party takes it only if one of them stands
    in the certificate (RFC 5280 §6.3.3), and the box may have had another name at its issue.
    """

    counts: tuple[int, ...] = ()
    urls: tuple[str, ...] = ()

    @classmethod
    def read(cls, document: str | None) -> Self:
        """Read the document that ``written`` made; None: there never were any."""
        if document is None:
            return cls()
        found = json.loads(document)
        return cls(tuple(found["counts"]), tuple(found["urls"]))

    def written(self) -> str | None:
        """Give it as a document."""
        return json.dumps({"counts": self.counts, "urls": self.urls}) if self.counts else None

    @property
    def in_force(self) -> int:
        """How many partitions new certificates are shared out to; 1: none."""
        return self.counts[-1] if self.counts else 1

    @property
    def every(self) -> tuple[Partition, ...]:
        """All partitions that must be signed, those of former numbers too."""
        return tuple(
            Partition(count, index) for count in self.counts if count > 1 for index in range(count)
        )

    def kept(self, count: int) -> Self:
        """Sign this number of partitions too, without any certificate naming them yet."""
        used = self.counts or (1,)
        return self if count in used else replace(self, counts=(count, *used))

    def adopted(self, count: int) -> Self:
        """Let new certificates name this number of partitions."""
        others = tuple(one for one in self.counts if one != count)
        return self if count == self.in_force else replace(self, counts=(*others, count))

    def at(self, urls: tuple[str, ...]) -> Self:
        """Be served here, too; nothing where there are no partitions."""
        new = tuple(url for url in urls if url not in self.urls)
        return replace(self, urls=self.urls + new) if self.counts and new else self


UNPARTITIONED = Partitions()
