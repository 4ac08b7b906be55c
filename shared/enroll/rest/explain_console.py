"""The dry run of REST over the unix socket of both products: see ``shared.web.explain_console``."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from shared.enroll.rest import documents
from shared.enroll.rest.models import EnrollAttributes
from shared.policy.rights import Permission
from shared.web.console import command, read_order
from shared.web.explain_console import ExplainOrder

#: Takes profile, attributes and principal.
Explain = Callable[[str, EnrollAttributes, str], Awaitable[Any]]


def routes(explain: Explain) -> list[web.RouteDef]:
    """Give the route of the unix socket."""

    async def handler(request: web.Request, _actor: str) -> Any:
        order = await read_order(request, ExplainOrder)
        try:
            attributes = EnrollAttributes.model_validate_json(json.dumps(order.attributes))
        except ValidationError as error:
            raise documents.invalid(documents.details(error), "/attributes") from error
        return await explain(request.match_info["name"], attributes, order.principal)

    return [web.post("/profiles/{name}/explain", command(Permission.PROFILE_READ, handler))]
