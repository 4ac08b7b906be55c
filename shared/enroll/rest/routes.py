"""All addresses of the REST interface: one table mounts them and describes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from shared.enroll.refusing import Refusing
from shared.enroll.rest import documents, openapi, paging, pending
from shared.enroll.rest.catalogue import LANE_FILTERS, Catalogue
from shared.enroll.rest.certificates import FILTERS, Certificates
from shared.enroll.rest.content import PROTOCOL
from shared.enroll.rest.enrolling import Enrolling
from shared.enroll.rest.explaining import Explaining
from shared.enroll.rest.models import (
    Batch,
    Document,
    EnrollAttributes,
    HoldAttributes,
    RenewAttributes,
    RevokeAttributes,
    RevokeManyAttributes,
)
from shared.enroll.rest.ports import RestPorts
from shared.enroll.rest.rendering import BASE
from shared.enroll.rest.revocations import Revocations
from shared.policy.rights import Permission
from shared.web.auth import Handler, needs, open_to_all
from shared.web.pages import Pages
from shared.web.throttle import Throttle

_OPENAPI_HEADERS = {"Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: where it is, who may, who handles it, what the OpenAPI document says.

    ``schema`` describes an answer that ``openapi`` does not know; ``takes`` and ``gives`` are media
    types.
    """

    permission: Permission
    method: str
    path: str  # below /api/v2.0
    handler: Handler
    summary: str
    answer: str  # name of a schema
    status: int = 200
    body: type[BaseModel] | None = None
    query: tuple[str, ...] = field(default=())
    schema: Mapping[str, Any] | None = None
    takes: str = "application/json"
    gives: str = "application/json"
    waits: bool = False  # central may have to sign first: 202
    dry: bool = False  # asks only: what goes wrong with it is no refused enrollment


def routes(
    ports: RestPorts, pages: Pages | None = None, *, more: Sequence[Route] = ()
) -> list[web.RouteDef]:
    """Give every route below ``/api/v2.0``; with ``pages`` also ``/docs`` for people.

    ``more`` are operations that one product has and the other has not.
    """
    refusing = Refusing(PROTOCOL, ports.refusals, Throttle(ports.clock, burst=60, period_s=3600))
    table = (*_table(ports, refusing), *more)
    document = openapi.document(table)
    encoded = documents.encode(document)

    async def machine(_request: web.Request) -> web.Response:
        return documents.answer(encoded, headers=_OPENAPI_HEADERS)

    def guarded(route: Route) -> Handler:
        guarded = ports.authenticator.guarded(route.permission, route.handler)
        enrolls = route.permission.startswith("certificate.") and not route.dry
        answering = pending.around(guarded) if route.waits else guarded
        recorded = refusing.around(answering) if route.method == "POST" and enrolls else answering
        return needs(route.permission, recorded)

    why = "the description of the interface holds nothing of this installation"
    mounted = [web.route(route.method, BASE + route.path, guarded(route)) for route in table]
    mounted.append(web.get(f"{BASE}/openapi.json", open_to_all(machine, why)))
    if pages is not None:
        mounted.append(web.get(f"{BASE}/docs", open_to_all(_people(pages, document), why)))
    return mounted


def _people(pages: Pages, document: dict[str, Any]) -> Handler:
    async def people(_request: web.Request) -> web.Response:
        return pages.render("shared.enroll.rest/docs.html", {"api": document})

    return people


def _table(ports: RestPorts, refusing: Refusing) -> Sequence[Route]:
    enrolling = Enrolling(ports, refusing)
    return (
        Route(
            Permission.CERTIFICATE_ENROLL,
            "POST",
            "/certificates",
            enrolling.issue,
            "Issue a certificate for a CSR, or for a key that the server makes",
            "Certified",
            201,
            Document[EnrollAttributes],
            waits=True,
        ),
        Route(
            Permission.CERTIFICATE_ENROLL,
            "POST",
            "/certificates/batch",
            enrolling.batch,
            "Issue up to 1,000 certificates, each with a result of its own",
            "BatchResults",
            body=Batch,
        ),
        Route(
            Permission.CERTIFICATE_ENROLL,
            "POST",
            "/cert_{profile}",
            enrolling.issue_for_profile,
            "Issue a certificate of one profile; server and client mean tls-server, tls-client",
            "Certified",
            201,
            Document[EnrollAttributes],
            waits=True,
        ),
        Route(
            Permission.CERTIFICATE_RENEW,
            "POST",
            "/certificates/{id}/renew",
            enrolling.renew,
            "Issue a successor, by a token or by the certificate itself over mutual TLS",
            "Certified",
            201,
            Document[RenewAttributes],
            waits=True,
        ),
        Route(
            Permission.CERTIFICATE_READ,
            "GET",
            "/enrollments/{id}",
            pending.Pending(ports).fetch,
            "Ask what became of a request that waits for central to sign",
            "Certified",
            waits=True,
        ),
        *_certificate_routes(Certificates(ports)),
        *_revocation_routes(Revocations(ports)),
        *_catalogue_routes(Catalogue(ports)),
        *_explaining_routes(Explaining(ports)),
    )


