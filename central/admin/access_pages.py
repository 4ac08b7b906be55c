"""The pages about who may enroll: aliases, requesters, manufacturers."""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from central.admin import uploads
from central.admin.frame import Frame, Page, form, form_lists, see_other
from central.enrollment import files
from central.enrollment.operations import EnrollmentOperations
from central.enrollment.orders import RequesterOrder
from shared.enroll.est.catalogue import AliasCatalogue
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import BadRequestError, NotFoundError
from shared.pki import formats
from shared.policy.access import ALL, Alias, Evidence, Manufacturer, Wrapping
from shared.policy.profile import Profile
from shared.policy.rights import Permission
from shared.web.auth import Handler, Principal
from shared.web.console import order_of

_UPLOAD_BYTES_MAX = 256 * 1024
_READ, _WRITE = Permission.STATION_READ, Permission.STATION_WRITE
_SWITCHES: Final = {
    "known_devices_only": "Refuse devices without a record",
    "server_keys": "Make keys for machines that cannot (serverkeygen)",
    "renewal": "Renew certificates",
    "change_subject": "Let a renewal change the names (RFC 6402)",
    "channel_binding": "Demand tls-unique (TLS 1.2 only)",
}
#: What each kind of evidence is called on the pages.
EVIDENCE: Final[Mapping[Evidence, str]] = {
    Evidence.TOKEN: "a station's token",
    Evidence.CERTIFICATE: "a requester's certificate",
    Evidence.PASSWORD: "a requester's password",
    Evidence.CODE: "a device's one-time code",
    Evidence.MANUFACTURER: "a device certificate (IDevID)",
    Evidence.WEBHOOK: "another system (webhook)",
}


def routes(
    frame: Frame,
    operations: EnrollmentOperations,
    catalogue: AliasCatalogue,
    profiles: Callable[[], Sequence[Profile]],
) -> list[web.RouteDef]:
    """Give every route of these pages."""
    pages = _AccessPages(frame, operations, catalogue, profiles)

    def guarded(permission: Permission, page: Page) -> Handler:
        """None of this belongs to one line: only a right for everything reaches it."""

        async def whole(request: web.Request, who: Principal) -> web.StreamResponse:
            who.require(permission)
            return await page(request, who)

        return frame.guarded(permission, whole)

    return [
        web.get("/aliases", guarded(_READ, pages.aliases)),
        web.post("/aliases", guarded(_WRITE, pages.put_alias)),
        web.get("/aliases/{name}", guarded(_READ, pages.alias)),
        web.post("/aliases/{name}/switch", guarded(_WRITE, pages.switch_alias)),
        web.post("/aliases/{name}/remove", guarded(_WRITE, pages.remover("alias", "/aliases"))),
        web.get("/requesters", guarded(_READ, pages.requesters)),
        web.post("/requesters", guarded(_WRITE, pages.add_requester)),
        web.post(
            "/requesters/{name}/remove",
            guarded(_WRITE, pages.remover("requester", "/requesters")),
        ),
        web.get("/manufacturers", guarded(_READ, pages.manufacturers)),
        web.post("/manufacturers", guarded(_WRITE, pages.put_manufacturer)),
        web.post(
            "/manufacturers/{name}/remove",
            guarded(_WRITE, pages.remover("manufacturer", "/manufacturers")),
        ),
    ]


