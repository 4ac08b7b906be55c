"""What EST answers: base64 of DER, or a sentence in plain text for whoever reads the log."""

import textwrap
from base64 import b64encode
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from aiohttp import web

from shared.kernel.errors import Kind, TmaError
from shared.pki import cms
from shared.policy.access import Wrapping
from shared.web import problems
from shared.web.throttle import ThrottledError

CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
_LINE_CHARS = 64
_BASE64 = {**problems.API_HEADERS, "Content-Transfer-Encoding": "base64"}
_RETRY_AFTER_S = 5
_BOUNDARY = "tma-est-part"
_CHALLENGE = 'Basic realm="TMA Edge EST", charset="UTF-8"'
#: Clients that read base64 only in lines begin their User-Agent so (Cisco libest).
_NEEDS_LINES = ("libest", "estclient", "cisco est")


def base64_text(der: bytes, wrapping: Wrapping, user_agent: str) -> str:
    """Write base64 in one line, which strongSwan needs, or in lines, which libest needs."""
    text = b64encode(der).decode()
    lines = wrapping is Wrapping.ALWAYS or (
        wrapping is Wrapping.AUTO and user_agent.lower().startswith(_NEEDS_LINES)
    )
    return "\n".join([*textwrap.wrap(text, _LINE_CHARS), ""]) if lines else text


def encoded(
    request: web.Request, der: bytes, content_type: str, wrapping: Wrapping
) -> web.Response:
    """Answer with DER in base64 (RFC 8951 §3.2)."""
    text = base64_text(der, wrapping, request.headers.get("User-Agent", ""))
    return web.Response(body=text.encode(), headers={**_BASE64, "Content-Type": content_type})


def certificates(
    request: web.Request, ders: list[bytes], wrapping: Wrapping = Wrapping.AUTO
) -> web.Response:
    """Answer with certificates."""
    return encoded(request, cms.certs_only(ders), CERTS_ONLY, wrapping)


def multipart(
    request: web.Request, parts: Iterable[tuple[str, bytes]], wrapping: Wrapping
) -> web.Response:
    """Answer with several documents, each of a content type, DER in base64 (RFC 7030 §4.4.2)."""
    user_agent = request.headers.get("User-Agent", "")
    lines = [
        line
        for content_type, der in parts
        for line in (
            f"--{_BOUNDARY}",
            f"Content-Type: {content_type}",
            "Content-Transfer-Encoding: base64",
            "",
            base64_text(der, wrapping, user_agent),
        )
    ]
    return web.Response(
        body="\r\n".join([*lines, f"--{_BOUNDARY}--", ""]).encode(),
        headers={
            "Content-Type": f'multipart/mixed; boundary="{_BOUNDARY}"',
            "Cache-Control": "no-store",
        },
    )


def failure(error: TmaError, *, enrolling: bool) -> web.Response:
    """Say what is wrong in plain text (RFC 7030 §4.2.3).

    While it enrolls, *not now* is 202: the client sends the same request again later, and the
    issuance core finds that it is the same.
    """
    status, headers = error.http_status, _headers(error)
    if enrolling and error.kind is Kind.RETRYABLE:
        status = HTTPStatus.ACCEPTED
        headers.setdefault("Retry-After", str(_RETRY_AFTER_S))
    remedy = error.remedy or type(error).__doc__ or ""
    return web.Response(
        status=status, text=f"{error.message}\n{remedy}\n".replace("\n\n", "\n"), headers=headers
    )


def _headers(error: TmaError) -> dict[str, str]:
    headers: Mapping[str, str] = problems.headers(error)
    given = {name: value for name, value in headers.items() if name != "WWW-Authenticate"}
    if error.http_status == HTTPStatus.UNAUTHORIZED and not isinstance(error, ThrottledError):
        given["WWW-Authenticate"] = _CHALLENGE
    return given
