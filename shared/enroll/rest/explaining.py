"""Dry runs: what would become of a request, rule by rule. Nothing is issued, spent or recorded."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from aiohttp import web

from shared.enroll.rest import documents
from shared.enroll.rest.content import enrollment, signing_request
from shared.enroll.rest.models import Document, EnrollAttributes
from shared.enroll.rest.ports import RestPorts
from shared.kernel.clock import datetime_of
from shared.kernel.errors import NotFoundError
from shared.pki import keys, names
from shared.pki.plan import NO_EXPIRY_US, Plan
from shared.policy.decide import Decision
from shared.policy.profile import Profile
from shared.policy.request import EnrollmentRequest
from shared.policy.rights import Permission, Place
from shared.web.app import read_body


class Explainer(Protocol):
    """The use case (shared.issuance.service)."""

    async def explain(self, request: EnrollmentRequest) -> Decision:
        """Decide and give the verdict of each rule."""
        ...


class Explaining:
    """Handlers of the dry run and of the schema that profiles are written by."""

    def __init__(self, ports: RestPorts) -> None:
        """Take the ports."""
        self._ports = ports

    async def explain(self, request: web.Request) -> web.Response:
        """Explain what would become of an enrollment with these attributes."""
        principal = await self._ports.authenticator.principal(request)
        name = request.match_info["name"]
        principal.require(Permission.PROFILE_READ, on=Place(profile=name))
        documents.require_json(request)
        data = documents.parse(Document[EnrollAttributes], await read_body(request)).data
        explained = await explain(
            self._ports.issuance, self._ports.profiles, name, data.attributes, principal.name
        )
        told = {"type": "decision", "id": name, "attributes": explained}
        return documents.answer(documents.encode({"data": told}))

    async def schema(self, _request: web.Request) -> web.Response:
        """Give the JSON Schema of profiles."""
        return documents.answer(documents.encode(Profile.model_json_schema()))


async def explain(
    explainer: Explainer,
    profiles: Callable[[], Awaitable[Sequence[Profile]]],
    name: str,
    attributes: EnrollAttributes,
    principal: str,
) -> dict[str, Any]:
    """Explain as plain values; a missing CSR is as if the server made the key.

    Raises NotFoundError, BadRequestError, UnavailableError (nothing can be issued now).
    """
    csr = signing_request(attributes)
    if csr is not None:
        spki = csr.public_key
    else:
        profile = next((one for one in await profiles() if one.name == name), None)
        if profile is None:
            raise NotFoundError(f"There is no profile {name} here.")
        key = await asyncio.to_thread(keys.generate, profile.key_types[0])
        spki = keys.spki(key.public_key())
    request = enrollment(attributes, name, csr).by(principal, spki, None)
    return told(await explainer.explain(request))


def told(decision: Decision) -> dict[str, Any]:
    """Give a decision as plain values that people can read."""
    plan = decision.outcome if isinstance(decision.outcome, Plan) else None
    return {
        "outcome": "refuse" if plan is None else "issue",
        "refusal": asdict(decision.outcome) if plan is None else None,
        "verdicts": [asdict(verdict) for verdict in decision.verdicts],
        "certificate": None if plan is None else _readable(plan),
    }


def _readable(plan: Plan) -> dict[str, Any]:
    kind = keys.key_type(plan.public_key)
    endless = plan.not_after_us == NO_EXPIRY_US
    return {
        "profile": f"{plan.profile} {plan.profile_version}",
        "subject": [f"{names.BY_OID[item.oid].name}={item.value}" for item in plan.subject],
        "alt_names": [f"{item.kind.value}:{item.value}" for item in plan.alt_names],
        "key_type": kind.value if kind else "unknown",
        "not_before": f"{datetime_of(plan.not_before_us):%Y-%m-%dT%H:%M:%SZ}",
        "not_after": None if endless else f"{datetime_of(plan.not_after_us):%Y-%m-%dT%H:%M:%SZ}",
        "key_usage": list(plan.key_usage),
        "extended_key_usage": list(plan.extended_key_usage),
        "ca_path_length": plan.ca_path_length,
        "extensions": [
            {"oid": oid, "critical": critical, "value": der.hex()}
            for oid, critical, der in plan.extensions
        ],
    }
