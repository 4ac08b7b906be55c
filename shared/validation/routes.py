"""CRLs, CA certificates and OCSP at exact addresses, without redirects.

The addresses stand in certificates: relying parties follow them literally, so a CRL is DER
(RFC 5280 §4.2.1.13) and every answer is complete at the first request.
"""

import binascii
import hashlib
import logging
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

from aiohttp import ETag, web
from cryptography import x509

from shared.kernel import limits
from shared.kernel.clock import Clock, datetime_of, utc_us_of
from shared.kernel.errors import BadRequestError, NotFoundError, TmaError, UnavailableError
from shared.kernel.ids import serial_text
from shared.pki import ocsp
from shared.pki.partitions import Partition
from shared.validation.answers import HOLDS_US, NOT_STORED, Answer, Answers, Fill, encode
from shared.validation.ports import CrlRow, Responder, Validation
from shared.web import front
from shared.web.app import read_body
from shared.web.auth import open_to_all

_LOG = logging.getLogger(__name__)

_CRL_MAX_AGE_S = 3600
_DELTA_MAX_AGE_S = 300  # who asks for deltas wants the news
_CA_MAX_AGE_S = 24 * 3600
_READ_AGAIN_NS = 1_000_000_000
_OCSP_PATH = "/ocsp/"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(
    validation: Validation, clock: Clock, answers: Answers
) -> tuple[list[web.RouteDef], front.Responder]:
    """Give the routes for both products, and the short way to OCSP answers.

    HEAD works wherever GET does. ``answers`` must watch the writer of the database that
    ``validation`` reads.
    """
    files = _Files(validation)
    responding = _Responding(validation, clock, answers)
    why = "relying parties ask without a name, for what is signed by itself"
    mounted = [
        web.get("/crl/{ca_id:[0-9a-f]+}.crl", open_to_all(files.crl, why)),
        web.get("/crl/{ca_id:[0-9a-f]+}-delta.crl", open_to_all(files.delta, why)),
        web.get("/crl/{ca_id:[0-9a-f]+}-{partition:[0-9-]+}.crl", open_to_all(files.share, why)),
        web.get("/ca/{ca_id:[0-9a-f]+}.cer", open_to_all(files.authority, why)),
        web.post("/ocsp", open_to_all(responding.post, why)),
        web.get("/ocsp/{request:.+}", open_to_all(responding.get, why)),
    ]
    return mounted, responding.front


class _Files:
    """Serves CRLs and CA certificates."""

    def __init__(self, validation: Validation) -> None:
        self._validation = validation

    async def crl(self, request: web.Request) -> web.StreamResponse:
        ca_id = request.match_info["ca_id"]
        row = await self._validation.current_crl(ca_id)
        if row is None:
            raise NotFoundError(f"There is no CRL of a CA {ca_id} here.")
        return _crl(request, row, _CRL_MAX_AGE_S)

    async def share(self, request: web.Request) -> web.StreamResponse:
        ca_id = request.match_info["ca_id"]
        partition = Partition.parse(request.match_info["partition"])
        row = partition and await self._validation.current_partition(ca_id, partition)
        if row is None:
            raise NotFoundError(f"There is no such partition of the CRL of a CA {ca_id} here.")
        return _crl(request, row, _CRL_MAX_AGE_S)

    async def delta(self, request: web.Request) -> web.StreamResponse:
        ca_id = request.match_info["ca_id"]
        row = await self._validation.current_delta(ca_id)
        if row is None:
            raise NotFoundError(f"There are no delta CRLs of a CA {ca_id} here.")
        return _crl(request, row, _DELTA_MAX_AGE_S)

    async def authority(self, request: web.Request) -> web.StreamResponse:
        ca_id = request.match_info["ca_id"]
        der = await self._validation.ca_certificate(ca_id)
        if der is None:
            raise NotFoundError(f"The CA {ca_id} is not known here.")
        return _file(request, der, "application/pkix-cert", _CA_MAX_AGE_S)


