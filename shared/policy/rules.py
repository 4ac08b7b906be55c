"""RuleSet: documents that bind a CA, or any subset of requests, whatever the profile says."""

from enum import StrEnum
from functools import cached_property
from typing import Annotated, Self

from pydantic import Field, model_validator

from shared.policy.conditions import Condition, Slug
from shared.policy.document import Document

_RULES_MAX = 200


class Effect(StrEnum):
    """What a rule does to the requests to which it applies."""

    ALLOW = "allow"  # of the allowing rules that apply, one must hold
    DENY = "deny"  # refused if it holds
    REQUIRE = "require"  # refused unless it holds


class Rule(Document):
    """One rule. ``applies_to`` says to which requests, ``when`` what of them is judged.

    ``remedy`` is what a requester reads who is refused.
    """

    name: Slug
    title: Annotated[str, Field(min_length=1, max_length=200)]
    applies_to: Condition = Condition()
    effect: Effect
    when: Condition = Condition()
    remedy: Annotated[str, Field(min_length=1, max_length=300)] = "Ask the administrator."


class RuleSet(Document):
    """All rules in force, in the order in which they are judged."""

    rules: Annotated[tuple[Rule, ...], Field(max_length=_RULES_MAX)] = ()

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if len({rule.name for rule in self.rules}) != len(self.rules):
            raise ValueError("rules names one rule twice")
        return self

    def of(self, profile: str) -> tuple[Rule, ...]:
        """Give the rules that could apply to requests for this profile."""
        found = self._by_profile.get(profile)
        if found is None:
            found = tuple(
                rule
                for rule in self.rules
                if not rule.applies_to.profiles or profile in rule.applies_to.profiles
            )
            self._by_profile[profile] = found
        return found

    @cached_property
    def _by_profile(self) -> dict[str, tuple[Rule, ...]]:
        return {}
