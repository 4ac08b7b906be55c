"""Cross-site request forgery: a browser says where a request comes from, and we ask it.

Cookies are SameSite=Strict; this is the second fence, and the one for client certificates, which a
browser sends along from anywhere (research/interfaces.md §2).
"""

from aiohttp import web

from shared.kernel.errors import ForbiddenError

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def require_same_origin(request: web.Request) -> None:
    """Let safe methods, our own pages and programs pass; raises ForbiddenError for other sites.

    A program sends neither Sec-Fetch-Site nor Origin and carries its credential on purpose.
    """
    if request.method not in _SAFE_METHODS and _evidence(request) is False:
        raise ForbiddenError(
            "The request comes from another web site.",
            remedy="Use the page that this server itself delivered.",
        )


def require_own_page(request: web.Request) -> None:
    """Demand evidence that our own page sent this; for what a session cookie may change."""
    if request.method not in _SAFE_METHODS and not _evidence(request):
        raise ForbiddenError(
            "The browser did not say that this request comes from our own page.",
            remedy="Use a current browser, and the page that this server itself delivered.",
        )


def _evidence(request: web.Request) -> bool | None:
    """Tell whether the request is from our own origin; None: nobody says."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    if origin is None:
        return None
    return origin == f"{request.scheme}://{request.host}"
