"""Pages: the template environment, security headers, static files that caches keep for ever."""

import hashlib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any
from urllib.parse import quote

from aiohttp import web
from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined

from shared.kernel.clock import datetime_of
from shared.kernel.errors import TmaError, UnauthenticatedError
from shared.web import problems
from shared.web.auth import open_to_all

#: Nothing from elsewhere, nothing inline: htmx and one stylesheet need no more.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: No HSTS: it would also lock browsers out of the plain CRL port of the same host, and out of a
#: box whose certificate the technician is about to repair.
PAGE_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_STATIC_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_NOTHING = "\N{EN DASH}"
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Pages:
    """Renders the templates of some packages over the shared base template.

    A template of package ``gateway.web`` is named ``gateway.web/line.html``; it extends
    ``shared.web/base.html`` and takes the macros of ``shared.web/macros.html``.
    """

    def __init__(
        self, *packages: str, product: str, version: str, login_path: str | None = None
    ) -> None:
        """Take packages with a ``templates`` folder, the product's name and version for the frame.

        A file of a package's ``static`` folder has the address ``static('gateway.web/line.css')``,
        one of the shared folder ``static('app.css')``. ``login_path`` is where a browser goes that
        must log in first.
        """
        self._login_path = login_path
        self._files = _static_files("shared.web", "")
        for package in packages:
            self._files |= _static_files(package, f"{package}/")
        self._environment = Environment(
            loader=PrefixLoader(
                {name: PackageLoader(name, "templates") for name in {"shared.web", *packages}}
            ),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(utc=utc_text, age=age_text)
        self._frame = {"product": product, "version": version, "static": self._static_address}

    def render(
        self,
        template: str,
        context: Mapping[str, Any],
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """Render one template into an answer with the strict headers of a page."""
        return web.Response(
            status=status,
            text=self._environment.get_template(template).render(self._frame | dict(context)),
            content_type="text/html",
            headers={**PAGE_HEADERS, **(headers or {})},
        )

    def error(self, request: web.Request, error: TmaError) -> web.Response:
        """Render an error for a person, or send him to the login and back to where he was."""
        if isinstance(error, UnauthenticatedError) and self._login_path is not None:
            back = request.path_qs if request.method == "GET" else "/"
            address = f"{self._login_path}?next={quote(back, safe='/')}"
            # htmx follows a redirect inside the fragment; this header makes the whole page go.
            return web.Response(status=303, headers={"Location": address, "HX-Redirect": address})
        return self.render(
            "shared.web/error.html",
            {"problem": problems.document(error)},
            status=error.http_status,
            headers={**problems.headers(error), **PAGE_HEADERS},
        )

    def routes(self) -> list[web.RouteDef]:
        """Serve the static files under addresses that change with their content."""
        static = open_to_all(self._static, "style sheets and scripts are the same for everybody")
        return [web.get(r"/static/{digest:[0-9a-f]+}/{name:.+}", static)]

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        digest, content = self._files.get(name, ("", b""))
        if digest != request.match_info["digest"]:
            raise web.HTTPNotFound
        suffix = "." + name.rpartition(".")[2]
        return web.Response(
            body=content,
            content_type=_MEDIA_TYPES.get(suffix, "text/plain"),
            charset="utf-8",
            headers=_STATIC_HEADERS,
        )

    def _static_address(self, name: str) -> str:
        return f"/static/{self._files[name][0]}/{name}"


def utc_text(utc_us: int | None) -> str:
    """Write a time for a person: UTC to the second, or a dash."""
    return _NOTHING if utc_us is None else datetime_of(utc_us).strftime("%Y-%m-%d %H:%M:%S UTC")


def age_text(seconds: float | None) -> str:
    """Write a duration for a person in its largest fitting unit: "3 min"."""
    if seconds is None:
        return _NOTHING
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def _static_files(package: str, prefix: str) -> dict[str, tuple[str, bytes]]:
    """Read every static file of a package once: name to (digest, content)."""
    files: dict[str, tuple[str, bytes]] = {}
    pending: list[tuple[str, Traversable]] = [(prefix, resources.files(package) / "static")]
    while pending:
        path, folder = pending.pop()
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.is_dir():
                pending.append((f"{path}{entry.name}/", entry))
            else:
                content = entry.read_bytes()
                files[path + entry.name] = (hashlib.sha256(content).hexdigest()[:16], content)
    return files
