"""Grants: what a gateway may do without asking central (design.md §4). Enforced offline."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Annotated, Self

from pydantic import Field, model_validator

from shared.kernel import limits
from shared.policy.conditions import Slug, Text
from shared.policy.document import Document

_DeviceId = Annotated[str, Field(min_length=1, max_length=limits.DEVICE_ID_CHARS_MAX)]
_Digits = Annotated[str, Field(pattern=r"^[0-9]{1,32}$")]
_Microseconds = Annotated[int, Field(ge=0)]


_TRAILING_DIGITS = re.compile(r"[0-9]{1,32}\Z")


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Give first and last of each run of consecutive numbers."""
    first = last = None
    for number in numbers:
        if first is None or last is None or number != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last


class SerialRange(Document):
    """Device serials ``prefix`` + digits, from ``first`` to ``last``, both of the same length."""

    prefix: Annotated[str, Field(max_length=limits.DEVICE_ID_CHARS_MAX)]
    first: _Digits
    last: _Digits

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if len(self.first) != len(self.last) or self.first > self.last:
            raise ValueError("first and last must have equal length and be in order")
        return self

    def __contains__(self, device_id: str) -> bool:
        """Tell if the device belongs to the range; digits of equal length compare as text."""
        digits = device_id[len(self.prefix) :]
        return (
            device_id.startswith(self.prefix)
            and len(digits) == len(self.first)
            and digits.isascii()
            and digits.isdigit()
            and self.first <= digits <= self.last
        )


class Devices(Document):
    """The devices that may be enrolled: listed ones, and those in ranges."""

    listed: Annotated[tuple[_DeviceId, ...], Field(max_length=2_000)] = ()
    ranges: Annotated[tuple[SerialRange, ...], Field(max_length=200)] = ()

    def __contains__(self, device_id: str) -> bool:
        """Tell if the device is named."""
        return device_id in self._listed or any(device_id in range_ for range_ in self.ranges)

    @classmethod
    def of(cls, serials: Iterable[str]) -> Self:
        """Name these devices, runs of consecutive numbers as ranges.

        So a hundred thousand serials of a few runs are a few lines; raises ValidationError when
        they are more singles or runs than a grant can hold.
        """
        numbered: dict[tuple[str, int], list[int]] = {}
        listed: list[str] = []
        for serial in dict.fromkeys(serials):
            digits = _TRAILING_DIGITS.search(serial)
            if digits is None:
                listed.append(serial)
            else:
                prefix = serial[: digits.start()]
                numbered.setdefault((prefix, len(digits[0])), []).append(int(digits[0]))
        ranges: list[SerialRange] = []
        for (prefix, width), numbers in sorted(numbered.items()):
            for first, last in _runs(sorted(numbers)):
                if first == last:
                    listed.append(f"{prefix}{first:0{width}}")
                else:
                    ends = {"first": f"{first:0{width}}", "last": f"{last:0{width}}"}
                    ranges.append(SerialRange(prefix=prefix, **ends))
        return cls(listed=tuple(listed), ranges=tuple(ranges))

    @cached_property
    def _listed(self) -> frozenset[str]:
        return frozenset(self.listed)


class Grant(Document):
    """What a gateway may issue on its own. Times are UTC µs.

    ``quota`` counts certificates over the grant's whole life (the ledger enforces it);
    ``last_contact_max_s`` None: it holds for the whole window; ``devices`` None: any device;
    ``stations`` None: any requester, else only these.
    """

    grant_id: Annotated[str, Field(min_length=1, max_length=64)]
    version: Annotated[int, Field(ge=1)]
    profiles: Annotated[tuple[Slug, ...], Field(min_length=1, max_length=100)]
    quota: Annotated[int, Field(ge=0)]
    not_before_us: _Microseconds
    not_after_us: _Microseconds
    last_contact_max_s: Annotated[int, Field(ge=1)] | None = None
    devices: Devices | None = None
    stations: Annotated[tuple[Text, ...], Field(min_length=1, max_length=200)] | None = None

    @model_validator(mode="after")
    def _window_in_order(self) -> Self:
        if self.not_before_us >= self.not_after_us:
            raise ValueError("not_before_us must lie before not_after_us")
        return self
