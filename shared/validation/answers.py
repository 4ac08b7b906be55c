"""Pre-signed OCSP answers: served from memory, forgotten before what they say can change.

A request of one certificate without a nonce has one answer for everybody (RFC 5019 §2.2), so the
request itself is the key. An answer is kept only if no commit touched the certificate between the
read of its status and now: the writer tells of each change before its commit and after it
(``shared.store.transaction.StatusWatch``). So what is kept is what the database says, and is
signed anew without reading it.
"""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import format_datetime
from functools import cached_property, lru_cache

from multidict import CIMultiDict

from shared.kernel import limits
from shared.kernel.clock import US_PER_SECOND, Clock, datetime_of
from shared.validation.ports import Responder

#: How long an OCSP answer holds. Short, because a revocation shall be seen at once; relying
#: parties keep an answer until then.
HOLDS_US = 10 * 60 * US_PER_SECOND
#: Answers are sent during the first half of their life.
_FRESH_US = HOLDS_US // 2
#: What an answer costs beside its bytes: entry, dictionaries, headers.
_OVERHEAD_BYTES = 1_500
#: A certificate may be asked for in a few ways (hash, NULL parameters); more are not kept.
_REQUESTS_OF_ONE_MAX = 4
_RENEW_CHECK_S = 5.0
_RENEW_AT_ONCE = 50
_TYPE = "application/ocsp-response"
_CACHING = "public, max-age=60, no-transform, must-revalidate"
NOT_STORED = CIMultiDict({"Content-Type": _TYPE, "Cache-Control": "no-store"})

#: (CA id, serial)
Certificate = tuple[str, str]