def _crl(request: web.Request, row: CrlRow, max_age_s: int) -> web.Response:
    response = _file(request, row.der, "application/pkix-crl", max_age_s)
    response.last_modified = datetime_of(row.this_update_us)
    return response


def _file(request: web.Request, der: bytes, content_type: str, max_age_s: int) -> web.Response:
    """Answer with the file, or with 304 when the client has it already (RFC 9110 §13.1.2)."""
    tag = hashlib.sha256(der).hexdigest()[:32]
    known = request.if_none_match or ()
    if any(asked.value in {tag, "*"} for asked in known):
        response = web.Response(status=304)
    else:
        response = web.Response(body=der, content_type=content_type)
    response.etag = ETag(tag)
    response.headers["Cache-Control"] = f"public, max-age={max_age_s}, no-transform"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@dataclass(frozen=True, slots=True)
class _Authority:
    ca_id: str
    since_us: int


class _Responding:
    """Answers OCSP (RFC 6960; GET by RFC 5019 §5): from memory, else live from the database."""

    def __init__(self, validation: Validation, clock: Clock, answers: Answers) -> None:
        self._validation = validation
        self._clock = clock
        self._answers = answers
        self._authorities: Mapping[ocsp.IssuerHash, _Authority] = {}
        self._read_again_ns = 0

    def front(self, request: front.Request) -> bytes | Awaitable[bytes] | None:
        """Answer from memory at once, else live; errors and whatever else go the long way."""
        posted = request.method == b"POST"
        if posted:
            body = request.body if request.target == b"/ocsp" else None
        else:
            body = _question(request.target.decode("ascii"))
        if body is None or len(body) > limits.OCSP_REQUEST_BYTES_MAX:
            return None
        known = self._known(body) or self._at_once(body)
        if known is not None:
            return known.posted if posted else known.got
        return self._sent(body, posted=posted)

    def _known(self, body: bytes) -> Answer | None:
        known = self._answers.find(body, self._clock.now().utc_us)
        if known is None or self._validation.responder_now(known.ca_id) is not known.signer:
            return None
        return known

    def _at_once(self, body: bytes) -> Answer | None:
        """Answer live without waiting, if everything is at hand; None leaves it to ``_answer``."""
        try:
            request = ocsp.parse(body)
            first, *more = request.certids
            authority = None if more else self._authorities.get(first.issuer)
            responder = authority and self._validation.responder_now(authority.ca_id)
            if authority is None or responder is None or request.nonce is not None:
                return None
            serial = serial_text(first.serial)
            with self._answers.filling((authority.ca_id, serial)) as fill:
                status = self._validation.ocsp_status_now(authority.ca_id, serial)
                if status is None:
                    return None
                return self._kept(
                    fill, body, status, partial(self._signed, authority, responder, request)
                )
        except TmaError:
            return None

    async def _sent(self, body: bytes, *, posted: bool) -> bytes:
        answer, shared = await self._answer(body)
        if isinstance(answer, ocsp.Failure):
            return encode(NOT_STORED, ocsp.error(answer))
        return answer.got if shared and not posted else answer.posted

    async def post(self, request: web.Request) -> web.Response:
        try:
            body = await read_body(request, limits.OCSP_REQUEST_BYTES_MAX)
        except BadRequestError:
            return _failure(ocsp.Failure.MALFORMED_REQUEST)
        answer, _shared = await self._answer(body)
        if isinstance(answer, ocsp.Failure):
            return _failure(answer)
        return web.Response(body=answer.der, headers=NOT_STORED)

    async def get(self, request: web.Request) -> web.Response:
        body = _question(request.rel_url.raw_path)
        if body is None:
            return _failure(ocsp.Failure.MALFORMED_REQUEST)
        answer, shared = await self._answer(body)
        if isinstance(answer, ocsp.Failure):
            return _failure(answer)
        if not shared:
            return web.Response(body=answer.der, headers=NOT_STORED)
        if request.headers.get("If-None-Match") == answer.headers["ETag"]:
            return web.Response(status=304, headers=answer.headers)
        return web.Response(body=answer.der, headers=answer.headers)

    async def _answer(self, body: bytes) -> tuple[Answer | ocsp.Failure, bool]:
        """Give the answer, and whether it is the same for everybody (no nonce)."""
        try:
            if known := self._known(body):
                return known, True
            request = ocsp.parse(body)
            return await self._live(body, request), request.nonce is None
        except BadRequestError:
            return ocsp.Failure.MALFORMED_REQUEST, False
        except NotFoundError:
            return ocsp.Failure.UNAUTHORIZED, False
        except UnavailableError:
            return ocsp.Failure.TRY_LATER, False
        except Exception as error:  # noqa: BLE001  # an OCSP client understands nothing else
            if not isinstance(error, TmaError):
                _LOG.error("An OCSP request failed.", exc_info=error)
            return ocsp.Failure.INTERNAL_ERROR, False

    async def _live(self, body: bytes, request: ocsp.OcspRequest) -> Answer:
        authority, responder = await self._responder(request)
        sign = partial(self._signed, authority, responder, request)
        first, *more = request.certids
        if request.nonce is not None or more:
            return sign([await self._status(authority, certid) for certid in request.certids])
        with self._answers.filling((authority.ca_id, serial_text(first.serial))) as fill:
            return self._kept(fill, body, await self._status(authority, first), sign)

    def _kept(
        self,
        fill: Fill,
        body: bytes,
        status: ocsp.Status,
        sign: Callable[[Sequence[ocsp.Status]], Answer],
    ) -> Answer:
        """Sign an answer and keep it; one about a serial in no book may change with any issue."""
        answer = sign([status])
        if status.listed:
            self._answers.keep(fill, body, answer, lambda: sign([status]))
        return answer

    async def _status(self, authority: _Authority, certid: ocsp.CertId) -> ocsp.Status:
        return await self._validation.ocsp_status(authority.ca_id, serial_text(certid.serial))

    def _signed(
        self,
        authority: _Authority,
        responder: Responder,
        request: ocsp.OcspRequest,
        statuses: Sequence[ocsp.Status],
    ) -> Answer:
        now_us = self._clock.now().utc_us
        der = ocsp.respond(
            request,
            statuses,
            responder_key=responder.key,
            responder_certificate=responder.certificate,
            this_update_us=now_us,
            next_update_us=now_us + HOLDS_US,
            archived_since_us=authority.since_us,
        )
        return Answer(authority.ca_id, der, responder, now_us)

    async def _responder(self, request: ocsp.OcspRequest) -> tuple[_Authority, Responder]:
        """Find the one CA that all ids name; raises NotFoundError when we do not answer for it."""
        issuers = {certid.issuer for certid in request.certids}
        if len(issuers) > 1:
            raise BadRequestError("All certificate ids of a request must name the same CA.")
        authority = await self._authority(issuers.pop())
        responder = await self._validation.responder(authority.ca_id) if authority else None
        if authority is None or responder is None:
            raise NotFoundError("OCSP is not answered for this CA here.")
        return authority, responder

    async def _authority(self, issuer: ocsp.IssuerHash) -> _Authority | None:
        """Find a CA by its hashes; strangers' questions cost a look into the database at times."""
        now_ns = self._clock.now().mono_ns
        if issuer not in self._authorities and now_ns >= self._read_again_ns:
            found: dict[ocsp.IssuerHash, _Authority] = {}
            for row in await self._validation.authorities():
                certificate = x509.load_der_x509_certificate(row.der)
                authority = _Authority(row.ca_id, utc_us_of(certificate.not_valid_before_utc))
                found |= dict.fromkeys(ocsp.issuer_hashes(certificate), authority)
            self._authorities = found
            self._read_again_ns = now_ns + _READ_AGAIN_NS
        return self._authorities.get(issuer)


def _question(path: str) -> bytes | None:
    """Read the request in the address of a GET (RFC 6960 §A.1); None when there is none."""
    try:
        return b64decode(unquote(path.removeprefix(_OCSP_PATH)), validate=True)
    except (binascii.Error, ValueError):
        return None


def _failure(kind: ocsp.Failure) -> web.Response:
    return web.Response(body=ocsp.error(kind), headers=NOT_STORED)
