"""What a decision depends on beside profile, grant and request."""

from dataclasses import dataclass

from shared.kernel.clock import Instant
from shared.pki.certificates import IssuerLimits
from shared.policy.rules import RuleSet

_NO_RULES = RuleSet()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else the decision depends on: the time, the CA that would sign, the last contact.

    ``issuer`` None: another box will sign, and judges itself whether its CA can.
    ``ca_id`` names the CA and ``ca_role`` what it is to this box (issuing, fleet, …);
    ``path_length`` is how many CAs may follow it, None without limit; ``rules`` are judged after
    the profile.
    """

    now: Instant
    issuer: IssuerLimits | None
    last_contact_us: int | None
    ca_id: str = ""
    ca_role: str = ""
    path_length: int | None = None
    rules: RuleSet = _NO_RULES