def _certificate_routes(certificates: Certificates) -> tuple[Route, ...]:
    return (
        Route(
            Permission.CERTIFICATE_REVOKE,
            "POST",
            "/certificates/{id}/revoke",
            certificates.revoke,
            "Revoke a certificate for good",
            "Certificate",
            body=Document[RevokeAttributes],
        ),
        Route(
            Permission.CERTIFICATE_HOLD,
            "POST",
            "/certificates/{id}/hold",
            certificates.hold,
            "Suspend a certificate under a hold id",
            "Certificate",
            body=Document[HoldAttributes],
        ),
        Route(
            Permission.CERTIFICATE_HOLD,
            "POST",
            "/certificates/{id}/release",
            certificates.release,
            "Release one hold id",
            "Certificate",
            body=Document[HoldAttributes],
        ),
        Route(
            Permission.CERTIFICATE_READ,
            "GET",
            "/certificates/{id}",
            certificates.fetch,
            "Fetch a certificate as JSON, or by format (or Accept) as der, pem or pkcs7",
            "Certificate",
            query=("format",),
        ),
        Route(
            Permission.CERTIFICATE_READ,
            "GET",
            "/certificates",
            certificates.search,
            "Search certificates, newest first",
            "CertificatePage",
            query=paging.parameters(FILTERS),
        ),
    )


def _explaining_routes(explaining: Explaining) -> tuple[Route, ...]:
    return (
        Route(
            Permission.PROFILE_READ,
            "POST",
            "/profiles/{name}/explain",
            explaining.explain,
            "Explain what would become of an enrollment, rule by rule; nothing is issued",
            "Decision",
            body=Document[EnrollAttributes],
            dry=True,
        ),
        Route(
            Permission.PROFILE_READ,
            "GET",
            "/profiles/schema",
            explaining.schema,
            "Fetch the JSON Schema of profile documents",
            "Schema",
        ),
    )


def _revocation_routes(revocations: Revocations) -> tuple[Route, ...]:
    return (
        Route(
            Permission.CERTIFICATE_REVOKE,
            "POST",
            "/revocations",
            revocations.begin,
            "Revoke all certificates that satisfy a filter; with dry_run (200) only estimate it",
            "Operation",
            202,
            Document[RevokeManyAttributes],
        ),
        Route(
            Permission.CERTIFICATE_REVOKE,
            "GET",
            "/operations/{id}",
            revocations.fetch,
            "Say how far a revocation by filter is",
            "Operation",
        ),
        Route(
            Permission.CERTIFICATE_REVOKE,
            "DELETE",
            "/operations/{id}",
            revocations.cancel,
            "Stop it where it is; what is revoked stays revoked",
            "Operation",
        ),
    )


def _catalogue_routes(catalogue: Catalogue) -> tuple[Route, ...]:
    return (
        Route(
            Permission.PROFILE_READ,
            "GET",
            "/profiles",
            catalogue.profiles,
            "List the profiles in force",
            "Profiles",
        ),
        Route(
            Permission.AUTHORITY_READ,
            "GET",
            "/cas",
            catalogue.authorities,
            "List the CAs; by format as pem, pkcs7 or Java truststore (password: changeit)",
            "Cas",
            query=("format",),
        ),
        Route(
            Permission.GATEWAY_READ,
            "GET",
            "/sync",
            catalogue.sync,
            "Say how far each lane of replication is",
            "SyncLanes",
            query=paging.parameters(LANE_FILTERS),
        ),
        Route(
            Permission.STATUS_READ,
            "GET",
            "/status",
            catalogue.status,
            "Say how this box is",
            "Status",
        ),
    )
