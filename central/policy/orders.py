"""What the commands of ``central.policy`` send; light, so that the command line starts quickly."""

from typing import Annotated, Any

from pydantic import Field

from shared.web.console import Order


class DocumentOrder(Order):
    """A profile, a set of rules, or fields of a grant, as JSON."""

    document: dict[str, Any]


class PublishOrder(Order):
    """Put a version in force; ``version`` None: the newest. ``sample``: what to check it with."""

    version: Annotated[int, Field(ge=1)] | None = None
    sample: Annotated[dict[str, Any], Field(default_factory=dict[str, Any])]
