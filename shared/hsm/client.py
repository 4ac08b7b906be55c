"""The client door of ``tma-hsmd``: one connection, many requests under way, calls coalesced."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from shared.hsm import frames
from shared.issuance.ports import Priority, Purpose
from shared.kernel.errors import (
    BadRequestError,
    ForbiddenError,
    OutcomeUnknownError,
    TmaError,
    TokenUnavailableError,
)
from shared.pki.certificates import Issuer
from shared.pki.keys import KeyType
from shared.pki.plan import NameAttribute
from shared.system.processes import address_of

#: How much longer than its deadline an answer is waited for: the key may just be at work.
_GRACE_S = 5.0
_GENERATION_S = 600.0
_NO_DAEMON = "The key service (tma-hsmd) does not answer on its socket."
_START_IT = "Start tma-hsmd; it keeps looking for its token by itself."


@dataclass(frozen=True, slots=True)
class TokenState:
    """How the token is, for the technician's page.

    ``state``: absent, settling, login, verify, ready, degraded, pin_blocked, foreign. ``sentence``
    says it in words. ``keys`` maps label to DER SubjectPublicKeyInfo. ``latency_us`` is the moving
    average of one signature, ``queued`` the number of documents that wait.
    """

    state: str
    sentence: str
    token: str
    serial: str
    keys: dict[str, bytes]
    latency_us: int
    queued: int
    signed: int

    @property
    def ready(self) -> bool:
        """Whether documents are signed now."""
        return self.state == "ready"

    @property
    def accepts_keys(self) -> bool:
        """Whether keys can be made now: the token is open, with or without keys on it."""
        return self.state in {"ready", "verify"}

    @property
    def per_second(self) -> float:
        """Signatures per second that the token can do."""
        return 1e6 / max(self.latency_us, 1)


@dataclass(frozen=True, slots=True)
class Proof:
    """A signed statement that the token holds a key: never a document, see ``PROOF_PREFIX``."""

    statement: bytes
    signature: bytes


@dataclass(slots=True)
class _Waiting:
    """One document that waits to be put into a frame."""

    document: bytes
    purpose: Purpose
    reference: str
    answer: "asyncio.Future[bytes]"


@dataclass(frozen=True, slots=True)
class _Lane:
    """Documents that may share a frame."""

    key: str
    priority: Priority
    deadline_ms: int


class HsmClient:
    """Talks to one daemon; connects when needed and again after the connection was lost.

    Errors of all calls: TokenUnavailableError (the key was surely not used), OutcomeUnknownError
    (it may have been: the connection died, or the token did, after the request was sent), and what
    the daemon refuses with (ForbiddenError, BadRequestError, NotFoundError, ConflictError).
    """

    def __init__(self, socket_path: Path, *, deadline_s: float = 10.0) -> None:
        """Take the daemon's socket and how many seconds a signature may take by default."""
        self._path = socket_path
        self._deadline_s = deadline_s
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = count(1)
        self._waiting: dict[_Lane, list[_Waiting]] = {}
        self._flushes: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close the connection; calls under way end with OutcomeUnknownError."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading

    async def sign(
        self,
        document: bytes,
        purpose: Purpose,
        *,
        key: str,
        priority: Priority,
        reference: str,
        deadline_s: float | None = None,
    ) -> bytes:
        """Sign a DER TBS with the key of this label and the algorithm that it names.

        Gives the signature value as documents hold it.

        Calls made in one turn of the event loop travel in one frame.
        """
        if not 0 < len(document) <= frames.DOCUMENT_BYTES_MAX:
            raise ForbiddenError(
                f"A document to sign has at most {frames.DOCUMENT_BYTES_MAX:,} bytes; "
                f"this one has {len(document):,}."
            )
        deadline_ms = round((deadline_s or self._deadline_s) * 1_000)
        lane = _Lane(key, priority, min(max(deadline_ms, 1), frames.DEADLINE_MS_MAX))
        answer = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(lane, [])
        waiting.append(_Waiting(document, purpose, reference, answer))
        if len(waiting) == 1:
            flush = asyncio.get_running_loop().create_task(self._flush(lane))
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)
        return await answer

    async def ready(self) -> bool:
        """Tell whether documents are signed now; False also while the daemon is not running."""
        try:
            return (await self.state()).ready
        except TmaError:
            return False

    async def state(self) -> TokenState:
        """Ask how token and queue are."""
        return TokenState(**await self._ask("state"))

    async def generate(self, key: str, kind: KeyType = KeyType.EC_P256) -> bytes:
        """Make a key with this label; gives its DER SubjectPublicKeyInfo.

        Raises ConflictError when the label is taken. RSA keys take seconds to minutes on a token.
        """
        return await self._ask("generate", within_s=_GENERATION_S, key=key, kind=kind.value)

    async def birth_csr(self, key: str, subject: tuple[NameAttribute, ...]) -> bytes:
        """Let the daemon make and sign a PKCS#10 request for its key; gives DER."""
        pairs = [[attribute.oid, attribute.value] for attribute in subject]
        return await self._ask("birth_csr", key=key, subject=pairs)

    async def prove(self, key: str, context: bytes) -> Proof:
        """Prove possession of the key for this context (at most 256 bytes)."""
        return Proof(**await self._ask("prove", key=key, context=context))

    async def adopt(self, key: str, certificate: bytes) -> None:
        """Hand in the DER CA certificate of the key: only then it signs documents.

        Raises ForbiddenError when it is no CA's, not for this key, or widens an earlier one.
        """
        await self._ask("adopt", key=key, certificate=certificate)

    async def pin_responder(self, key: str, spki: bytes) -> None:
        """Pin central's responder key (DER SubjectPublicKeyInfo); ConflictError if another is."""
        await self._ask("pin_responder", key=key, spki=spki)

    async def _flush(self, lane: _Lane) -> None:
        """Send what has gathered for one lane, in frames of bounded size."""
        batches = _batches(self._waiting.pop(lane))
        await asyncio.gather(*(self._send(lane, batch) for batch in batches))

    async def _send(self, lane: _Lane, batch: list[_Waiting]) -> None:
        documents = [
            {
                "tbs": item.document,
                "purpose": item.purpose.value,
                "reference": item.reference[: frames.REFERENCE_CHARS_MAX],
            }
            for item in batch
        ]
        try:
            results = await self._ask(
                "sign",
                within_s=lane.deadline_ms / 1_000 + _GRACE_S,
                key=lane.key,
                priority=lane.priority.value,
                deadline_ms=lane.deadline_ms,
                documents=documents,
            )
        except TmaError as error:
            results = [{"error": frames.error_map(error)}] * len(batch)
        _settle(batch, results)

    async def _ask(self, do: str, *, within_s: float | None = None, **fields: Any) -> Any:
        number = next(self._ids)
        data = frames.pack({"id": number, "do": do, **fields})
        writer = await self._connected()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            writer.write(data)
            async with asyncio.timeout(within_s or self._deadline_s + _GRACE_S):
                return await answer
        except TimeoutError as error:
            raise OutcomeUnknownError("The key service did not answer in time.") from error
        finally:
            self._answers.pop(number, None)

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                try:
                    with address_of(self._path) as address:
                        reader, self._writer = await asyncio.open_unix_connection(address)
                except OSError as error:
                    raise TokenUnavailableError(
                        _NO_DAEMON, remedy=_START_IT, retry_after_s=2
                    ) from error
                self._reading = asyncio.create_task(self._read(reader, self._writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand each answer to who waits for it until the connection ends."""
        try:
            while (body := await frames.read(reader)) is not None:
                message = frames.open_map(body)
                answer = self._answers.get(message.get("id", 0))
                if answer is None or answer.done():
                    continue
                if "error" in message:
                    answer.set_exception(frames.error_of(message["error"]))
                else:
                    answer.set_result(message.get("ok"))
        except (OSError, BadRequestError):
            pass  # the same as the end of the connection
        finally:
            self._writer = None
            writer.close()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(
                        OutcomeUnknownError(
                            "The key service went away before it answered.", retry_after_s=2
                        )
                    )


class RemoteIssuingKey:
    """An issuing CA whose key is behind ``tma-hsmd``; implements ``ports.IssuingKey``."""

    immediate = False

    def __init__(self, issuer: Issuer, client: HsmClient, key_label: str) -> None:
        """Take the CA, the door to its daemon and the label of its key."""
        self.issuer = issuer
        self._client = client
        self._key = key_label

    async def sign(
        self, document: bytes, purpose: Purpose, *, priority: Priority, reference: str
    ) -> bytes:
        """Sign a DER TBS; see ``ports.IssuingKey``."""
        return await self._client.sign(
            document, purpose, key=self._key, priority=priority, reference=reference
        )


def _batches(waiting: list[_Waiting]) -> list[list[_Waiting]]:
    """Cut into frames by number and by size, half of the limit being left for the rest."""
    batches: list[list[_Waiting]] = [[]]
    size = 0
    for item in waiting:
        size += len(item.document)
        if batches[-1] and (
            len(batches[-1]) == frames.DOCUMENTS_MAX or size > frames.BATCH_BYTES_MAX
        ):
            batches.append([])
            size = len(item.document)
        batches[-1].append(item)
    return batches


def _settle(batch: list[_Waiting], results: list[dict[str, Any]]) -> None:
    for item, result in zip(batch, results, strict=True):
        if item.answer.done():
            continue
        if "error" in result:
            item.answer.set_exception(frames.error_of(result["error"]))
        else:
            item.answer.set_result(result["ok"])