@dataclass(frozen=True)
class Answer:
    """A signed answer; ``signer`` is the responder who signed."""

    ca_id: str
    der: bytes
    signer: Responder
    made_at_us: int

    @cached_property
    def headers(self) -> CIMultiDict[str]:
        """The header fields of its GET, which others may store (RFC 5019 §6.2)."""
        return CIMultiDict(
            {
                "Content-Type": _TYPE,
                "Cache-Control": _CACHING,
                "ETag": f'"{hashlib.sha256(self.der).hexdigest()[:32]}"',
                "Last-Modified": _http_time(self.made_at_us // US_PER_SECOND),
                "Expires": _http_time((self.made_at_us + HOLDS_US) // US_PER_SECOND),
            }
        )

    @cached_property
    def got(self) -> bytes:
        """Header fields and body of its GET as they are sent."""
        return encode(self.headers, self.der)

    @cached_property
    def posted(self) -> bytes:
        """Header fields and body of its POST as they are sent."""
        return encode(NOT_STORED, self.der)


def encode(headers: Mapping[str, str], body: bytes) -> bytes:
    """Encode header fields and body for the short way."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{fields}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


@lru_cache(maxsize=16)
def _http_time(utc_s: int) -> str:
    return format_datetime(datetime_of(utc_s * US_PER_SECOND), usegmt=True)


@dataclass(slots=True)
class _Kept:
    certificate: Certificate
    answer: Answer
    sign: Callable[[], Answer]
    asked: bool = False  # since it was signed


class Fill:
    """Permission to keep an answer; it is lost when the certificate's status changes."""

    __slots__ = ("certificate", "valid")

    def __init__(self, certificate: Certificate) -> None:
        """Begin valid."""
        self.certificate = certificate
        self.valid = True


class Answers:
    """The answers that are kept, least recently asked first; implements ``StatusWatch``."""

    def __init__(self, clock: Clock, bytes_max: int = limits.OCSP_CACHE_BYTES_MAX) -> None:
        """Keep so many bytes at most; give it to the ``watch`` of the database's writer."""
        self._clock = clock
        self._bytes_max = bytes_max
        self._bytes = 0
        self._lock = threading.Lock()  # the writer's thread forgets, the loop does the rest
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._requests: dict[Certificate, list[bytes]] = {}
        self._changing: dict[Certificate, int] = {}
        self._fills: dict[Certificate, set[Fill]] = {}

    def __len__(self) -> int:
        """Count what is kept."""
        return len(self._kept)

    def find(self, request: bytes, now_us: int) -> Answer | None:
        """Give the answer to these request bytes, if one is kept and fresh."""
        with self._lock:
            kept = self._kept.get(request)
            if kept is None:
                return None
            if not 0 <= now_us - kept.answer.made_at_us < _FRESH_US:
                self._forget(request)
                return None
            self._kept.move_to_end(request)
            kept.asked = True
            return kept.answer

    @contextmanager
    def filling(self, certificate: Certificate) -> Generator[Fill]:
        """Open this around reading the status and ``keep``."""
        fill = Fill(certificate)
        with self._lock:
            fill.valid = certificate not in self._changing
            self._fills.setdefault(certificate, set()).add(fill)
        try:
            yield fill
        finally:
            with self._lock:
                fills = self._fills[certificate]
                fills.discard(fill)
                if not fills:
                    del self._fills[certificate]

    def keep(self, fill: Fill, request: bytes, answer: Answer, sign: Callable[[], Answer]) -> None:
        """Keep an answer whose status was read under this permission, if it still holds.

        ``sign`` says the same anew.
        """
        with self._lock:
            if request in self._kept:  # by another signer, or by who asked at the same time
                self._forget(request)
            requests = self._requests.get(fill.certificate, [])
            if not fill.valid or len(requests) >= _REQUESTS_OF_ONE_MAX:
                return
            self._requests[fill.certificate] = [*requests, request]
            self._kept[request] = _Kept(fill.certificate, answer, sign)
            self._bytes += _size(request, answer)
            while self._bytes > self._bytes_max:
                self._forget(next(iter(self._kept)))

    def before_commit(self, changed: Sequence[Certificate]) -> None:
        """Forget what is about to change, and let nobody keep what he read before."""
        with self._lock:
            for certificate in changed:
                self._changing[certificate] = self._changing.get(certificate, 0) + 1
                for fill in self._fills.get(certificate, ()):
                    fill.valid = False
                for request in tuple(self._requests.get(certificate, ())):
                    self._forget(request)

    def after_commit(self, changed: Sequence[Certificate]) -> None:
        """Let answers be kept again; who read meanwhile has lost his permission."""
        with self._lock:
            for certificate in changed:
                if self._changing[certificate] == 1:
                    del self._changing[certificate]
                else:
                    self._changing[certificate] -= 1

    async def run(self) -> None:
        """Sign anew what was asked for, before it is too old; drop the rest. Until cancelled."""
        while True:
            await asyncio.sleep(_RENEW_CHECK_S)
            await self.renew()

    async def renew(self) -> int:
        """Do that once; gives how many were signed. The loop gets its turn in between."""
        now_us = self._clock.now().utc_us
        due_us = now_us - _FRESH_US + int(3 * _RENEW_CHECK_S * US_PER_SECOND)
        with self._lock:
            due = [key for key, kept in self._kept.items() if kept.answer.made_at_us <= due_us]
        signed = 0
        for start in range(0, len(due), _RENEW_AT_ONCE):
            signed += sum(map(self._renewed, due[start : start + _RENEW_AT_ONCE]))
            await asyncio.sleep(0)
        return signed

    def _renewed(self, request: bytes) -> bool:
        kept = self._kept.get(request)
        if kept is None:
            return False
        answer = kept.sign() if kept.asked else None
        with self._lock:
            if self._kept.get(request) is not kept:  # its status changed meanwhile
                return False
            if answer is None:
                self._forget(request)
                return False
            kept.answer, kept.asked = answer, False
        return True

    def _forget(self, request: bytes) -> None:
        kept = self._kept.pop(request)
        self._bytes -= _size(request, kept.answer)
        requests = self._requests[kept.certificate]
        requests.remove(request)
        if not requests:
            del self._requests[kept.certificate]


def _size(request: bytes, answer: Answer) -> int:
    return len(request) + 3 * len(answer.der) + _OVERHEAD_BYTES
