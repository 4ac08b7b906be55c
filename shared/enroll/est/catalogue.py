"""The aliases of a box and their ready-made commands, below ``/api/v2.0``, on both products."""

from collections.abc import Callable
from dataclasses import asdict

from aiohttp import web

from shared.enroll.est import commands
from shared.enroll.est.commands import Place
from shared.enroll.requesters.rules import AliasRules
from shared.enroll.rest import documents
from shared.enroll.rest.rendering import BASE
from shared.kernel import limits
from shared.kernel.errors import BadRequestError
from shared.pki import names
from shared.policy.profile import Profile
from shared.policy.rights import Permission
from shared.web.auth import Authenticator

_READ = Permission.PROFILE_READ


def routes(
    rules: AliasRules,
    profile: Callable[[str], Profile],
    place: Callable[[], Place],
    authenticator: Authenticator,
) -> list[web.RouteDef]:
    """Give the routes; who has a token may read them, they hold no secrets."""

    async def aliases(_request: web.Request) -> web.Response:
        data = [
            {"type": "alias", "id": one.name, "attributes": one.to_document()}
            for one in rules.all()
        ]
        return documents.answer(documents.encode({"data": data}))

    async def ready_made(request: web.Request) -> web.Response:
        device = request.query.get("device")
        problem = device and names.text_problem(device, limits.DEVICE_ID_CHARS_MAX)
        if problem:
            raise BadRequestError(f"The device's serial number {problem}.")
        alias = rules.alias(request.match_info["name"])
        steps = commands.ready_made(alias, profile(alias.profile), place(), device)
        attributes = {"steps": [asdict(step) for step in steps]}
        data = {"type": "commands", "id": alias.name, "attributes": attributes}
        return documents.answer(documents.encode({"data": data}))

    return [
        web.get(f"{BASE}/aliases", authenticator.guarded(_READ, aliases)),
        web.get(f"{BASE}/aliases/{{name}}/commands", authenticator.guarded(_READ, ready_made)),
    ]
