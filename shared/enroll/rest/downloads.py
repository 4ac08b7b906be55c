"""Files in place of JSON: which one a client wants, by ``format`` in the query or by Accept."""

from collections.abc import Collection

from aiohttp import web

from shared.kernel.errors import BadRequestError
from shared.web.problems import API_HEADERS

#: Formats by media type (RFC 2585, RFC 7468 in practice, RFC 8551, RFC 7292) and file extension.
_TYPES = {
    "der": ("application/pkix-cert", "cer"),
    "pem": ("application/x-pem-file", "pem"),
    "pkcs7": ("application/pkcs7-mime", "p7c"),
    "truststore": ("application/x-pkcs12", "p12"),
}


def wanted(request: web.Request, offered: Collection[str]) -> str | None:
    """Give the format that is wanted; None: JSON. Raises BadRequestError for an unknown one."""
    asked = request.query.get("format")
    if asked is None:
        accept = request.headers.get("Accept", "")
        return next((name for name in offered if _TYPES[name][0] in accept), None)
    if asked in offered:
        return asked
    if asked != "json":
        raise BadRequestError(
            f"The format {asked[:40]!r} is not known here.",
            remedy=f"Use one of json, {', '.join(offered)}.",
        )
    return None


def file(name: str, body: bytes, title: str) -> web.Response:
    """Answer with a file of this format, named after its title."""
    media_type, extension = _TYPES[name]
    disposition = f'attachment; filename="{title}.{extension}"'
    headers = {**API_HEADERS, "Content-Disposition": disposition}
    return web.Response(body=body, content_type=media_type, headers=headers)
