"""The aliases of a box and their ready-made commands, below ``/api/v2.0``, on both products."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from shared.enroll.est import commands
from shared.enroll.est.commands import Place
from shared.enroll.requesters.rules import AliasRules
from shared.enroll.rest import documents, openapi
from shared.enroll.rest.routes import Route
from shared.kernel import limits
from shared.kernel.errors import BadRequestError
from shared.pki import names
from shared.policy.access import Alias
from shared.policy.profile import Profile
from shared.policy.rights import Permission
from shared.web.console import command

_READ = Permission.PROFILE_READ
_STEPS = {"steps": {"type": "array", "items": {"type": "object"}}}


class AliasCatalogue:
    """Shows the aliases that are on at this box, and what a machine types to use one."""

    def __init__(
        self, rules: AliasRules, profile: Callable[[str], Profile], place: Callable[[], Place]
    ) -> None:
        """Take the aliases, the profiles in force and where the box is reached."""
        self._rules = rules
        self._profile = profile
        self._place = place

    def aliases(self) -> list[dict[str, Any]]:
        """List the aliases that are on."""
        return [_shown(one) for one in self._rules.all()]

    def commands(self, name: str, device: str | None) -> list[dict[str, Any]]:
        """Give the steps for a machine, for one device if its serial number is given.

        Raises NotFoundError, BadRequestError.
        """
        problem = device and names.text_problem(device, limits.DEVICE_ID_CHARS_MAX)
        if problem:
            raise BadRequestError(f"The device's serial number {problem}.")
        alias = self._rules.alias(name)
        steps = commands.ready_made(alias, self._profile(alias.profile), self._place(), device)
        return [asdict(step) for step in steps]

    def routes(self) -> list[Route]:
        """Give the routes of REST; who has a token may read them, they hold no secrets."""

        async def aliases(_request: web.Request) -> web.Response:
            data = [_resource("alias", one["name"], one) for one in self.aliases()]
            return documents.answer(documents.encode({"data": data}))

        async def ready_made(request: web.Request) -> web.Response:
            name = request.match_info["name"]
            steps = self.commands(name, request.query.get("device"))
            data = _resource("commands", name, {"steps": steps})
            return documents.answer(documents.encode({"data": data}))

        known = {"name": openapi.TEXT, "profile": openapi.TEXT}
        about = "List the enrollment aliases (labels of EST) that are on here"
        exact = "Give the exact commands for a machine that enrolls by an alias"
        return [
            Route(
                _READ, "GET", "/aliases", aliases, about, "Aliases", schema=openapi.listed(known)
            ),
            Route(
                _READ,
                "GET",
                "/aliases/{name}/commands",
                ready_made,
                exact,
                "Commands",
                query=("device",),
                schema=openapi.single(_STEPS),
            ),
        ]

    def console_routes(self) -> list[web.AbstractRouteDef]:
        """Give the routes of the unix socket."""

        async def aliases(_request: web.Request, _actor: str) -> Any:
            return self.aliases()

        async def ready_made(request: web.Request, _actor: str) -> Any:
            return self.commands(request.match_info["name"], request.query.get("device"))

        return [
            web.get("/aliases", command(_READ, aliases)),
            web.get("/aliases/{name}/commands", command(_READ, ready_made)),
        ]


def _shown(alias: Alias) -> dict[str, Any]:
    return alias.model_dump(mode="json")


def _resource(kind: str, name: str, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "id": name, "attributes": attributes}
