"""Idempotency-Key: optional, per principal and route (design.md §3)."""

import re
from dataclasses import dataclass, replace

from aiohttp import web

from shared.kernel import limits
from shared.kernel.errors import BadRequestError

_HEADER = "Idempotency-Key"
_FORM = re.compile(rf"[!-~]{{1,{limits.IDEMPOTENCY_KEY_CHARS_MAX}}}")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a client's key is unique within."""

    principal: str
    route: str
    key: str

    @property
    def text(self) -> str:
        """The one key that stands for all three."""
        return f"{self.principal} {self.route} {self.key}"

    @property
    def parts(self) -> tuple[str, str, str]:
        """Principal, route and key."""
        return self.principal, self.route, self.key

    def item(self, index: int) -> "Scope":
        """Give each item of a batch a key of its own."""
        return replace(self, key=f"{self.key} {index}")


def scope_of(request: web.Request, principal: str) -> Scope | None:
    """Read the header; raises BadRequestError when it is not 1 to 128 visible ASCII characters."""
    key = request.headers.get(_HEADER)
    if key is None:
        return None
    if not _FORM.fullmatch(key):
        raise BadRequestError(
            f"The header {_HEADER} must hold 1 to {limits.IDEMPOTENCY_KEY_CHARS_MAX} "
            "visible ASCII characters."
        )
    return Scope(principal, f"{request.method} {request.path}", key)
