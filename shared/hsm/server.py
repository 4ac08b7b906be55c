"""The socket side of the daemon: reads frames, applies the policy, queues, answers."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from cryptography import x509

from shared.hsm import documents, frames, requests
from shared.hsm.keeper import State, TokenKeeper
from shared.hsm.memory import Memory
from shared.hsm.settings import Policy
from shared.hsm.worker import TokenWorker
from shared.issuance.ports import Priority, Purpose
from shared.kernel.errors import (
    BadRequestError,
    ForbiddenError,
    OutcomeUnknownError,
    TmaError,
    TokenUnavailableError,
)
from shared.kernel.ids import Random
from shared.pki import algorithms, keys, signed
from shared.system.processes import peer_uid

_LOG = logging.getLogger(__name__)
_CONNECTIONS_MAX = 128
_REQUESTS_MAX = 32  # under way on one connection; more wait in the socket
_BODY_WITHIN_S = 10.0
_BESIDE_THE_LOOP_BYTES = 1024 * 1024  # a CRL; whose check takes so long, others pass it
_CONTROL_DEADLINE_MS = 60_000
_NONCE_BYTES = 32
_SLOW_S = 5.0
_GENERATION_S = 600.0  # RSA-8192 on a slow token

Result = TypeVar("Result")


class HsmServer:
    """Serves one token to the users who may ask."""

    def __init__(
        self,
        *,
        keeper: TokenKeeper,
        worker: TokenWorker,
        memory: Memory,
        policy: Policy,
        random: Random,
        users: frozenset[int],
    ) -> None:
        """Take the parts; ``users`` are the uids that may connect."""
        self._keeper = keeper
        self._worker = worker
        self._memory = memory
        self._policy = policy
        self._random = random
        self._users = users
        self._connections: set[asyncio.Task[Any]] = set()
        self._responses: set[asyncio.Task[None]] = set()
        self._authorities: dict[str, documents.Authority] = {}

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it goes away or breaks the framing."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            uid = peer_uid(writer.get_extra_info("socket"))
            if uid not in self._users or len(self._connections) > _CONNECTIONS_MAX:
                _LOG.warning("connection of user %s refused", uid)
                return
            async with asyncio.TaskGroup() as responses:
                await self._serve(reader, writer, responses)
        except* (BadRequestError, OSError) as errors:
            _LOG.warning("connection ended: %s", errors.exceptions[0])
        finally:
            self._connections.discard(task)
            writer.close()

    async def drained(self, timeout_s: float) -> None:
        """Wait until the answers under way are sent, then close the connections."""
        if self._responses:
            await asyncio.wait(self._responses, timeout=timeout_s)
        for connection in self._connections:
            connection.cancel()

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        responses: asyncio.TaskGroup,
    ) -> None:
        room = asyncio.Semaphore(_REQUESTS_MAX)
        while True:
            await room.acquire()
            body = await frames.read(reader, body_within_s=_BODY_WITHIN_S)
            if body is None:
                return
            response = responses.create_task(self._respond(body, writer))
            self._responses.add(response)
            response.add_done_callback(self._responses.discard)
            response.add_done_callback(lambda _done: room.release())

    async def _respond(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        message: dict[str, Any] = {}
        try:
            message = frames.open_map(body)
            answer = {"ok": await self._do(requests.parse(message))}
        except TmaError as error:
            answer = {"error": frames.error_map(error)}
        except Exception:  # noqa: BLE001 - a defect: logged whole, told without internals
            _LOG.exception("request failed")
            failure = OutcomeUnknownError("The key service failed inside; its log has the reason.")
            answer = {"error": frames.error_map(failure)}
        number = message.get("id")
        writer.write(frames.pack({"id": number if isinstance(number, int) else 0, **answer}))
        await writer.drain()

    async def _do(self, request: requests.Request) -> Any:
        match request:
            case requests.Sign():
                return await self._sign(request)
            case requests.State():
                return self._state()
            case requests.Generate(key=key, kind=kind):
                if not self._policy.generate:
                    raise ForbiddenError("The policy of this token does not allow to make keys.")
                return await self._use(
                    lambda: self._keeper.generate(key, kind), allowance_s=_GENERATION_S
                )
            case requests.BirthRequest():
                return await self._birth_csr(request)
            case requests.Prove(key=key, context=context):
                statement = documents.PROOF_PREFIX + self._random(_NONCE_BYTES) + context
                signature = await self._use(lambda: self._keeper.prove(key, statement))
                return {"statement": statement, "signature": signature}
            case requests.Adopt(key=key, certificate=certificate):
                self._memory.adopt(key, self._spki(key), _certificate(certificate))
                self._authorities.pop(key, None)
            case requests.PinResponder(key=key, spki=spki):
                keys.load_spki(spki)
                self._spki(key)
                self._memory.pin_responder(key, spki)
                self._authorities.pop(key, None)
        return None

    async def _sign(self, request: requests.Sign) -> list[dict[str, Any]]:
        """Check and queue each document for itself; an unknown key is surely not used."""
        snapshot = self._keeper.snapshot
        if not snapshot.ready:
            raise self._keeper.unavailable()
        if request.key not in snapshot.keys:
            raise TokenUnavailableError(self._keeper.unknown_key(request.key).message)
        authority = self._authority(request.key)
        return await asyncio.gather(
            *(self._sign_one(request, document, authority) for document in request.documents)
        )

    async def _sign_one(
        self,
        request: requests.Sign,
        document: requests.Document,
        authority: documents.Authority,
    ) -> dict[str, Any]:
        try:
            check = partial(documents.check, document.tbs, document.purpose, authority)
            large = len(document.tbs) > _BESIDE_THE_LOOP_BYTES
            algorithm = await asyncio.to_thread(check) if large else check()
            signature = await self._use(
                lambda: self._keeper.sign(request.key, document.tbs, algorithm),
                priority=request.priority,
                deadline_ms=request.deadline_ms,
            )
        except TmaError as error:
            _LOG.warning("%s not signed: %s", document.reference, error.message)
            return {"error": frames.error_map(error)}
        _LOG.debug("%s signed as %s", document.reference, document.purpose.value)
        return {"ok": signature}

    async def _birth_csr(self, request: requests.BirthRequest) -> bytes:
        purposes = self._policy.purposes_of(request.key)
        if purposes is not None and Purpose.BIRTH_CSR not in purposes:
            raise ForbiddenError("The policy of this key does not allow certification requests.")
        public_key = keys.load_spki(spki := self._spki(request.key))
        try:
            attributes = [
                x509.NameAttribute(x509.ObjectIdentifier(oid), value)
                for oid, value in request.subject
            ]
        except ValueError as error:
            raise BadRequestError("The subject of the request is not a valid name.") from error
        info = documents.certification_request_info(x509.Name(attributes), spki)
        algorithm = algorithms.usual(public_key)
        signature = await self._use(lambda: self._keeper.sign(request.key, info, algorithm))
        return signed.assemble(info, signature, public_key, algorithm)

    async def _use(
        self,
        use: Callable[[], Result],
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline_ms: int = _CONTROL_DEADLINE_MS,
        allowance_s: float = 0.0,
    ) -> Result:
        """Run on the token's thread and give its result here."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def settle(outcome: Result | TmaError) -> None:
            loop.call_soon_threadsafe(_resolve, done, outcome)

        self._worker.submit(
            use, settle, priority=priority, deadline_ms=deadline_ms, allowance_s=allowance_s
        )
        return await done

    def _state(self) -> dict[str, Any]:
        snapshot, busy_s = self._keeper.snapshot, self._worker.busy_s()
        state, sentence = snapshot.state, snapshot.sentence
        if snapshot.ready and busy_s > _SLOW_S:
            state, sentence = State.DEGRADED, f"The token has not answered for {busy_s:.0f} s."
        return {
            "state": state.value,
            "sentence": sentence,
            "token": snapshot.token,
            "serial": snapshot.serial,
            "keys": snapshot.keys,
            "latency_us": self._worker.queue.latency_ns // 1_000,
            "queued": len(self._worker.queue),
            "signed": self._worker.done,
        }

    def _spki(self, key: str) -> bytes:
        spki = self._keeper.snapshot.keys.get(key)
        if spki is None:
            raise self._keeper.unknown_key(key)
        return spki

    def _authority(self, key: str) -> documents.Authority:
        authority = self._authorities.get(key)
        if authority is None:
            authority = self._memory.authority(key, self._policy.purposes_of(key))
            if authority is None:
                raise ForbiddenError(
                    f"The key {key} has no CA certificate yet, so it signs no documents.",
                    remedy="Finish the birth of this CA: hand in its certificate.",
                )
            self._authorities[key] = authority
        return authority


def _resolve(done: "asyncio.Future[Result]", outcome: Result | TmaError) -> None:
    if done.done():
        return
    if isinstance(outcome, TmaError):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


def _certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise BadRequestError("The CA certificate is not a DER certificate.") from error