class _AccessPages:
    def __init__(
        self,
        frame: Frame,
        operations: EnrollmentOperations,
        catalogue: AliasCatalogue,
        profiles: Callable[[], Sequence[Profile]],
    ) -> None:
        self._frame = frame
        self._operations = operations
        self._registry = operations.registry
        self._catalogue = catalogue
        self._profiles = profiles

    # --- aliases ----------------------------------------------------------------------------

    async def aliases(self, _request: web.Request, who: Principal) -> web.Response:
        named = set(self._registry.everything.by_alias)
        context = {
            "aliases": self._registry.everything.aliases,
            "implied": [one.name for one in self._profiles() if one.name not in named],
            "alias": Alias(name="new", profile="new"),
            **self._choices(),
        }
        return self._frame.show("aliases.html", who, "enrollment", context)

    async def alias(self, request: web.Request, who: Principal) -> web.Response:
        """Show one; a profile's own alias has no document yet and is shown as it works."""
        name = request.match_info["name"]
        alias = self._registry.everything.by_alias.get(name)
        implied = alias is None
        alias = alias or self._implied(name)
        device = request.query.get("device", "").strip()
        steps = self._catalogue.commands(name, device or None) if alias.enabled else []
        context = {
            "alias": alias,
            "implied": implied,
            "steps": steps,
            "device": device,
            **self._choices(),
        }
        return self._frame.show("alias.html", who, "enrollment", context)

    async def put_alias(self, request: web.Request, who: Principal) -> web.Response:
        fields = await form_lists(request)
        document = _alias_document(fields)
        alias = Alias.from_document(document)
        if "new" in fields and alias.name in self._registry.everything.by_alias:
            raise BadRequestError(
                f"There is an alias {alias.name} already.",
                remedy="Change that one on its page, or take another name.",
                pointer="/name",
            )
        await self._registry.put("alias", alias, who.name)
        return see_other(f"/aliases/{alias.name}")

    async def switch_alias(self, request: web.Request, who: Principal) -> web.Response:
        """Switch it on or off everywhere; a profile's own alias gets a document by that."""
        name = request.match_info["name"]
        alias = self._registry.everything.by_alias.get(name) or self._implied(name)
        wanted = (await form(request)).get("enabled") == "true"
        changed = alias.model_copy(update={"enabled": wanted})
        await self._registry.put("alias", changed, who.name)
        return see_other(f"/aliases/{name}")

    def _implied(self, name: str) -> Alias:
        for profile in self._profiles():
            if profile.name == name:
                return Alias.of_profile(profile)
        raise NotFoundError(f"There is no alias {name}.")

    def _choices(self) -> dict[str, Any]:
        return {
            "profiles": [one.name for one in self._profiles()],
            "all_manufacturers": [one.name for one in self._registry.everything.manufacturers],
            "evidence": EVIDENCE,
            "switches": _SWITCHES,
            "wrappings": list(Wrapping),
        }

    # --- requesters -------------------------------------------------------------------------

    async def requesters(self, _request: web.Request, who: Principal) -> web.Response:
        context = {
            "requesters": self._registry.everything.requesters,
            "now_us": self._frame.now_us(),
        }
        return self._frame.show("requesters.html", who, "enrollment", context)

    async def add_requester(self, request: web.Request, who: Principal) -> web.Response:
        fields = await form(request)
        name = fields.get("name", "").strip()
        if name in self._registry.everything.by_requester:
            raise BadRequestError(
                f"There is a requester {name} already.",
                remedy="Remove that one first: his password or secret ends with it.",
                pointer="/name",
            )
        order = order_of(
            RequesterOrder,
            name=name,
            kind=fields.get("kind", ""),
            aliases=_words(fields, "aliases"),
            profiles=_words(fields, "profiles"),
            gateways=_words(fields, "gateways"),
            days=fields.get("days") or None,
            certificate=fields.get("certificate", "").strip() or None,
            url=fields.get("url", "").strip() or None,
        )
        secret = await self._operations.add_requester(order, who.name)
        if secret is None:
            return see_other("/requesters")
        what = "password" if order.kind == "password" else "webhook secret"
        context = {"name": name, "what": what, "secret": secret, "back": "/requesters"}
        return self._frame.show("shown_once.html", who, "enrollment", context)

    # --- manufacturers ----------------------------------------------------------------------

    async def manufacturers(self, _request: web.Request, who: Principal) -> web.Response:
        everything = self._registry.everything
        shown = [
            {
                "name": one.name,
                "title": one.title,
                "authorities": [_authority(der) for der in one.certificates],
                "crls": len(one.crls),
                "aliases": [
                    alias.name for alias in everything.aliases if one.name in alias.manufacturers
                ],
            }
            for one in everything.manufacturers
        ]
        return self._frame.show("manufacturers.html", who, "enrollment", {"manufacturers": shown})

    async def put_manufacturer(self, request: web.Request, who: Principal) -> web.Response:
        upload = await uploads.read(request, _UPLOAD_BYTES_MAX)
        certificates = [
            der
            for _name, content in upload.files.get("certificates", [])
            for der in formats.certificates(content)
        ]
        crls = [files.crl_of(content, name) for name, content in upload.files.get("crls", [])]
        document = {
            "name": upload.fields.get("name", "").strip(),
            "title": upload.fields.get("title", "").strip(),
            "certificates": [b64encode(der).decode() for der in certificates],
            "crls": [b64encode(der).decode() for der in crls],
        }
        await self._operations.put_manufacturer(Manufacturer.from_document(document), who.name)
        return see_other("/manufacturers")

    # --- all of them ------------------------------------------------------------------------

    def remover(self, kind: str, back: str) -> Page:
        """Give the handler that removes one of a kind."""

        async def remove(request: web.Request, who: Principal) -> web.Response:
            await self._registry.remove(kind, request.match_info["name"], who.name)
            return see_other(quote(back))

        return remove


def _alias_document(fields: Mapping[str, list[str]]) -> str:
    """Put a form's fields together; Alias judges them."""

    def text(name: str, default: str = "") -> str:
        return fields.get(name, [default])[0].strip()

    window = text("renewal_window_days")
    document: dict[str, Any] = {
        "name": text("name"),
        "profile": text("profile"),
        "title": text("title"),
        "accepts": fields.get("accepts", []),
        "manufacturers": fields.get("manufacturers", []),
        "serial_pattern": text("serial_pattern") or ALL,
        "renewal_window_days": int(window) if window.isascii() and window.isdigit() else None,
        "wrapping": text("wrapping", Wrapping.AUTO),
        "enabled": text("enabled", "true") == "true",
        **{name: name in fields for name in _SWITCHES},
    }
    return json.dumps(document)


def _words(fields: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Read names with spaces or commas between; none: all."""
    return tuple(fields.get(name, "").replace(",", " ").split()) or (ALL,)


def _authority(der: bytes) -> dict[str, Any]:
    certificate = x509.load_der_x509_certificate(der)
    ends = certificate.not_valid_after_utc
    return {
        "subject": certificate.subject.rfc4514_string() or "(no subject)",
        "not_after_us": int(ends.timestamp()) * US_PER_SECOND,
        "sha256": certificate.fingerprint(SHA256()).hex(),
        "root": certificate.subject == certificate.issuer,
    }
