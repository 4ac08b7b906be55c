"""Bundles: the rules that a gateway holds, sent by central as one signed directive."""

from typing import Annotated, Self

from cryptography import x509
from pydantic import AfterValidator, Field, model_validator

from shared.policy.document import Document
from shared.policy.profile import Profile
from shared.policy.rules import RuleSet


def _certificate(der: bytes) -> bytes:
    try:
        x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise ValueError("must be a certificate in DER") from error
    return der


class Bundle(Document):
    """All profiles and rules in force, and the CA certificates (DER) that a gateway publishes.

    ``version`` counts the bundles of one central; the directive that carries it is signed and
    ordered by (incarnation, number).
    """

    version: Annotated[int, Field(ge=1)]
    profiles: Annotated[tuple[Profile, ...], Field(max_length=100)]
    certificates: Annotated[
        tuple[Annotated[bytes, AfterValidator(_certificate)], ...], Field(max_length=100)
    ]
    rules: RuleSet = RuleSet()

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if len({profile.name for profile in self.profiles}) != len(self.profiles):
            raise ValueError("profiles names one profile twice")
        return self
