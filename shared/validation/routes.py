"""CRLs, CA certificates and OCSP at exact addresses, without redirects.

The addresses stand in certificates: relying parties follow them literally, so a CRL is DER
(RFC 5280 §4.2.1.13) and every answer is complete at the first request.
"""

import binascii
import hashlib
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote

from aiohttp import ETag, web
from cryptography import x509

from shared.kernel import limits
from shared.kernel.clock import US_PER_SECOND, Clock, datetime_of
from shared.kernel.errors import BadRequestError, NotFoundError, TmaError, UnavailableError
from shared.kernel.ids import serial_text
from shared.pki import ocsp
from shared.validation.ports import Responder, Validation
from shared.web.app import read_body

_CRL_MAX_AGE_S = 3600
_CA_MAX_AGE_S = 24 * 3600
#: How long an OCSP answer holds. Short, because a revocation shall be seen at once; relying
#: parties keep an answer until then.
_OCSP_HOLDS_US = 10 * 60 * US_PER_SECOND
_OCSP_MAX_AGE_S = 60
_READ_AGAIN_NS = 1_000_000_000
_OCSP_PATH = "/ocsp/"
_OCSP_TYPE = "application/ocsp-response"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(validation: Validation, clock: Clock) -> list[web.RouteDef]:
    """Give the routes for both products; HEAD works wherever GET does."""
    files = _Files(validation)
    responding = _Responding(validation, clock)
    return [
        web.get("/crl/{ca_id:[0-9a-f]+}.crl", files.crl),
        web.get("/ca/{ca_id:[0-9a-f]+}.cer", files.authority),
        web.post("/ocsp", responding.post),
        web.get("/ocsp/{request:.+}", responding.get),
    ]


class _Files:
    """Serves CRLs and CA certificates."""

    def __init__(self, validation: Validation) -> None:
        self._validation = validation

    async def crl(self, request: web.Request) -> web.StreamResponse:
        ca_id = request.match_info["ca_id"]
        row = await self._validation.current_crl(ca_id)
        if row is None:
            raise NotFoundError(f"There is no CRL of a CA {ca_id} here.")
        response = _file(request, row.der, "application/pkix-crl", _CRL_MAX_AGE_S)
        response.last_modified = datetime_of(row.this_update_us)
        return response

    async def authority(self, request: web.Request) -> web.StreamResponse:
        ca_id = request.match_info["ca_id"]
        der = await self._validation.ca_certificate(ca_id)
        if der is None:
            raise NotFoundError(f"The CA {ca_id} is not known here.")
        return _file(request, der, "application/pkix-cert", _CA_MAX_AGE_S)


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


class _Responding:
    """Answers OCSP live from the database (RFC 6960; GET by RFC 5019 §5)."""

    def __init__(self, validation: Validation, clock: Clock) -> None:
        self._validation = validation
        self._clock = clock
        self._authorities: Mapping[ocsp.IssuerHash, str] = {}
        self._read_again_ns = 0

    async def post(self, request: web.Request) -> web.Response:
        try:
            body = await read_body(request, limits.OCSP_REQUEST_BYTES_MAX)
        except BadRequestError:
            return _failure(ocsp.Failure.MALFORMED_REQUEST)
        return await self._answer(body, cached=False)

    async def get(self, request: web.Request) -> web.Response:
        encoded = unquote(request.rel_url.raw_path.removeprefix(_OCSP_PATH))
        try:
            body = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return _failure(ocsp.Failure.MALFORMED_REQUEST)
        return await self._answer(body, cached=True)

    async def _answer(self, body: bytes, *, cached: bool) -> web.Response:
        try:
            request = ocsp.parse(body)
            ca_id, responder = await self._responder(request)
            statuses = [
                await self._validation.ocsp_status(ca_id, serial_text(certid.serial))
                for certid in request.certids
            ]
        except BadRequestError:
            return _failure(ocsp.Failure.MALFORMED_REQUEST)
        except NotFoundError:
            return _failure(ocsp.Failure.UNAUTHORIZED)
        except UnavailableError:
            return _failure(ocsp.Failure.TRY_LATER)
        except TmaError:
            return _failure(ocsp.Failure.INTERNAL_ERROR)
        now_us = self._clock.now().utc_us
        der = ocsp.respond(
            request,
            statuses,
            responder_key=responder.key,
            responder_certificate=responder.certificate,
            this_update_us=now_us,
            next_update_us=now_us + _OCSP_HOLDS_US,
        )
        response = web.Response(body=der, content_type=_OCSP_TYPE)
        if cached and request.nonce is None:
            response.headers["Cache-Control"] = (
                f"public, max-age={_OCSP_MAX_AGE_S}, no-transform, must-revalidate"
            )
            response.etag = ETag(hashlib.sha256(der).hexdigest()[:32])
            response.last_modified = datetime_of(now_us)
        else:
            response.headers["Cache-Control"] = "no-store"
        return response

    async def _responder(self, request: ocsp.OcspRequest) -> tuple[str, Responder]:
        """Find the one CA that all ids name; raises NotFoundError when we do not answer for it."""
        issuers = {certid.issuer for certid in request.certids}
        if len(issuers) > 1:
            raise BadRequestError("All certificate ids of a request must name the same CA.")
        ca_id = await self._ca_id(issuers.pop())
        responder = await self._validation.responder(ca_id) if ca_id else None
        if ca_id is None or responder is None:
            raise NotFoundError("OCSP is not answered for this CA here.")
        return ca_id, responder

    async def _ca_id(self, issuer: ocsp.IssuerHash) -> str | None:
        """Find a CA by its hashes; strangers' questions cost a look into the database at times."""
        now_ns = self._clock.now().mono_ns
        if issuer not in self._authorities and now_ns >= self._read_again_ns:
            self._authorities = {
                name: row.ca_id
                for row in await self._validation.authorities()
                for name in ocsp.issuer_hashes(x509.load_der_x509_certificate(row.der))
            }
            self._read_again_ns = now_ns + _READ_AGAIN_NS
        return self._authorities.get(issuer)


def _failure(kind: ocsp.Failure) -> web.Response:
    return web.Response(
        body=ocsp.error(kind), content_type=_OCSP_TYPE, headers={"Cache-Control": "no-store"}
    )
